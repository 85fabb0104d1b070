"""What programs are told of every call, and that it harms nobody."""

import logging
from io import BytesIO

import pytest

from vrag.errors import BackendError, NotFoundError
from vrag.generation.runner import Runner
from vrag.interfaces import Embedder, Storage, VectorStore, VideoGenerator
from vrag.testing import FakeClock, FakeEmbedder, FakeStorage, FakeVectorStore, FakeVideoGenerator
from vrag.values.briefs import Brief, PlannedVideo
from vrag.values.jobs import StepState
from vrag.values.requests import Shot, VideoRequest, purchase_id
from vrag.values.vectors import Item
from vrag.workspace import Workspace
from vrag.workspace.hooks import about, observed


def run_a_job(tmp_path, hook, *, faults=()):
    clock = FakeClock()
    workspace = Workspace(tmp_path / "w", clock=clock)
    generator = FakeVideoGenerator(clock=clock)
    for name, error in faults:
        generator.faults.on(name, error=error)
    request = VideoRequest(shots=(Shot(prompt="a lake", duration_s=0.5),), width_px=64, height_px=36, fps=8.0)
    planned = PlannedVideo(
        step_id=purchase_id(request, generator.model, scope="s"),
        brief=Brief(object_prompt="a lake", text_only=True, knowledge_base="brand"),
        generator="film",
        model=generator.model,
        request=request,
        sources=(),
        estimate=generator.estimate(request),
    )
    journal = workspace.journal
    journal.plan(planned, run_id="r1")
    runner = Runner(
        journal=journal,
        storage=FakeStorage(),
        generators={"film": generator},
        clock=clock,
        gate=lambda _step: None,
        record=lambda step, _closed: journal.advance(
            step.id, StepState.FINISHED, StepState.RECORDED, record_id=step.id
        ),
        hook=hook,
    )
    step = runner.drive(planned.step_id)
    runner.close()
    workspace.close()
    return step


def test_each_call_of_a_job_is_told_before_and_after_with_its_price_and_its_job(tmp_path):
    told = []
    step = run_a_job(tmp_path, told.append, faults=[("start", BackendError("sorry", retryable=True))])
    starts = [call for call in told if call.operation == "start"]
    assert [(call.phase, call.error, call.retry) for call in starts] == [
        ("start", None, 0),
        ("end", "backend", 0),
        ("start", None, 1),
        ("end", None, 1),
    ]
    assert {call.job_id for call in starts} == {step.id}
    assert starts[-1].usd_micros == 50_000
    assert starts[-1].tags == {"step": "generate", "knowledge_base": "brand", "run": "r1"}
    assert starts[-1].duration_s is not None
    (put,) = [call for call in told if call.operation == "put" and call.phase == "end"]
    assert put.size_bytes == step.raw.size_bytes
    assert put.usd_micros is None
    assert {call.seam for call in told} == {"generator", "storage"}


def test_a_hook_that_fails_is_logged_once_and_harms_no_job(tmp_path, caplog):
    def broken(_call):
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, logger="vrag"):
        assert run_a_job(tmp_path, broken).state is StepState.DELIVERED
    assert 1 <= len([one for one in caplog.records if one.name == "vrag.hooks"]) <= 2  # one for each object


@pytest.mark.parametrize(
    ("made", "seam", "protocol"),
    [
        (FakeEmbedder, "embedder", Embedder),
        (FakeStorage, "storage", Storage),
        (FakeVectorStore, "vector_store", VectorStore),
        (FakeVideoGenerator, "generator", VideoGenerator),
    ],
)
def test_an_observed_object_is_still_one_of_its_seam(made, seam, protocol):
    told = []
    seen = observed(made(), told.append, seam=seam)
    assert isinstance(seen, protocol)
    assert seen.calls == ()
    assert told == []


def test_errors_pass_through_and_are_named():
    told = []
    storage = observed(FakeStorage(), told.append, seam="storage")
    with pytest.raises(NotFoundError), about(job_id="j"):
        storage.open("nothing")
    assert (told[-1].error, told[-1].job_id) == ("not_found", "j")
    storage.put_named("a", BytesIO(b"b"))
    assert told[-1].error is None


def test_calls_become_spans_and_metrics(tmp_path):
    pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from vrag.backends.otel import OpenTelemetryHook

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    hook = OpenTelemetryHook(tracer_provider=tracers, meter_provider=meters)
    embedder = observed(FakeEmbedder(), hook, seam="embedder")
    embedder.embed([Item(kind="text", text="a lake")], "index")
    step = run_a_job(tmp_path, hook, faults=[("start", BackendError("sorry", retryable=True))])
    named = {}
    for span in spans.get_finished_spans():
        named.setdefault(span.name, []).append(span)
    assert {"embedder.embed", "generator.start", "generator.status", "generator.fetch", "storage.put"} <= set(named)
    failed, started = named["generator.start"]
    assert failed.status.status_code.name == "ERROR"
    assert failed.attributes["error.type"] == "backend"
    assert started.attributes["vrag.job_id"] == step.id
    assert started.attributes["vrag.usd_micros"] == 50_000
    assert started.attributes["vrag.tag.knowledge_base"] == "brand"
    assert started.end_time >= started.start_time
    metrics = {
        metric.name: metric
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    (cost,) = metrics["vrag.cost"].data.data_points
    assert cost.value == pytest.approx(0.05)
    assert "vrag.tag.run" not in cost.attributes
    assert sum(point.count for point in metrics["vrag.seam.duration"].data.data_points) == sum(map(len, named.values()))
    tracers.shutdown()
    meters.shutdown()
