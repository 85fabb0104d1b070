"""Nova Reel and Luma Ray under the contract of `VideoGenerator`, over HTTP."""

from __future__ import annotations

import pytest
from attrs import evolve

from vrag.backends.aws.luma_ray import LumaRayGenerator
from vrag.backends.aws.nova_reel import NovaReelGenerator
from vrag.testing import make_film
from vrag.testing.bedrock import Refusal
from vrag.testing.contracts import VideoGeneratorContract

pytest.importorskip("av", reason="the extra 'testing' is not installed")


def _one_frame(request, pictures, out, on_frame=None):
    """A film as small as can be: this contract looks at bytes, others look at the pictures."""
    small = evolve(request, width_px=64, height_px=36, fps=1.0, shots=(evolve(request.shots[0], duration_s=1.0),))
    return make_film(small, pictures, out)


class OverHttp(VideoGeneratorContract):
    kind = None
    region = "us-east-1"

    @pytest.fixture(autouse=True)
    def _worlds(self, worlds):
        self.worlds, self.made = worlds, {}

    def make(self, tmp_path):
        world = self.worlds(tmp_path, region=self.region, make_film=_one_frame)
        backend = self.kind(bedrock=world.bedrock, s3=world.s3, output_uri=world.output_uri, clock=world.clock)
        self.made[id(backend)] = world, backend
        return backend

    def sent(self, backend):
        return len(self.made[id(backend)][0].fake.faults.calls)

    def job_count(self, backend):
        return self.made[id(backend)][0].fake.jobs.count

    def finish(self, backend, handle):
        self.made[id(backend)][0].fake.jobs.finish(handle.id)

    def break_find(self, backend):
        error = Refusal("InternalServerException", "The page could not be read.")
        self.made[id(backend)][0].fake.faults.on("ListAsyncInvokes", error=error)


class TestNovaReel(OverHttp):
    kind = NovaReelGenerator


class TestLumaRay(OverHttp):
    kind = LumaRayGenerator
    region = "us-west-2"


del OverHttp
