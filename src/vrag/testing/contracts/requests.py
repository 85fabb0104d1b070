"""Requests that capabilities do not allow, for the clauses about refusals of both video seams."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from vrag.interfaces import VideoGenerator, VideoRenderer
from vrag.testing.media import SampleMedia, sample_request
from vrag.values.requests import Input, Problem, Shot, VideoCapabilities, VideoRequest

__all__ = ["assert_refuses_what_it_cannot", "beyond"]


def beyond(can: VideoCapabilities, media: SampleMedia) -> Iterator[tuple[str, VideoRequest]]:
    """Requests, each past `can` in one way, with the name of the field that asks too much."""
    good = sample_request(can, media)
    shot = good.shots[0]

    def with_shot(changed: Shot) -> VideoRequest:
        return evolve(good, shots=(changed,))

    yield "shots", evolve(good, shots=(shot,) * (can.max_shots + 1))
    too_long_s = 2 * max(can.durations_s or (can.max_duration_s,)) + 0.123
    yield "duration_s", with_shot(evolve(shot, duration_s=too_long_s))
    yield "codec", evolve(good, codec="cinepak")
    yield "fps", evolve(good, fps=121.5)
    too_wide_px = 2 + (max(width for width, _ in can.sizes_px) if can.sizes_px else can.max_side_px // 2 * 2)
    yield "px", evolve(good, width_px=too_wide_px)
    scent = Input(role="scent", media=media.picture())
    yield "inputs", with_shot(evolve(shot, inputs=(*shot.inputs, scent)))
    if can.required_roles:
        yield "inputs", with_shot(evolve(shot, inputs=()))
    if can.max_prompt_chars is not None and can.reads_prompt:
        yield "prompt", with_shot(evolve(shot, prompt="lake " * (can.max_prompt_chars // 5 + 1)))


def assert_refuses_what_it_cannot(backend: VideoGenerator | VideoRenderer, media: SampleMedia) -> None:
    """`validate` names the field of everything that is past the capabilities."""
    for field, request in beyond(backend.capabilities, media):
        problems = backend.validate(request)
        assert all(isinstance(problem, Problem) and problem.message for problem in problems)
        refused = [problem.field for problem in problems if problem.kind == "refused"]
        assert any(field in name for name in refused), f"A request past its {field} is not refused, only: {refused}"
