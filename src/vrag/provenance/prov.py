"""Records as W3C PROV: pictures and videos are entities, steps are activities, models and signers are agents.

Source: "PROV-JSON", W3C member submission of 2013-04-24 (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vrag.provenance.statement import NAMESPACE, Statement
from vrag.values.canonical import JSON

__all__ = ["prov_json"]


def prov_json(records: Iterable[tuple[Statement, str]]) -> dict[str, JSON]:
    """One PROV-JSON document about many records.

    Args:
        records: Statements, each with the id of the key that signed it.
    """
    made = _Document()
    for statement, keyid in records:
        made.add(statement, keyid)
    return made.content


def _qualified(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


class _Document:
    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()
        self.content: dict[str, JSON] = {
            "prefix": {
                "vrag": NAMESPACE,
                "bytes": f"{NAMESPACE}sha256/",
                "record": f"{NAMESPACE}record/",
                "model": f"{NAMESPACE}model/",
                "key": f"{NAMESPACE}key/",
            },
            **{kind: {} for kind in ("entity", "activity", "agent", *_RELATIONS)},
        }

    def add(self, statement: Statement, keyid: str) -> None:
        build = statement.content["predicate"]["buildDefinition"]
        run = statement.content["predicate"]["runDetails"]
        activity = f"record:{statement.record_id}"
        self.content["activity"][activity] = {
            "prov:startTime": run["metadata"].get("startedOn", run["metadata"]["finishedOn"]),
            "prov:endTime": run["metadata"]["finishedOn"],
            "prov:type": _qualified(f"vrag:{statement.kind}"),
        }
        self.content["agent"].setdefault(f"key:{keyid}", {"prov:type": _qualified("vrag:signer")})
        self._relate("wasAssociatedWith", activity=activity, agent=f"key:{keyid}")
        model = build["internalParameters"].get("generator")
        if isinstance(model, dict):
            self._model(activity, model)
        if statement.kind == "receipt":
            self._receipt(activity, statement)
            return
        inputs = [self._entity(one) for one in build["resolvedDependencies"]]
        for entity, one in zip(inputs, build["resolvedDependencies"], strict=True):
            notes = one["annotations"]
            self._relate("used", activity=activity, entity=entity, **{"prov:role": notes["role"]})
            if "made_from" in notes:
                self._relate("wasDerivedFrom", generatedEntity=entity, usedEntity=f"bytes:{notes['made_from']}")
        for one in statement.content["subject"]:
            entity = self._entity(one)
            if statement.kind != "choose":  # choosing makes nothing new
                self._relate("wasGeneratedBy", entity=entity, activity=activity, **{"prov:role": one["name"]})
                for source in dict.fromkeys(inputs):
                    self._relate("wasDerivedFrom", generatedEntity=entity, usedEntity=source, activity=activity)

    def _model(self, activity: str, model: Mapping[str, JSON]) -> None:
        name = f"model:{model.get('provider')}/{model.get('id')}".replace(" ", "_")
        self.content["agent"].setdefault(
            name,
            {
                "prov:type": _qualified("prov:SoftwareAgent"),
                **{f"vrag:{key}": str(model[key]) for key in ("provider", "id", "region") if model.get(key)},
            },
        )
        self._relate("wasAssociatedWith", activity=activity, agent=name)

    def _receipt(self, activity: str, statement: Statement) -> None:
        about = statement.content["predicate"]["buildDefinition"]["externalParameters"]
        self.content["activity"][activity] |= {
            "vrag:receipt": str(about.get("receipt")),
            "vrag:subject": statement.content["subject"][0]["name"],
        }

    def _entity(self, one: Mapping[str, JSON]) -> str:
        name = f"bytes:{one['digest']['sha256']}"
        notes = one.get("annotations", {})
        kind = "asset" if notes.get("kind") == "asset" else "artefact"
        entity = self.content["entity"].setdefault(name, {"prov:type": _qualified(f"vrag:{kind}")})
        if kind == "asset":
            entity["prov:type"] = _qualified("vrag:asset")
            entity["vrag:asset_id"] = notes["asset_id"]
        if one.get("mediaType"):
            entity["vrag:mediaType"] = one["mediaType"]
        return name

    def _relate(self, kind: str, **ends: str) -> None:
        relation = {key if ":" in key else f"prov:{key}": value for key, value in ends.items()}
        known = (kind, *relation.values())
        if known not in self._seen:
            self._seen.add(known)
            self.content[kind][f"_:{kind}{len(self.content[kind])}"] = relation


_RELATIONS = ("used", "wasGeneratedBy", "wasDerivedFrom", "wasAssociatedWith")
