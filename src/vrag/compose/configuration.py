"""`vrag.toml`, `VRAG_*` variables and flags, read into one value that knows where each of its settings came from."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from vrag.errors import ConfigError, FormatVersionError, UsageError
from vrag.values.assets import check_knowledge_base_name
from vrag.values.briefs import Brief
from vrag.values.canonical import JSON
from vrag.values.policy import Policy

__all__ = ["FILE_NAME", "Configuration", "Part", "Setting", "find_file", "read_configuration"]

FILE_NAME: Final = "vrag.toml"
FORMAT: Final = 1
_LINES_COUNTED: Final = 400
_NAMED_SECTIONS: Final = ("generators", "knowledge_bases")
_KNOWLEDGE_BASE_PARTS: Final = ("embedder", "store", "storage")
_KNOWLEDGE_BASE_TABLES: Final = ("limits", "retrieval")
_DEFAULT_PARTS: Final = MappingProxyType(
    {
        "workspace.storage": "local:folder",
        "workspace.signer": "local:key-file",
        "workspace.inpainter": "local:opencv",
        "generators.camera": "local:camera-moves",
    }
)
_KNOWLEDGE_BASE_DEFAULTS: Final = MappingProxyType(
    {"embedder": "local:wordllama", "store": "local:exact", "storage": "local:folder"}
)
_SECRET = re.compile(
    r"(?:^|[_-])(?:password|passwd|passphrase|secret|token|credentials?|(?:api|access|private)[_-]?key)$"
)
_SECRET_VALUE = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|://[^/@\s]*:[^/@\s]+@|-----BEGIN [A-Z ]*PRIVATE KEY")
_USE = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+")


def _scalars() -> dict[str, tuple[type, JSON]]:
    """Each plain setting with its type and default; those of `policy` and `defaults` are the values' own."""
    found: dict[str, tuple[type, JSON]] = {"workspace.folder": (str, "studio")}
    found |= {f"policy.{field.name}": (type(field.default), field.default) for field in attrs.fields(Policy)}
    found |= {"defaults.knowledge_base": (str, None), "defaults.model": (str, None)}
    kinds: dict[str, type] = {"width_px": int, "height_px": int, "fps": float, "duration_s": float}
    defaults = {field.name: field.default for field in attrs.fields(Brief)}
    for name in ("width_px", "height_px", "fps", "duration_s", "codec", "fit"):
        found[f"defaults.{name}"] = (kinds.get(name, str), defaults[name])
    return found


SCALARS: Final = MappingProxyType(_scalars())
_SINGLE_PARTS: Final = ("workspace.storage", "workspace.signer", "workspace.inpainter")


@frozen(kw_only=True)
class Setting:
    """A value and where it came from: a flag, a variable, `vrag.toml:4`, or `default`."""

    value: JSON
    origin: str


@frozen(kw_only=True)
class Part:
    """Which backend to use for something, with its options; `use` is `ENTRY_POINT:NAME`, or `none`."""

    use: str
    options: Mapping[str, JSON]
    origin: str

    @property
    def is_default(self) -> bool:
        """Nobody asked for it."""
        return self.origin == "default"


@frozen(kw_only=True)
class Configuration:
    """Everything that was configured, with origins. It holds no secret: those stay in the environment."""

    path: Path | None
    """The file that was read; None without one."""
    folder: Path
    """The workspace, absolute."""
    settings: Mapping[str, Setting]
    """Every plain setting by its dotted name."""
    parts: Mapping[str, Part]
    """Every configured backend by its dotted name: `generators.luma`, `knowledge_bases.brand.embedder` …"""
    tables: Mapping[str, Setting]
    """`knowledge_bases.brand.limits` and `.retrieval`, as they were written."""
    knowledge_bases: tuple[str, ...] | None
    """The names of the file; None: every name is allowed, with the defaults."""

    def value(self, key: str) -> JSON:
        """The value of a plain setting."""
        return self.settings[key].value

    def part(self, key: str) -> Part:
        """The backend configured for `key`, else the default one."""
        return self.parts.get(key) or Part(
            use=_KNOWLEDGE_BASE_DEFAULTS[key.rpartition(".")[2]], options={}, origin="default"
        )

    @property
    def policy(self) -> Policy:
        """The policy that the settings say."""
        return Policy(**{field.name: self.value(f"policy.{field.name}") for field in attrs.fields(Policy)})

    def rows(self) -> list[tuple[str, JSON, str]]:
        """(name, value, origin) of everything, for people; sorted by name."""
        rows = [(key, setting.value, setting.origin) for key, setting in self.settings.items()]
        for key, part in self.parts.items():
            rows.append((f"{key}.use", part.use, part.origin))
            rows += [(f"{key}.{name}", value, part.origin) for name, value in part.options.items()]
        for key, table in self.tables.items():
            rows += [(f"{key}.{name}", value, table.origin) for name, value in table.value.items()]
        if self.knowledge_bases is None:
            rows += [(f"knowledge_bases.*.{key}.use", use, "default") for key, use in _KNOWLEDGE_BASE_DEFAULTS.items()]
        return sorted(rows, key=lambda row: row[0])


