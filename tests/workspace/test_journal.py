"""The journal and its budget: what is written when, what an older file becomes, and what may never happen."""

import gzip
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vrag.errors import BackendError, BudgetError, FormatVersionError, NotFoundError, UsageError
from vrag.testing import FakeClock
from vrag.values.briefs import Brief, Plan, PlannedVideo
from vrag.values.jobs import Handle, JobStatus, StepState
from vrag.values.policy import Caps
from vrag.values.requests import Estimate, ModelRef, Shot, VideoRequest, purchase_id
from vrag.workspace import Workspace
from vrag.workspace.journal import model_key
from vrag.workspace.leases import Owner

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = ModelRef(provider="fake", id="film@1", region="us-east-1", account="studio")


def planned(prompt="a lake", *, usd_micros=50_000, video_s=1.0, knowledge_base="brand"):
    request = VideoRequest(shots=(Shot(prompt=prompt, duration_s=1.0),), width_px=64, height_px=36, fps=8.0)
    return PlannedVideo(
        step_id=purchase_id(request, MODEL, scope="s"),
        brief=Brief(object_prompt=prompt, text_only=True, knowledge_base=knowledge_base),
        generator="film",
        model=MODEL,
        request=request,
        sources=(),
        estimate=Estimate(usd_micros=usd_micros, video_s=video_s),
    )


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path / "w", clock=FakeClock())
    yield made
    made.close()


def buy(workspace, step_id, **options):
    return workspace.journal.reserve_and_submit(step_id, lambda: None, **options)


# -- older files


@pytest.mark.parametrize("stored", sorted(path.name for path in FIXTURES.glob("workspace-*.db.gz")))
def test_the_workspace_of_an_older_release_is_brought_up_to_date_and_read(tmp_path, stored):
    (tmp_path / "vrag.db").write_bytes(gzip.decompress((FIXTURES / stored).read_bytes()))
    workspace = Workspace(tmp_path, clock=FakeClock())
    delivered, waiting = workspace.journal.steps()
    assert (delivered.state, waiting.state) == (StepState.DELIVERED, StepState.PLANNED)
    assert delivered.video.brief.object_prompt == "lake"
    assert delivered.knowledge_base == waiting.knowledge_base == "brand"
    assert workspace.journal.heads([waiting.id])[waiting.id].model == model_key(waiting.video.model)
    assert workspace.ledger.get(delivered.record_id).statement["subject"]
    assert workspace.budget.spent().video_s == 1.0
    assert buy(workspace, waiting.id) == "reserved"
    workspace.close()
    again = Workspace(tmp_path)
    assert again.journal.counts() == {StepState.DELIVERED: 1, StepState.SUBMITTING: 1}
    again.close()


def test_the_workspace_of_a_newer_release_is_refused(tmp_path, workspace):
    workspace.close()
    connection = sqlite3.connect(workspace.folder / "vrag.db")
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(FormatVersionError, match="99"):
        Workspace(workspace.folder)


# -- looking


def test_steps_come_in_pages_and_by_run(workspace):
    journal = workspace.journal
    for number in range(5):
        workspace.clock.advance(1)
        journal.plan(planned(str(number)), run_id="first" if number < 3 else "second")
    everything = journal.ids()
    page = journal.steps(limit=2)
    assert [one.id for one in page] == everything[:2]
    assert [one.id for one in journal.steps(limit=2, after=page[-1].id)] == everything[2:4]
    assert journal.ids(run_id="second") == everything[3:]
    assert journal.ids({StepState.DELIVERED}) == []
    assert journal.counts(run_id="first") == {StepState.PLANNED: 3}
    with pytest.raises(NotFoundError):
        journal.get("nothing")


def test_the_same_purchase_is_the_same_step_and_the_last_run_pays_for_what_is_not_bought(workspace):
    journal = workspace.journal
    step = journal.plan(planned(), run_id="first")
    assert journal.plan(planned(), run_id="second").run_id == "second"
    buy(workspace, step.id)
    assert journal.plan(planned(), run_id="third").run_id == "second"
    assert workspace.budget.spent(run_id="second").usd_micros == 50_000


