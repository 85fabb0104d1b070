"""Which hosted models a configuration names, and how they stand today; nothing is asked and no backend is imported."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from attrs import frozen

from vrag.backends.aws import MODELS
from vrag.compose.configuration import Configuration, Part
from vrag.errors import ModelRetiredError
from vrag.generation.catalogue import Catalogue, Model, State

__all__ = ["ConfiguredModel", "configured_models"]

PROVIDER = "aws-bedrock"


@frozen(kw_only=True)
class ConfiguredModel:
    """A hosted model that one part of the configuration uses."""

    key: str
    """Of the part: `generators.luma`."""
    part: Part
    id: str
    """As it is called: a model id or an inference profile."""
    known: Model | None
    """Of the catalogue; None is unknown, not refused."""
    state: State | None
    problem: str | None = None
    """Why it is refused when it is used, with alternatives."""


def configured_models(
    configuration: Configuration, now: datetime, *, catalogue: Catalogue | None = None
) -> Iterator[ConfiguredModel]:
    """Every model of every part on Bedrock, in order of the parts' names.

    Args:
        configuration: What was configured.
        now: The time of day, which decides what has been retired.
        catalogue: By default that of this release.
    """
    catalogue = catalogue or Catalogue.load()
    for key, part in sorted(configuration.parts.items()):
        backend, _, name = part.use.partition(":")
        if backend != "aws" or name not in MODELS:
            continue
        given = part.options.get("model")
        for model_id in (given,) if isinstance(given, str) else MODELS[name]:
            known = catalogue.find(PROVIDER, model_id)
            problem = None
            if known is not None:
                try:
                    allowed = part.options.get("allow_retired") is True
                    catalogue.check_usable(known, now, allow_retired=allowed)
                except ModelRetiredError as error:
                    problem = str(error)
            state = None if known is None else known.state_on(now.date())
            yield ConfiguredModel(key=key, part=part, id=model_id, known=known, state=state, problem=problem)
