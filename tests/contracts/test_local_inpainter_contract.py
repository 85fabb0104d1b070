"""The embedded inpainter under the contract of `Inpainter`."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from vrag.testing.contracts import InpainterContract

pytest.importorskip("cv2", reason="the extra 'local' is not installed")


class TestOpenCVInpainter(InpainterContract):
    waived = MappingProxyType({"test_edit__moderation_is_typed": "an algorithm in this process: nothing is moderated"})

    def make(self, tmp_path):
        from vrag.backends.local.inpainter import OpenCVInpainter

        return OpenCVInpainter()

    def sent(self, backend):
        return 0
