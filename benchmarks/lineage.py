"""Lineage in a ledger of 100 000 records: both ways, through edits and joined films, beside a bare lookup in the index.

    python benchmarks/lineage.py            # under two minutes
    python benchmarks/lineage.py --small    # 10 000 records, seconds

Records are real statements with their words, appended by the ledger itself. Absolute times are those of the machine at
hand; the ratio to one lookup in SQLite, in the same file, is what to read. Goal: under 10 ms a query at 100 000.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from vrag.clock import SystemClock
from vrag.media.ref import MediaRef
from vrag.provenance.drafting import Run, artefact, draft, subject
from vrag.provenance.lineage import family, sources_of, used_in
from vrag.provenance.wording import Commitments
from vrag.values.canonical import canonical_json
from vrag.workspace.db import Database
from vrag.workspace.ledger import Draft, Ledger, LineageInput, Text

GOAL_MS = 10.0
USES = 40
"""Videos of one picture, in the middle of the crowd."""


def digest(*parts):
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


class Maker:
    """Statements of one kind, made whole once; then digests are put in their places."""

    def __init__(self, kind, subjects, inputs, *, prompt=True):
        commit = Commitments(SystemClock())
        made = {
            "generator": {
                "name": "camera",
                "provider": "local",
                "id": "camera-moves/1",
                "region": None,
                "account": None,
            },
            "candidates": [{"asset_id": f"brand/{digest('c', n)}", "cosine": 0.5, "chosen": n == 0} for n in range(15)],
            "request": {"shots": [{"prompt": commit("prompt", "red shoes, camera pans down"), "inputs": []}]}
            if prompt
            else {},
            "notes": [commit("note", "'pans down' is a tilt down")],
        }
        self.blank = draft(
            kind=kind,
            record_id=digest("record"),
            subjects=[subject(name, self.media(name)) for name in subjects],
            asked={name: commit(name, "words") for name in ("object_prompt", "action_prompt", "template")},
            made=made,
            inputs=[self.input(name, commit) for name in inputs],
            run=Run(
                invocation="s",
                started_at="2026-11-20T12:00:00Z",
                finished_at="2026-11-20T12:00:09Z",
                library_version="1",
            ),
            commit=commit,
        )

    @staticmethod
    def media(name):
        return MediaRef(sha256=digest(name), media_type="video/mp4", size_bytes=1, width_px=1280, height_px=720)

    def input(self, name, commit):
        media = self.media(name)
        if name == "asset":
            one = artefact(
                f"brand/{media.sha256}",
                media,
                role="start_frame",
                asset_id=f"brand/{media.sha256}",
                knowledge_base="brand",
            )
            one["annotations"] |= {"kind": "asset", "caption": commit("caption", "Red shoes on a table")}
            return one
        if name.startswith("part"):
            return artefact(name, media, role="part")
        origin = {"fitted": "asset", "edited": "asset", "fitted edit": "edited"}[name]
        how = {"operation": "replace"} if name == "edited" else {"mode": "cover"}
        return artefact(name, media, role="start_frame", made_from=digest(origin), **how)

    def make(self, record_id, **names):
        """The statement with these digests, and its words under keyed digests of their own."""
        swaps = {digest("record"): record_id} | {digest(name.replace("_", " ")): value for name, value in names.items()}
        texts = []
        for text in self.blank.texts:
            keyed = os.urandom(32).hex()
            swaps[text.keyed_digest] = keyed
            texts.append(Text(kind=text.kind, value=text.value, key=text.key, keyed_digest=keyed))
        payload = self.blank.payload.decode()
        for old, new in swaps.items():
            payload = payload.replace(old, new)
        lineage = self.blank.lineage
        return Draft(
            record_id=record_id,
            payload=payload.encode(),
            lineage=type(lineage)(
                subjects={name: swaps.get(one, one) for name, one in lineage.subjects.items()},
                inputs=tuple(
                    LineageInput(
                        sha256=swaps[one.sha256],
                        role=one.role,
                        asset_id=one.asset_id and f"brand/{swaps[one.sha256]}",
                        knowledge_base=one.knowledge_base,
                    )
                    for one in lineage.inputs
                ),
            ),
            texts=tuple(texts),
        )


def drafts(count, assets):
    plain = Maker("generate", ("delivered", "raw"), ("asset", "fitted"))
    edit = Maker("edit", ("variant 1",), ("asset", "fitted"), prompt=False)
    edited = Maker("generate", ("delivered", "raw"), ("asset", "edited", "fitted edit"))
    part = Maker("generate", ("raw",), ("asset", "fitted"))
    film = Maker("assemble", ("delivered", "raw"), ("part 1", "part 2", "asset", "fitted"), prompt=False)
    rng = np.random.default_rng(1)
    for n in range(0, count, 20):
        picture = [digest("asset", rng.integers(assets)) for _ in range(20)]
        given = {k: {"asset": picture[k], "fitted": digest("fit", picture[k])} for k in range(20)}
        yield edit.make(digest("r", n), variant_1=digest("edited", n), **given[0])
        for k in (1, 2):
            words = {"asset": picture[0], "edited": digest("edited", n), "fitted_edit": digest("fit edit", n)}
            yield edited.make(digest("r", n + k), delivered=digest("d", n + k), raw=digest("w", n + k), **words)
        for k in (3, 4):
            yield part.make(digest("r", n + k), raw=digest("w", n + k), **given[k])
        joined = {"part_1": digest("w", n + 3), "part_2": digest("w", n + 4), **given[3]}
        yield film.make(digest("r", n + 5), delivered=digest("d", n + 5), raw=digest("w", n + 5), **joined)
        for k in range(6, 20):
            yield plain.make(digest("r", n + k), delivered=digest("d", n + k), raw=digest("w", n + k), **given[k])


def median_ms(work, keys):
    """Of the processor and of the clock on the wall; on a busy machine the second one measures the others."""
    processor, wall = [], []
    for key in keys:
        start = time.thread_time(), time.perf_counter()
        work(key)
        processor.append((time.thread_time() - start[0]) * 1000)
        wall.append((time.perf_counter() - start[1]) * 1000)
    return statistics.median(processor), statistics.median(wall)


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--small", action="store_true", help="10 000 records")
    count = 10_000 if options.parse_args().small else 100_000
    assets = count // USES
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "vrag.db")
        ledger = Ledger(database)
        start, waiting = time.perf_counter(), drafts(count, assets)
        for _ in range(0, count, 5000):
            with database.transaction() as connection:
                for one in (next(waiting) for _ in range(5000)):
                    envelope = {"payload": base64.b64encode(one.payload).decode(), "payloadType": "t", "signatures": []}
                    ledger.append(connection, one, canonical_json(envelope), public_key=b"key")
        size_mb = database.path.stat().st_size / 1e6
        print(f"{ledger.size()} records of {assets} pictures in {time.perf_counter() - start:.0f} s, {size_mb:.0f} MB")

        rng = np.random.default_rng(2)
        base = [20 * int(rng.integers(count // 20)) for _ in range(100)]
        pictures = [f"brand/{digest('asset', rng.integers(assets))}" for _ in range(100)]
        bare = sqlite3.connect(database.path)
        sql = "select seq from lineage where asset_id=?"
        floor, _ = median_ms(lambda key: bare.execute(sql, (key,)).fetchall(), pictures)
        print(f"{'':46} processor        wall     to the lookup")
        print(f"{'bare index lookup: uses of a picture':46} {floor:6.3f} ms")
        rows = {
            "sources_of a video": (sources_of, [digest("r", n + 7) for n in base]),
            "sources_of a video of an edited picture": (sources_of, [digest("d", n + 1) for n in base]),
            "sources_of a joined film": (sources_of, [digest("d", n + 5) for n in base]),
            "used_in an edited picture": (used_in, [digest("edited", n) for n in base]),
            "where-used: the records of a picture": (lambda _, key: ledger.used_in(key), pictures),
            f"used_in a picture, about {USES} uses": (used_in, pictures),
            "family of a video of an edited picture": (family, [digest("r", n + 2) for n in base]),
        }
        for what, (query, keys) in rows.items():
            middle, wall = median_ms(lambda key, query=query: query(ledger, key), keys)
            verdict = "" if middle < GOAL_MS else "   OVER the goal"
            print(f"{what:46} {middle:6.3f} ms {wall:8.3f} ms {middle / floor:9.1f} x{verdict}")
        bare.close()
        database.close()


if __name__ == "__main__":
    main()