def test_events_of_every_process_are_listed_in_order(workspace):
    step = workspace.journal.plan(planned())
    buy(workspace, step.id)
    told = list(workspace.journal.events(step.id))
    assert [event.state for _number, event in told] == [StepState.PLANNED, StepState.SUBMITTING]
    assert list(workspace.journal.events(after=told[-1][0])) == []


def test_words_are_erased_from_parts_and_from_edits_too(workspace):
    parts = (planned("secret one"), planned("secret two"))
    whole = evolve(planned("secret whole"), parts=parts, step_id="9" * 64)
    workspace.journal.plan(whole)
    workspace.journal.erase_words(whole.step_id)
    assert "secret" not in workspace.journal.get(whole.step_id).planned_json


# -- leases


def test_a_step_is_leased_to_one_living_runner(workspace):
    journal, clock = workspace.journal, workspace.clock
    step_id = journal.plan(planned()).id
    first, second = Owner(journal.locks, clock), Owner(journal.locks, clock)
    assert first.id != second.id
    assert buy(workspace, step_id, owner=first) == "reserved"
    assert not journal.lease(step_id, second)
    assert journal.lease(step_id, first)
    first.release()
    first.release()
    assert journal.lease(step_id, second)
    journal.release([step_id], second)
    assert journal.get(step_id).owner is None
    second.release()


def test_lock_files_of_the_dead_are_swept(workspace):
    locks = workspace.journal.locks
    locks.mkdir()
    for name in ("0" * 24, "a" * 32):  # a runner that was killed, and a step of an older release
        (locks / f"{name}.lock").touch()
    alive = Owner(locks, workspace.clock)
    newcomer = Owner(locks, workspace.clock)
    assert sorted(path.stem for path in locks.glob("*.lock")) == sorted([alive.id, newcomer.id])
    assert newcomer.is_alive(alive.id)
    assert not newcomer.is_alive("0" * 24)
    alive.release()
    newcomer.release()


