"""Calls of the seams as OpenTelemetry spans and metrics; the extra `otel`.

Names follow the OpenTelemetry semantic conventions where they have one (`error.type`, durations in seconds; "General
attributes" and "How to write semantic conventions", 2026-11-20); the others begin with `vrag.`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrag.clock import Clock, SystemClock
from vrag.errors import MissingExtraError
from vrag.workspace.hooks import SeamCall

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetryHook"]


class OpenTelemetryHook:
    """A hook: one span a call, under the span that is current in its thread; and counters.

    Metrics: `vrag.seam.duration` (s), `vrag.seam.size` (By) and `vrag.cost` (USD, by the estimates of what was answered).
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Use these providers, or the global ones.

        Raises:
            MissingExtraError: `opentelemetry-api` is not installed.
        """
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise MissingExtraError("Telemetry needs the extra 'otel'.", hint="pip install 'vrag[otel]'") from error
        self._clock = clock or SystemClock()
        self._trace = trace
        self._tracer = trace.get_tracer("vrag", tracer_provider=tracer_provider)
        meter = metrics.get_meter("vrag", meter_provider=meter_provider)
        self._duration = meter.create_histogram("vrag.seam.duration", unit="s", description="How long a call took.")
        self._size = meter.create_counter("vrag.seam.size", unit="By", description="What calls moved.")
        self._cost = meter.create_counter("vrag.cost", unit="{USD}", description="What calls cost by their estimates.")

    def __call__(self, call: SeamCall) -> None:
        """Keep what ended; a start is known from its end."""
        if call.phase == "start" or call.duration_s is None:
            return
        kind: dict[str, str | int] = {"vrag.seam": call.seam, "vrag.operation": call.operation}
        if call.model:
            kind["vrag.model"] = call.model
        if call.error is not None:
            kind["error.type"] = call.error
        kind |= {f"vrag.tag.{name}": value for name, value in call.tags.items()}
        # A run is a tag of spans only: as a dimension of metrics it would never end.
        dimensions = {name: value for name, value in kind.items() if name != "vrag.tag.run"}
        about = {**kind, "vrag.retry": call.retry}
        if call.job_id is not None:
            about["vrag.job_id"] = call.job_id
        if call.size_bytes is not None:
            about["vrag.size_bytes"] = call.size_bytes
            self._size.add(call.size_bytes, dimensions)
        if call.usd_micros is not None:
            about["vrag.usd_micros"] = call.usd_micros
            if call.error is None:
                self._cost.add(call.usd_micros / 1e6, dimensions)
        self._duration.record(call.duration_s, dimensions)
        ended_ns = round(self._clock.now().timestamp() * 1e9)
        span = self._tracer.start_span(
            f"{call.seam}.{call.operation}",
            kind=self._trace.SpanKind.CLIENT,
            attributes=about,
            start_time=ended_ns - round(call.duration_s * 1e9),
        )
        if call.error is not None:
            span.set_status(self._trace.StatusCode.ERROR, call.error)
        span.end(end_time=ended_ns)
