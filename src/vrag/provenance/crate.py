"""An audit export as an RO-Crate: what its files are, and which step made what from what.

Source: RO-Crate Metadata Specification 1.1.3, w3id.org/ro/crate/1.1 (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vrag.provenance.statement import NAMESPACE, Statement
from vrag.values.canonical import JSON

__all__ = ["crate_json"]

_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_TYPES = {"image": "ImageObject", "video": "VideoObject"}


def crate_json(
    records: Iterable[Statement], *, files: Mapping[str, tuple[str, str]], name: str, description: str, at: str
) -> dict[str, JSON]:
    """The content of `ro-crate-metadata.json`.

    Args:
        records: The statements of the export.
        files: Media type and description of each file in the folder, by name.
        name: Of the crate.
        description: What it holds.
        at: When it was made, RFC 3339 UTC.
    """
    found: dict[str, dict[str, JSON]] = {}
    actions = [one for record in records for one in _action(record, found)]
    parts = [
        {"@id": file, "@type": "File", "name": file, "encodingFormat": media_type, "description": text}
        for file, (media_type, text) in files.items()
    ]
    return {
        "@context": f"{_SPECIFICATION}/context",
        "@graph": [
            {
                "@id": "ro-crate-metadata.json",
                "@type": "CreativeWork",
                "conformsTo": {"@id": _SPECIFICATION},
                "about": {"@id": "./"},
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": name,
                "description": description,
                "datePublished": at,
                "license": {"@id": "#rights"},
                "hasPart": [{"@id": one["@id"]} for one in parts],
                "mentions": [{"@id": one["@id"]} for one in actions],
            },
            {
                "@id": "#rights",
                "@type": "CreativeWork",
                "name": "Rights",
                "description": "The rights of each picture stand in the records that used it.",
            },
            *parts,
            *actions,
            *found.values(),
        ],
    }


def _action(statement: Statement, found: dict[str, dict[str, JSON]]) -> Iterable[dict[str, JSON]]:
    if statement.kind == "receipt":
        return
    build = statement.content["predicate"]["buildDefinition"]
    metadata = statement.content["predicate"]["runDetails"]["metadata"]
    action: dict[str, JSON] = {
        "@id": f"#record-{statement.record_id}",
        "@type": "ChooseAction" if statement.kind == "choose" else "CreateAction",
        "name": statement.kind,
        "startTime": metadata.get("startedOn", metadata["finishedOn"]),
        "endTime": metadata["finishedOn"],
        "object": _media(build["resolvedDependencies"], found),
        "result": _media(statement.content["subject"], found),
    }
    model = build["internalParameters"].get("generator")
    if isinstance(model, dict):
        named = f"{model.get('provider')}:{model.get('id')}"
        found.setdefault(f"model {named}", {"@id": f"#model-{named}", "@type": "SoftwareApplication", "name": named})
        action["instrument"] = {"@id": f"#model-{named}"}
    yield action


def _media(listed: Iterable[Mapping[str, JSON]], found: dict[str, dict[str, JSON]]) -> list[JSON]:
    named = []
    for one in listed:
        sha256 = one["digest"]["sha256"]
        media_type = str(one.get("mediaType") or "application/octet-stream")
        # Not files of the crate: what they are is said, and their bytes lie where the workspace keeps them.
        entity = found.setdefault(
            sha256,
            {
                "@id": f"{NAMESPACE}sha256/{sha256}",
                "@type": _TYPES.get(media_type.partition("/")[0], "CreativeWork"),
                "name": sha256,
                "sha256": sha256,
                "encodingFormat": media_type,
            },
        )
        notes = one.get("annotations", {})
        if notes.get("kind") == "asset":
            entity["name"] = notes["asset_id"]
        named.append({"@id": entity["@id"]})
    return [one for number, one in enumerate(named) if one not in named[:number]]