def find_file(environ: Mapping[str, str], start: Path | None = None) -> Path | None:
    """The file to read: `VRAG_CONFIG`, else `vrag.toml` in `start` (the current folder) or the nearest one above it."""
    start = (start or Path.cwd()).absolute()
    if given := environ.get("VRAG_CONFIG"):
        return Path(start, given)
    return next((file for above in (start, *start.parents) if (file := above / FILE_NAME).is_file()), None)


def read_configuration(
    file: Path | None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, tuple[JSON, str]] | None = None,
    start: Path | None = None,
) -> Configuration:
    """Read the configuration: a flag beats a variable, a variable the file, the file the default.

    Args:
        file: What `find_file` found, or what a user named; None is no file.
        environ: The variables; `VRAG_WORKSPACE_FOLDER` is `workspace.folder`.
        flags: `{dotted name: (value, origin)}`, such as `{"workspace.folder": ("studio", "--workspace")}`.
        start: What a relative folder of a flag or variable is relative to; None is the current folder.

    Raises:
        ConfigError: A key is unknown, a value unusable, or a secret stands in the file; with the line.
        FormatVersionError: A newer release wrote the file.
    """
    start = (start or Path.cwd()).absolute()
    file = file and Path(start, file)
    document, lines = _read(file) if file else ({}, {})
    walker = _Document(document, lines, file.name if file else FILE_NAME)
    walker.check()

    settings = {key: Setting(value=default, origin="default") for key, (_, default) in SCALARS.items()}
    parts = {key: Part(use=use, options={}, origin="default") for key, use in _DEFAULT_PARTS.items()}
    if document.get("generators"):
        del parts["generators.camera"]
    for key in SCALARS:
        section, name = key.split(".")
        if name in document.get(section, {}):
            where = walker.where(section, name)
            settings[key] = Setting(value=_typed(key, document[section][name], where), origin=where)
    parts |= walker.parts()

    for origin, key, value in (
        *_variables(environ),
        *((origin, key, value) for key, (value, origin) in (flags or {}).items()),
    ):
        if key in _SINGLE_PARTS:
            parts[key] = _part(value, origin)
        elif key in SCALARS:
            settings[key] = Setting(value=_typed(key, value, origin), origin=origin)
        else:
            raise _unknown(key, (*SCALARS, *_SINGLE_PARTS), origin, "as a setting")

    folder = settings["workspace.folder"]
    # One that was typed is relative to where it was typed; else a project has one workspace, wherever in it one stands.
    base = file.parent if file and folder.origin in {"default", walker.where("workspace", "folder")} else start
    configured = tuple(document["knowledge_bases"]) if document.get("knowledge_bases") else None
    return Configuration(
        path=file,
        folder=Path(base, Path(str(folder.value)).expanduser()),
        settings=MappingProxyType(settings),
        parts=MappingProxyType(parts),
        tables=MappingProxyType(walker.tables()),
        knowledge_bases=configured,
    )


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