FORK = """
import os, sys
from pathlib import Path
from vrag.values.jobs import StepState
from vrag.workspace import Workspace
from vrag.workspace.leases import Owner

workspace = Workspace(Path(sys.argv[1]))
owner = Owner(workspace.journal.locks, workspace.clock)
child = os.fork()
if child == 0:
    ok = workspace.journal.get(sys.argv[2]).state is StepState.PLANNED
    owner.release()
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert workspace.journal.reserve_and_submit(sys.argv[2], lambda: None, owner=owner) == "reserved"
assert (workspace.journal.locks / f"{owner.id}.lock").exists()
owner.release()
workspace.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_after_a_fork_neither_uses_nor_closes_the_connection_of_its_parent(workspace):
    step_id = workspace.journal.plan(planned()).id
    command = [sys.executable, "-c", FORK, str(workspace.folder), step_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert workspace.journal.get(step_id).state is StepState.SUBMITTING


def test_a_quota_counts_the_jobs_of_living_runners(workspace):
    journal, clock = workspace.journal, workspace.clock
    one, two, three = (journal.plan(planned(str(number))).id for number in range(3))
    first, second = Owner(journal.locks, clock), Owner(journal.locks, clock)
    assert buy(workspace, one, owner=first, in_flight=1) == "reserved"
    assert buy(workspace, two, owner=second, in_flight=1) == "full"
    assert buy(workspace, two, owner=second, in_flight=2) == "reserved"
    first.release()
    assert buy(workspace, three, owner=second, in_flight=2) == "reserved"
    second.release()


# -- money


def test_a_run_that_could_pass_a_cap_is_refused_before_its_first_purchase(workspace):
    plan = Plan(videos=tuple(planned(str(number)) for number in range(4)), rows=(0, 1, 2, 3))
    with pytest.raises(BudgetError, match=r"0\.2 USD.*0 of the 0\.15 USD") as caught:
        workspace.budget.reserve_run("r", plan, usd_micros=150_000)
    assert caught.value.cap == "run_usd_micros"
    workspace.budget.reserve_run("r", plan, usd_micros=200_000)
    workspace.journal.plan_all(plan.videos, run_id="r")
    for video in plan.videos[:2]:
        buy(workspace, video.step_id)
    workspace.budget.reserve_run("r", plan)  # going on with it: what is bought is not asked for twice
    with pytest.raises(BudgetError):
        workspace.budget.reserve_run("r", [*plan.videos, planned("more")])


def test_each_cap_counts_what_it_is_about(tmp_path):
    clock = FakeClock()
    workspace = Workspace(tmp_path, clock=clock)
    journal, budget = workspace.journal, workspace.budget
    brand, other = planned("brand"), planned("other", knowledge_base="other")
    budget.caps = Caps(knowledge_base_usd_micros=50_000)
    for one in (brand, other):
        journal.plan(one)
        buy(workspace, one.step_id)
    more = journal.plan(planned("more")).id
    with pytest.raises(BudgetError, match="'brand'") as caught:
        buy(workspace, more)
    assert caught.value.cap == "knowledge_base_usd_micros"
    assert journal.get(more).state is StepState.PLANNED
    budget.caps = Caps(month_video_s=2.5)
    with pytest.raises(BudgetError, match="2026-01") as caught:
        buy(workspace, more)
    assert caught.value.cap == "month_video_s"
    clock.advance(31 * 86_400)
    assert buy(workspace, more) == "reserved"
    assert budget.spent(month="2026-01").video_s == 2.0
    assert budget.spent(month="2026-02", knowledge_base="brand").video_s == 1.0
    workspace.close()


def test_an_unknown_price_is_not_zero(workspace):
    workspace.budget.caps = Caps(month_usd_micros=10_000_000)
    step_id = workspace.journal.plan(planned(usd_micros=None)).id
    with pytest.raises(BudgetError, match="not known"):
        buy(workspace, step_id)
    with pytest.raises(BudgetError, match="not known"):
        workspace.budget.reserve_run("r", [planned(usd_micros=None)])
    workspace.budget.unknown_price = "allow"
    assert buy(workspace, step_id) == "reserved"
    assert workspace.budget.spent().unknown == 1


def test_only_what_is_known_not_to_be_billed_is_let_go(workspace):
    journal = workspace.journal
    ends = {"free": False, "billed": True, "unknown": None}
    for name, billed in ends.items():
        step_id = journal.plan(planned(name)).id
        buy(workspace, step_id)
        journal.advance(step_id, StepState.SUBMITTING, StepState.FAILED, error={"billed": billed})
    assert workspace.budget.spent().usd_micros == 100_000
    assert workspace.budget.spent().undecided_usd_micros == 50_000
    again = journal.ids({StepState.FAILED})[0]
    journal.retry(again)
    buy(workspace, again)
    assert workspace.budget.spent().count == 3


def test_a_full_disk_keeps_what_was_written_and_says_so(tmp_path):
    workspace = Workspace(tmp_path, clock=FakeClock())
    step_id = workspace.journal.plan(planned()).id
    connection = workspace._database._connection()
    connection.execute(f"pragma max_page_count = {connection.execute('pragma page_count').fetchone()[0]}")
    many = [planned(f"{number} " + "long " * 500) for number in range(100)]
    with pytest.raises(BackendError, match="full") as caught:
        workspace.journal.plan_all(many)
    assert caught.value.retryable
    connection.execute("pragma max_page_count = 1000000")
    assert workspace.journal.get(step_id).state is StepState.PLANNED
    assert buy(workspace, step_id) == "reserved"
    workspace.close()


def test_a_step_says_whether_it_is_a_video_or_an_edit(workspace):
    step = workspace.journal.plan(planned())
    assert step.video.step_id == step.id
    with pytest.raises(UsageError):
        _ = step.edit


# -- a provider, a cap, and processes that die anywhere


class Purchases(RuleBasedStateMachine):
    """Whatever happens in whatever order, a model of the provider never sees more than was allowed."""

    CAP = 300_000
    PRICE = 50_000

    @initialize()
    def begin(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.open()
        self.charges = {}  # token to price: what the provider billed
        self.sent = {}  # step to handle, as the provider knows it
        self.recorded = []
        self.allowed = set()  # tokens that were written down

    def open(self):
        self.workspace = Workspace(Path(self.folder.name), clock=self.clock, caps=Caps(month_usd_micros=self.CAP))
        self.journal = self.workspace.journal
        self.owner = Owner(self.journal.locks, self.clock)

    def teardown(self):
        if hasattr(self, "workspace"):
            self.owner.release()
            self.workspace.close()
            self.folder.cleanup()

    def some(self, data, *states):
        ids = self.journal.ids(states)
        return self.journal.get(data.draw(st.sampled_from(ids))) if ids else None

    @rule(number=st.integers(0, 9))
    def plan(self, number):
        self.journal.plan(planned(str(number), usd_micros=self.PRICE))

    @rule()
    def die(self):
        self.owner.release()
        self.workspace.close()
        self.open()

    @rule(data=st.data())
    def reserve(self, data):
        step = self.some(data, StepState.PLANNED)
        if step is not None:
            try:
                self.journal.reserve_and_submit(step.id, lambda: None, owner=self.owner)
            except BudgetError:
                return
            self.allowed.add(step.token)

    @rule(data=st.data(), lost=st.booleans())
    def send(self, data, lost):
        step = self.some(data, StepState.SUBMITTING)
        if step is not None:
            self.charges.setdefault(step.token, self.PRICE)  # the same token is the same job
            if not lost:
                self.journal.advance(
                    step.id, StepState.SUBMITTING, StepState.SUBMITTED, handle=Handle(provider="fake", id=step.token)
                )

    @rule(data=st.data())
    def throttle(self, data):
        step = self.some(data, StepState.SUBMITTING)
        if step is not None and step.token not in self.charges:
            self.journal.advance(step.id, StepState.SUBMITTING, StepState.PLANNED)
            self.allowed.discard(step.token)

    @rule(data=st.data(), billed=st.sampled_from([True, False, None]))
    def fail(self, data, billed):
        step = self.some(data, StepState.SUBMITTED)
        if step is not None:
            self.journal.advance(step.id, StepState.SUBMITTED, StepState.FAILED, error={"billed": billed})
            if billed is False:
                self.charges[step.token] = 0

    @rule(data=st.data())
    def again(self, data):
        step = self.some(data, StepState.FAILED)
        if step is not None:
            self.journal.retry(step.id)

    @rule(data=st.data(), expected=st.sampled_from(list(StepState)))
    def finish(self, data, expected):
        step = self.some(data, StepState.SUBMITTED, StepState.DONE, StepState.FETCHED, StepState.FINISHED)
        following = {
            StepState.SUBMITTED: StepState.DONE,
            StepState.DONE: StepState.FETCHED,
            StepState.FETCHED: StepState.FINISHED,
            StepState.FINISHED: StepState.RECORDED,
        }
        if step is None or expected not in following:
            return
        moved = self.journal.advance(
            step.id,
            expected,
            following[expected],
            status=JobStatus(state="succeeded", billed=True) if expected is StepState.SUBMITTED else None,
        )
        assert moved == (expected is step.state)
        if moved and expected is StepState.FINISHED:
            self.recorded.append(step.id)

    @rule(days=st.integers(1, 40))
    @precondition(lambda self: not hasattr(self, "charges") or not self.charges)
    def wait(self, days):
        self.clock.advance(days * 86_400)

    @invariant()
    def charges_never_exceed_what_was_allowed(self):
        if not hasattr(self, "workspace"):
            return
        assert set(self.charges) <= self.allowed
        assert sum(self.charges.values()) <= self.CAP
        assert sum(self.charges.values()) <= self.workspace.budget.spent().usd_micros <= self.CAP
        assert len(self.recorded) == len(set(self.recorded))


Purchases.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_charges_never_exceed_the_plan_nor_the_cap = Purchases.TestCase
