"""The camera-move renderer under the contract of `VideoRenderer`, and the render queue under that of `VideoGenerator`."""

from __future__ import annotations

import threading

import pytest

from vrag.testing import FakeVideoRenderer
from vrag.testing.contracts import VideoGeneratorContract, VideoRendererContract

pytest.importorskip("av", reason="the extra 'local' is not installed")
pytest.importorskip("cv2", reason="the extra 'local' is not installed")


class TestCameraMoveRenderer(VideoRendererContract):
    def make(self, tmp_path):
        from vrag.backends.local.camera_moves import CameraMoveRenderer

        return CameraMoveRenderer()


class GatedRenderer(FakeVideoRenderer):
    """Renders only when the gate is open, so that a job is seen before it ends."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def render(self, request, media, out, progress, stopped):
        while not self.gate.wait(0.01):
            if stopped():
                self.gate.set()
        return super().render(request, media, out, progress, stopped)


class TestRenderQueue(VideoGeneratorContract):
    def make(self, tmp_path):
        from vrag.generation.render_queue import RenderQueue

        renderer = GatedRenderer()
        queue = RenderQueue(renderer, tmp_path / "renders")
        self.renderers = {**getattr(self, "renderers", {}), id(queue): renderer}
        return queue

    def sent(self, backend):
        return 0

    def job_count(self, backend):
        return len(list(backend._folder.glob("*.json")))

    def finish(self, backend, handle):
        gate = self.renderers[id(backend)].gate
        for _ in range(2000):
            gate.set()  # another thread may have shut it again
            status = backend.status([handle]).get(handle)
            if status is not None and status.state in {"succeeded", "failed", "cancelled", "lost"}:
                gate.clear()
                return
            threading.Event().wait(0.01)
        raise AssertionError(f"The job has not ended: {status}.")