@frozen
class _Document:
    """The parsed file, and where each key stands in it."""

    document: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]
    name: str

    def where(self, *path: str) -> str:
        line = self.lines.get(path)
        return f"{self.name}:{line}" if line else self.name

    def check(self) -> None:
        """Refuse secrets, unknown keys and sections that are no tables."""
        self._refuse_secrets(self.document, ())
        sections = ("format", "workspace", "policy", "defaults", *_NAMED_SECTIONS)
        for section, body in self.document.items():
            if section not in sections:
                raise _unknown(section, sections, self.where(section), "at the top")
            if not isinstance(body, dict):
                raise ConfigError(f"{self.where(section)}: '{section}' is a table: write [{section}].")
            if section in _NAMED_SECTIONS:
                for name, entry in body.items():
                    self._check_named(section, name, entry)
                continue
            known = [key.split(".")[1] for key in (*SCALARS, *_SINGLE_PARTS) if key.startswith(f"{section}.")]
            for key in body:
                if key not in known:
                    raise _unknown(key, known, self.where(section, key), f"in [{section}]")

    def _check_named(self, section: str, name: str, entry: object) -> None:
        where = self.where(section, name)
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: '{name}' is a table: write [{section}.{name}].")
        if section == "knowledge_bases":
            try:
                check_knowledge_base_name(name)
            except UsageError as error:
                raise ConfigError(f"{where}: {error.message}") from error
            known = (*_KNOWLEDGE_BASE_PARTS, *_KNOWLEDGE_BASE_TABLES)
            for key, value in entry.items():
                if key not in known:
                    raise _unknown(key, known, self.where(section, name, key), f"in [{section}.{name}]")
                if key in _KNOWLEDGE_BASE_TABLES and not isinstance(value, dict):
                    raise ConfigError(f"{self.where(section, name, key)}: '{key}' is a table.")

    def _refuse_secrets(self, value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
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
                "URL with a password). Remove it, and name an environment variable instead.",
                hint=f'write: {path[-1]}_env = "NAME_OF_THE_VARIABLE"',
            )

    def parts(self) -> dict[str, Part]:
        """Every backend that the file names."""
        found: dict[str, Part] = {}
        for key in _SINGLE_PARTS:
            section, name = key.split(".")
            if name in self.document.get(section, {}):
                found[key] = _part(self.document[section][name], self.where(section, name))
        for name, entry in self.document.get("generators", {}).items():
            found[f"generators.{name}"] = _part(entry, self.where("generators", name))
        for name, entry in self.document.get("knowledge_bases", {}).items():
            for key in _KNOWLEDGE_BASE_PARTS:
                if key in entry:
                    found[f"knowledge_bases.{name}.{key}"] = _part(entry[key], self.where("knowledge_bases", name, key))
        return found

    def tables(self) -> dict[str, Setting]:
        """`limits` and `retrieval` of each knowledge base; who uses them knows their keys."""
        return {
            f"knowledge_bases.{name}.{key}": Setting(value=entry[key], origin=self.where("knowledge_bases", name, key))
            for name, entry in self.document.get("knowledge_bases", {}).items()
            for key in _KNOWLEDGE_BASE_TABLES
            if key in entry
        }


def _part(value: object, origin: str) -> Part:
    table = {"use": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    use = table.pop("use", None)
    if not isinstance(use, str) or not (use == "none" or _USE.fullmatch(use)):
        raise ConfigError(
            f"{origin}: a backend is named by text such as 'local:folder' (entry point, colon, name), by 'none', or by "
            "a table with such a `use`.",
            hint='write: use = "local:camera-moves"',
        )
    return Part(use=use, options=MappingProxyType(table), origin=origin)


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Each `VRAG_WORKSPACE_…`, `VRAG_POLICY_…` and `VRAG_DEFAULTS_…`; other `VRAG_` names may be anybody's."""
    for variable in sorted(environ):
        prefix, _, rest = variable.partition("_")
        section, _, name = rest.lower().partition("_")
        if prefix == "VRAG" and section in {"workspace", "policy", "defaults"} and name:
            yield variable, f"{section}.{name}", environ[variable]


def _typed(key: str, value: JSON, where: str) -> JSON:
    kind, default = SCALARS[key]
    if kind is str:
        choices = _choices(key)
        if isinstance(value, str) and value and (not choices or value in choices):
            return value
        allowed = f"one of {', '.join(choices)}" if choices else "text that is not empty"
        raise ConfigError(f"{where}: '{key}' is {allowed}, not {_shown(value)}.", hint=_example(key, default))
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301  # `int(True)` would pass
        number = kind(value)
        Brief(**{key.split(".")[1]: number})
    except (TypeError, ValueError) as error:
        noun = "a whole number" if kind is int else "a number"
        raise ConfigError(
            f"{where}: '{key}' is {noun} in its limits, not {_shown(value)}.", hint=_example(key, default)
        ) from error
    return number


def _choices(key: str) -> tuple[str, ...]:
    section, name = key.split(".")
    hint = get_type_hints(Policy if section == "policy" else Brief).get(name)
    return get_args(hint) if get_origin(hint) is Literal else ()


def _example(key: str, default: JSON) -> str:
    name = key.split(".")[1]
    return f'write: {name} = "{default}"' if isinstance(default, str) else f"write: {name} = {default}"


def _shown(value: JSON) -> str:
    return (
        f"'{value[:60]}'"
        if isinstance(value, str)
        else f"{value}"
        if isinstance(value, int | float)
        else "a table or list"
    )


def _unknown(key: str, known: tuple[str, ...] | list[str], where: str, place: str) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"{where}: unknown key '{key}' {place}.{guess} Known: {', '.join(sorted(known))}.")
