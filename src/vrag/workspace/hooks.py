"""What programs may listen to: one call of a hook when a seam is called, and one when it answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, cast

from attrs import evolve, field, frozen

from vrag.clock import Clock, SystemClock
from vrag.errors import VRAGError

__all__ = ["SEAMS", "Hook", "SeamCall", "about", "observed"]

ObjectT = TypeVar("ObjectT")
_log = logging.getLogger("vrag.hooks")

SEAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "generator": ("start", "status", "find", "fetch", "cancel"),
    "inpainter": ("edit",),
    "storage": ("put", "put_named", "open", "exists", "delete"),
    "embedder": ("embed",),
    "vector_store": ("upsert", "delete", "search", "get", "count"),
    "captioner": ("caption",),
    "moderator": ("check",),
    "signer": ("sign",),
}
"""The calls of each seam that leave the process, or may."""
_BUYS: Final = frozenset({"start", "edit", "embed", "caption", "check"})


@frozen(kw_only=True)
class SeamCall:
    """One call of a seam, before it is made or after it was answered."""

    phase: Literal["start", "end"]
    seam: str
    operation: str
    model: str = ""
    duration_s: float | None = None
    """At the end; monotonic."""
    size_bytes: int | None = None
    """At the end of `put`, `edit` and such; None where nobody knows."""
    usd_micros: int | None = None
    """What the call costs by its estimate, where it buys something."""
    retry: int = 0
    """How often it was tried before."""
    error: str | None = None
    """The code of the error it ended with; `error` for one that is not of this library."""
    job_id: str | None = None
    tags: Mapping[str, str] = field(factory=dict)
    """Whose cost it is, such as `knowledge_base` and `run`."""


Hook = Callable[[SeamCall], None]
"""Called in the thread of the call. What it raises is logged once and harms nobody."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_around: ContextVar[Mapping[str, Any]] = ContextVar("vrag_about", default=_NOTHING)  # it cannot change


@contextmanager
def about(**known: Any) -> Iterator[None]:
    """What is known of the calls in this block: `job_id`, `retry`, `usd_micros`, `tags`."""
    token = _around.set({**_around.get(), **known})
    try:
        yield
    finally:
        _around.reset(token)


def observed(target: ObjectT, hook: Hook, *, seam: str, clock: Clock | None = None) -> ObjectT:
    """The same object, with `hook` called around each call of its seam.

    Args:
        target: A backend.
        hook: What is told.
        seam: A key of `SEAMS`.
        clock: Measures how long a call takes.
    """
    kind: Any = type(target)
    made = _class_of(kind, seam)
    return cast("ObjectT", made(target, _Safe(hook), clock or SystemClock()))


class _Safe:
    """A hook that cannot harm."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._told = False

    def __call__(self, call: SeamCall) -> None:
        try:
            self._hook(call)
        except Exception:  # noqa: BLE001  # whatever it is, it is the hook's
            if not self._told:
                self._told = True
                _log.exception("An event hook failed; it is not told again.")


@cache
def _class_of(kind: type, seam: str) -> type:
    """A class whose objects pass everything on: protocols are checked by the members of a class."""

    def construct(self: Any, target: object, hook: _Safe, clock: Clock) -> None:
        self._target, self._hook, self._clock = target, hook, clock

    members: dict[str, Any] = {"__init__": construct, "__slots__": ("_clock", "_hook", "_target")}
    for name in dir(kind):
        if name.startswith("_"):
            continue
        called = callable(getattr(kind, name))
        members[name] = _method(name, seam) if called else _passed(name)
    # What only the object has: attributes that are set in its constructor.
    members["__getattr__"] = lambda self, name: getattr(self._target, name)
    return type(f"Observed{kind.__name__}", (), members)


def _passed(name: str) -> property:
    return property(lambda self: getattr(self._target, name))


def _method(name: str, seam: str) -> Callable[..., Any]:
    def plain(self: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(self._target, name)(*arguments, **options)

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        known = _around.get()
        call = SeamCall(
            phase="start",
            seam=seam,
            operation=name,
            model=str(getattr(self._target, "model", "")),
            usd_micros=known.get("usd_micros") if name in _BUYS else None,
            retry=known.get("retry", 0),
            job_id=known.get("job_id"),
            tags=known.get("tags", {}),
        )
        self._hook(call)
        begun_s, result, error = self._clock.monotonic_s(), None, None
        try:
            result = getattr(self._target, name)(*arguments, **options)
        except BaseException as raised:
            error = raised.code if isinstance(raised, VRAGError) else "error"
            raise
        else:
            return result
        finally:
            duration_s = self._clock.monotonic_s() - begun_s
            self._hook(evolve(call, phase="end", duration_s=duration_s, size_bytes=_size_of(result), error=error))

    made = watched if name in SEAMS[seam] else plain
    made.__name__ = name
    return made


def _size_of(result: Any) -> int | None:
    size = getattr(result, "size_bytes", None)
    if isinstance(size, int):
        return size
    images = getattr(result, "images", None)
    return sum(map(len, images)) if isinstance(images, tuple) else None
