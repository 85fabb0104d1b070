"""`vrag.toml`, `VRAG_*` variables and flags, read into one value that knows where each of its settings came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from vrag.backends.aws.clients import CONNECTION, SERVICES, check_settings
from vrag.compose.document import Document, read_document, unknown_key
from vrag.errors import ConfigError, UsageError
from vrag.values.assets import check_knowledge_base_name
from vrag.values.briefs import Brief
from vrag.values.canonical import JSON
from vrag.values.policy import Policy

__all__ = ["FILE_NAME", "Configuration", "Part", "Setting", "find_file", "part_of", "read_configuration"]

FILE_NAME: Final = "vrag.toml"
_NAMED_SECTIONS: Final = ("generators", "knowledge_bases")
_AWS: Final = "aws"
"""The table of what all parts on AWS have in common."""
_TABLES: Final = ("budget", "marking", "checkpoints")
"""Whole tables; `vrag.compose.evidence` knows their keys."""
_KNOWLEDGE_BASE_PARTS: Final = ("embedder", "store", "storage", "captioner")
_KNOWLEDGE_BASE_TABLES: Final = ("limits", "retrieval", "policy")
_KNOWLEDGE_BASE_TEXTS: Final = MappingProxyType({"time_zone": "Europe/Berlin"})
"""Texts, each with an example."""
_DEFAULT_PARTS: Final = MappingProxyType(
    {
        "workspace.storage": "local:folder",
        "workspace.signer": "local:key-file",
        "workspace.inpainter": "local:opencv",
        "workspace.moderator": "none",
        "generators.camera": "local:camera-moves",
    }
)
_KNOWLEDGE_BASE_DEFAULTS: Final = MappingProxyType(
    {"embedder": "local:wordllama", "store": "local:exact", "storage": "local:folder", "captioner": "none"}
)
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
_SINGLE_PARTS: Final = ("workspace.storage", "workspace.signer", "workspace.inpainter", "workspace.moderator")


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
    """`aws`, `budget`, `marking`, `checkpoints`, and `knowledge_bases.brand.limits`, `.retrieval`, `.policy` and `.time_zone`, as they were written."""
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
            rows += [(name, value, table.origin) for name, value in _leaves(key, table.value)]
        if self.knowledge_bases is None:
            rows += [(f"knowledge_bases.*.{key}.use", use, "default") for key, use in _KNOWLEDGE_BASE_DEFAULTS.items()]
        return sorted(rows, key=lambda row: row[0])


def _leaves(key: str, value: JSON) -> Iterator[tuple[str, JSON]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)


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
    document = read_document(file, FILE_NAME)
    _check(document)
    content = document.content

    settings = {key: Setting(value=default, origin="default") for key, (_, default) in SCALARS.items()}
    parts = {key: Part(use=use, options={}, origin="default") for key, use in _DEFAULT_PARTS.items()}
    if content.get("generators"):
        del parts["generators.camera"]
    for key in SCALARS:
        section, name = key.split(".")
        if name in content.get(section, {}):
            where = document.where(section, name)
            settings[key] = Setting(value=_typed(key, content[section][name], where), origin=where)
    parts |= _parts(document)

    for origin, key, value in (
        *_variables(environ),
        *((origin, key, value) for key, (value, origin) in (flags or {}).items()),
    ):
        if key in _SINGLE_PARTS:
            parts[key] = part_of(value, origin)
        elif key in SCALARS:
            settings[key] = Setting(value=_typed(key, value, origin), origin=origin)
        else:
            raise unknown_key(key, (*SCALARS, *_SINGLE_PARTS), origin, "as a setting")

    folder = settings["workspace.folder"]
    # One that was typed is relative to where it was typed; else a project has one workspace, wherever in it one stands.
    base = file.parent if file and folder.origin in {"default", document.where("workspace", "folder")} else start
    configured = tuple(content["knowledge_bases"]) if content.get("knowledge_bases") else None
    return Configuration(
        path=file,
        folder=Path(base, Path(str(folder.value)).expanduser()),
        settings=MappingProxyType(settings),
        parts=MappingProxyType(parts),
        tables=MappingProxyType(_tables(document)),
        knowledge_bases=configured,
    )


def _check(document: Document) -> None:
    """Refuse secrets, unknown keys and sections that are no tables."""
    document.refuse_secrets()
    sections = ("format", "workspace", "policy", "defaults", _AWS, *_TABLES, *_NAMED_SECTIONS)
    for section, body in document.content.items():
        if section not in sections:
            raise unknown_key(section, sections, document.where(section), "at the top")
        if not isinstance(body, dict):
            raise ConfigError(f"{document.where(section)}: '{section}' is a table: write [{section}].")
        if section in _NAMED_SECTIONS:
            for name, entry in body.items():
                _check_named(document, section, name, entry)
        elif section == _AWS:
            _check_aws(document, body)
        elif section in _TABLES:
            continue
        else:
            known = [key.split(".")[1] for key in (*SCALARS, *_SINGLE_PARTS) if key.startswith(f"{section}.")]
            for key in body:
                if key not in known:
                    raise unknown_key(key, known, document.where(section, key), f"in [{section}]")


def _check_aws(document: Document, body: Mapping[str, Any]) -> None:
    for key, value in body.items():
        known = CONNECTION if isinstance(value, dict) else (*CONNECTION, *SERVICES)
        path, place = ((_AWS, key), f"in [{_AWS}]")
        if isinstance(value, dict) and key not in SERVICES:
            raise unknown_key(key, SERVICES, document.where(*path), place)
        inner = value if isinstance(value, dict) else {key: value}
        for name in inner:
            if name not in known:
                where = document.where(*path, name) if isinstance(value, dict) else document.where(*path)
                raise unknown_key(name, known, where, f"in [{_AWS}.{key}]" if isinstance(value, dict) else place)
    try:
        check_settings(body)
    except ConfigError as error:
        raise ConfigError(f"{document.where(_AWS)}: {error.message}", hint=error.hint) from error


def _check_named(document: Document, section: str, name: str, entry: object) -> None:
    where = document.where(section, name)
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: '{name}' is a table: write [{section}.{name}].")
    if section != "knowledge_bases":
        return
    try:
        check_knowledge_base_name(name)
    except UsageError as error:
        raise ConfigError(f"{where}: {error.message}") from error
    known = (*_KNOWLEDGE_BASE_PARTS, *_KNOWLEDGE_BASE_TABLES, *_KNOWLEDGE_BASE_TEXTS)
    for key, value in entry.items():
        here = document.where(section, name, key)
        if key not in known:
            raise unknown_key(key, known, here, f"in [{section}.{name}]")
        if key in _KNOWLEDGE_BASE_TABLES and not isinstance(value, dict):
            raise ConfigError(f"{here}: '{key}' is a table.")
        if key in _KNOWLEDGE_BASE_TEXTS and not isinstance(value, str):
            raise ConfigError(f"{here}: '{key}' is text.", hint=f'write: {key} = "{_KNOWLEDGE_BASE_TEXTS[key]}"')


def _parts(document: Document) -> dict[str, Part]:
    """Every backend that the file names."""
    content, found = document.content, dict[str, Part]()
    for key in _SINGLE_PARTS:
        section, name = key.split(".")
        if name in content.get(section, {}):
            found[key] = part_of(content[section][name], document.where(section, name))
    for name, entry in content.get("generators", {}).items():
        found[f"generators.{name}"] = part_of(entry, document.where("generators", name))
    for name, entry in content.get("knowledge_bases", {}).items():
        for key in _KNOWLEDGE_BASE_PARTS:
            if key in entry:
                found[f"knowledge_bases.{name}.{key}"] = part_of(
                    entry[key], document.where("knowledge_bases", name, key)
                )
    return found


def _tables(document: Document) -> dict[str, Setting]:
    """What is kept as it is written: who uses it knows its keys."""
    found = {
        f"knowledge_bases.{name}.{key}": Setting(value=entry[key], origin=document.where("knowledge_bases", name, key))
        for name, entry in document.content.get("knowledge_bases", {}).items()
        for key in (*_KNOWLEDGE_BASE_TABLES, *_KNOWLEDGE_BASE_TEXTS)
        if key in entry
    }
    for section in (_AWS, *_TABLES):
        if section in document.content:
            found[section] = Setting(value=document.content[section], origin=document.where(section))
    return found


def part_of(value: object, origin: str) -> Part:
    """The backend that a value of the file names.

    Raises:
        ConfigError: It names none.
    """
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
