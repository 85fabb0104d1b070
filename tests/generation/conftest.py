"""A studio: a runner over a real journal, with fakes for everything that costs money."""

from io import BytesIO

import pytest
from attrs import evolve
from PIL import Image

from vrag.generation.plan import JOINER
from vrag.generation.runner import Runner, known_limit
from vrag.media.ref import MediaRef
from vrag.testing import FakeClock, FakeInpainter, FakeStorage, FakeVideoGenerator
from vrag.values.briefs import Brief, Conformed, PlannedEdit, PlannedVideo, Source
from vrag.values.canonical import digest_json
from vrag.values.jobs import StepState
from vrag.values.requests import EditRequest, Estimate, Shot, VideoRequest, purchase_id
from vrag.workspace import Workspace


class Studio:
    """A runner over a real journal and fake providers; `restart` is a new process after a crash."""

    def __init__(
        self, folder, *, limit=None, caps=None, edit_usd_micros=0, rerun_below_usd_micros=0, patience=None, **generator
    ):
        self.folder = folder
        self.clock = FakeClock()
        self.storage = FakeStorage()
        self.generator = FakeVideoGenerator(clock=self.clock, **generator)
        self.inpainter = FakeInpainter(usd_micros=edit_usd_micros)
        self.gate = lambda _step: None
        self.finish = lambda step: (step.raw, None)
        self.limit, self.caps = limit, caps
        self.rerun_below_usd_micros, self.patience = rerun_below_usd_micros, patience
        self.records, self.joined = [], []
        self.open()

    def open(self):
        self.workspace = Workspace(self.folder, clock=self.clock, caps=self.caps)
        self.journal = self.workspace.journal
        self.runner = self.second_runner()

    def second_runner(self):
        return Runner(
            journal=self.journal,
            storage=self.storage,
            generators={"film": self.generator},
            inpainters={"inpainter": self.inpainter},
            clock=self.clock,
            gate=lambda step: self.gate(step),  # noqa: PLW0108  # tests replace the gate later
            finish=lambda step: self.finish(step),  # noqa: PLW0108  # as above
            record=lambda step, _closed: self.record(step),
            assemble=self.join,
            limit_of=known_limit if self.limit is None else lambda _model: self.limit,
            rerun_below_usd_micros=self.rerun_below_usd_micros,
            patience=self.patience,
        )

    def record(self, step):
        self.records.append(step.id)
        return self.journal.advance(step.id, StepState.FINISHED, StepState.RECORDED, record_id=step.id)

    def join(self, _step, raws):
        self.joined.append(list(raws))
        return raws[0]

    def close(self):
        self.runner.close()
        self.workspace.close()

    def restart(self):
        self.close()
        self.generator = self.generator.reconnect()
        self.open()

    def planned(self, prompt="a lake", knowledge_base=None, **changes):
        request = VideoRequest(shots=(Shot(prompt=prompt, duration_s=0.5),), width_px=64, height_px=36, fps=8.0)
        model = self.generator.model
        planned = PlannedVideo(
            step_id=purchase_id(request, model, scope=self.workspace.scope),
            brief=Brief(object_prompt=prompt, text_only=True, knowledge_base=knowledge_base),
            generator="film",
            model=model,
            request=request,
            sources=(),
            estimate=self.generator.estimate(request),
        )
        return evolve(planned, **changes)

    def plan(self, prompt="a lake", **more):
        return self.journal.plan(self.planned(prompt), **more).id

    def plan_joined(self, *prompts):
        parts = tuple(self.planned(prompt) for prompt in prompts)
        shots = tuple(part.request.shots[0] for part in parts)
        planned = evolve(
            parts[0],
            step_id=digest_json([part.step_id for part in parts]),
            model=JOINER,
            request=evolve(parts[0].request, shots=shots),
            estimate=Estimate(usd_micros=100_000, video_s=1.0),
            parts=parts,
        )
        return self.journal.plan(planned).id

    def planned_edit(self, count=1):
        out = BytesIO()
        Image.new("RGB", (64, 36), "red").save(out, "PNG")
        mask = BytesIO()
        Image.new("L", (64, 36), 255).save(mask, "PNG")
        stored, drawn = (self.storage.put(BytesIO(one.getvalue()), "image/png") for one in (out, mask))
        picture, mask = (evolve(one, width_px=64, height_px=36) for one in (stored, drawn))
        request = EditRequest(operation="erase", image=picture, mask=mask, count=count)
        source = Source(
            asset_id="brand/1",
            knowledge_base="brand",
            role="start_frame",
            original=MediaRef(sha256="1" * 64, media_type="image/png", size_bytes=1),
            conformed=Conformed(media=picture, crop_px=(0, 0, 64, 36), mode="contain"),
            review_sequence=0,
        )
        return PlannedEdit(
            step_id=purchase_id(request, self.inpainter.model, scope=self.workspace.scope),
            brief=Brief(object_prompt="red"),
            generator="inpainter",
            model=self.inpainter.model,
            request=request,
            source=source,
            estimate=self.inpainter.estimate(request),
        )

    def plan_edit(self, **options):
        return self.journal.plan(self.planned_edit(**options)).id


@pytest.fixture
def studio(tmp_path):
    made = []

    def make(**options):
        made.append(Studio(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
