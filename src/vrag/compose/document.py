"""A TOML file with the line of each key, without secrets."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from vrag.errors import ConfigError, FormatVersionError

__all__ = ["Document", "read_document", "unknown_key"]

FORMAT: Final = 1
_LINES_COUNTED: Final = 400
_SECRET = re.compile(
    r"(?:^|[_-])(?:password|passwd|passphrase|secret|token|credentials?|(?:api|access|private)[_-]?key)$"
)
_SECRET_VALUE = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|://[^/@\s]*:[^/@\s]+@|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|[?&](?:X-Amz-(?:Credential|Security-Token|Signature)|AWSAccessKeyId|Signature|sig)="
)


@frozen
class Document:
    """The parsed file, and where each key stands in it."""

    content: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]
    name: str

    def where(self, *path: str) -> str:
        """`vrag.toml:4`, or the name of the file for a key without a line."""
        line = self.lines.get(path)
        return f"{self.name}:{line}" if line else self.name

    def refuse_secrets(self) -> None:
        """Refuse keys and values that look like a secret.

        Raises:
            ConfigError: With the line and never with the value.
        """
        self._refuse_secrets(self.content, ())

    def _refuse_secrets(self, value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if (*path, key) == ("marking", "credentials"):
                    continue  # content credentials: `c2pa` or `none`
                if _SECRET.search(key.lower()) and not isinstance(inner, dict):
                    raise ConfigError(
                        f"{self.where(*path, key)}: '{key}' looks like a secret, and no secret belongs into a file. "
                        f"Name an environment variable instead: {key}_env.",
                        hint=f'write: {key}_env = "NAME_OF_THE_VARIABLE"',
                    )
                self._refuse_secrets(inner, (*path, key))
        elif isinstance(value, list):
            for inner in value:
                self._refuse_secrets(inner, path)
        elif isinstance(value, str) and _SECRET_VALUE.search(value):
            raise ConfigError(
                f"{self.where(*path)}: the value of '{path[-1]}' looks like a secret (an access key, a private key, or a "
                "URL with a password or a signature). Remove it, and name an environment variable instead.",
                hint=f'write: {path[-1]}_env = "NAME_OF_THE_VARIABLE"',
            )


def read_document(file: Path | None, name: str) -> Document:
    """Read a file; None is an empty one with that name.

    Raises:
        ConfigError: It cannot be read, or it is not TOML.
        FormatVersionError: A newer release wrote it.
    """
    content, lines = _read(file) if file else ({}, {})
    return Document(content, lines, file.name if file else name)


def unknown_key(key: str, known: Sequence[str], where: str, place: str) -> ConfigError:
    """The error for a key that is not known, with the nearest one and all of them."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"{where}: unknown key '{key}' {place}.{guess} Known: {', '.join(sorted(known))}.")


def _read(file: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"The configuration '{file}' cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"The configuration '{file}' is not TOML: {reason}.") from error
    found = document.pop("format", FORMAT)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ConfigError(
            f"{file.name}: 'format' is a whole number from 1 to {FORMAT}.", hint=f"write: format = {FORMAT}"
        )
    if found > FORMAT:
        raise FormatVersionError(
            f"{file.name} has format {found}; this release reads up to {FORMAT}.", hint="pip install --upgrade vrag"
        )
    return document, _lines(text)


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of each key: `tomllib` tells none, so it is the first valid beginning of the file that holds the key."""
    found: dict[tuple[str, ...], int] = {}
    lines = text.split("\n")
    for number in range(1, min(len(lines), _LINES_COUNTED) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # the middle of a value of several lines
        for path in _paths(document):
            found.setdefault(path, number)
    return found


def _paths(document: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
