"""`[budget]`, `[marking]` and `[checkpoints]` of `vrag.toml`: what may be spent, how films are marked, what is kept outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from attrs import fields

from vrag.clock import Clock
from vrag.compose.configuration import Setting
from vrag.errors import ConfigError, UsageError
from vrag.interfaces import Signer, Storage
from vrag.provenance.certificates import ClaimSigner, claim_signer, development_signer
from vrag.provenance.checkpoints import CheckpointFile, CheckpointKeeper, CheckpointStorage, StateFolder
from vrag.provenance.marking import Marking
from vrag.values.canonical import JSON, from_json
from vrag.values.policy import Caps

__all__ = ["caps", "claims", "keepers", "marking"]

_CLAIM_KEYS: Final = ("certificate_file", "key_file", "signer", "tsa_url")
_CAPS: Final = {
    "run_usd": "run_usd_micros",
    "knowledge_base_usd": "knowledge_base_usd_micros",
    "month_usd": "month_usd_micros",
    "run_video_s": "run_video_s",
    "month_video_s": "month_video_s",
}


def caps(table: Setting | None) -> Caps:
    """What `[budget]` says; money in USD there, in micro-USD here."""
    found: dict[str, int | float] = {}
    for key, value in _content(table).items():
        if key not in _CAPS:
            raise ConfigError(f"{_where(table)}: unknown key '{key}' in [budget]. Known: {', '.join(sorted(_CAPS))}.")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(f"{_where(table)}: '{key}' is a number, 0 or more.", hint=f"write: {key} = 20")
        found[_CAPS[key]] = round(value * 1_000_000) if key.endswith("_usd") else float(value)
    return Caps(**found)  # type: ignore[arg-type]  # the table above pairs names and kinds


def marking(table: Setting | None) -> Marking:
    """What `[marking]` says of the marks themselves."""
    content = {key: value for key, value in _content(table).items() if key not in _CLAIM_KEYS}
    if isinstance(content.get("label"), str):
        content["label"] = {"text": content["label"]}
    try:
        return from_json(Marking, content)
    except (UsageError, ValueError) as error:
        known = ", ".join(sorted([*(field.name for field in fields(Marking)), *_CLAIM_KEYS]))
        said = error.message if isinstance(error, UsageError) else str(error.args[0])
        raise ConfigError(f"{_where(table)}: [marking]: {said} It knows: {known}.") from error


def claims(
    table: Setting | None, folder: Path, *, signer: Callable[[JSON, str], Signer], clock: Clock
) -> ClaimSigner | None:
    """Who signs content credentials: a bought certificate where one is named, else a development one in `folder`.

    Args:
        table: `[marking]`, with absolute paths.
        folder: Where the development chain is made on first use.
        signer: Makes the signer that a value of `signer` names, such as `{use = "aws:kms", key_id = …}`.
        clock: Says whether the certificate is valid now.
    """
    content = _content(table)
    if content.get("credentials") == "none":
        return None
    given = {key: content.get(key) for key in _CLAIM_KEYS}
    for key in ("certificate_file", "key_file", "tsa_url"):
        if given[key] is not None and not isinstance(given[key], str):
            raise ConfigError(f"{_where(table)}: '{key}' is text.", hint=f'write: {key} = "…"')
    if given["certificate_file"] is None:
        extra = [key for key in ("key_file", "signer", "tsa_url") if given[key] is not None]
        if extra:
            raise ConfigError(
                f"{_where(table)}: '{extra[0]}' needs a certificate of yours.", hint='write: certificate_file = "…"'
            )
        return development_signer(folder, clock=clock)
    if (given["key_file"] is None) == (given["signer"] is None):
        raise ConfigError(
            f"{_where(table)}: a certificate has either a 'key_file' or a 'signer'.", hint='write: key_file = "…"'
        )
    chain = Path(str(given["certificate_file"]))
    whose = signer(given["signer"], _where(table)) if given["key_file"] is None else Path(str(given["key_file"]))
    return claim_signer(chain=chain, key=whose, tsa_url=given["tsa_url"], clock=clock)


def keepers(
    table: Setting | None, state: StateFolder, *, storage: Callable[[JSON, str], Storage]
) -> tuple[CheckpointKeeper, ...]:
    """Where checkpoints are kept: the user's state folder unless `[checkpoints]` says otherwise, a file, a storage."""
    found: list[CheckpointKeeper] = []
    content = dict(_content(table))
    if content.pop("state_folder", True):
        found.append(state)
    file, kept_in = content.pop("file", None), content.pop("storage", None)
    if content:
        known = "file, state_folder, storage"
        raise ConfigError(f"{_where(table)}: unknown key '{min(content)}' in [checkpoints]. Known: {known}.")
    if isinstance(file, str):
        found.append(CheckpointFile(Path(file)))
    if kept_in is not None:
        found.append(CheckpointStorage(storage(kept_in, _where(table))))
    return tuple(found)


def _content(table: Setting | None) -> Mapping[str, JSON]:
    return {} if table is None else table.value


def _where(table: Setting | None) -> str:
    return "default" if table is None else table.origin
