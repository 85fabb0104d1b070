"""Paid calls: bought once, whatever dies in between, and never past a cap."""

import threading

import pytest

from vrag.errors import (
    AccessDeniedError,
    BackendError,
    BudgetError,
    ContentRejectedError,
    JobUndecidedError,
    ThrottledError,
    UsageError,
)
from vrag.testing import FakeClock
from vrag.values.policy import Caps
from vrag.workspace import Workspace
from vrag.workspace.calls import PaidCall

LOST = BackendError("reset", retryable=True)


class Till:
    """A workspace and a backend that counts what it is asked."""

    def __init__(self, folder):
        self.folder, self.clock, self.asked, self.faults = folder, FakeClock(), [], []
        self.open()

    def open(self):
        self.workspace = Workspace(self.folder, clock=self.clock)
        self.calls = self.workspace.calls

    def restart(self):
        self.workspace.close()
        self.open()

    def buy(self, question="a dog", *, usd_micros=50_000, **more):
        call = PaidCall(
            kind="caption",
            model="fake",
            request={"image": question},
            usd_micros=usd_micros,
            knowledge_base="brand",
            **more,
        )
        return self.calls.buy(call, lambda: self.answer(question))

    def answer(self, question):
        self.asked.append(question)
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                raise fault
        return f"about {question}".encode()


@pytest.fixture
def till(tmp_path):
    made = Till(tmp_path)
    yield made
    made.workspace.close()


def test_the_same_question_is_bought_once_and_answered_from_then_on(till):
    assert till.buy() == till.buy() == b"about a dog"
    till.restart()
    assert till.buy() == b"about a dog"
    assert till.asked == ["a dog"]
    assert till.workspace.budget.spent(knowledge_base="brand").usd_micros == 50_000
    till.buy("a cat")
    assert len(till.asked) == 2


def test_threads_that_ask_the_same_share_one_answer(till):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(till.buy())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [b"about a dog"] * 8
    assert till.asked == ["a dog"]


def test_throttling_is_ridden_out_and_counts_nothing(till):
    till.faults = [ThrottledError("wait", backend="fake", retryable=True)] * 4
    assert till.buy() == b"about a dog"
    assert till.workspace.budget.spent().count == 1


@pytest.mark.parametrize("death", ["crash", "lost answer"])
def test_what_may_have_been_bought_is_asked_again_only_where_that_is_cheap(till, death):
    till.faults = [KeyboardInterrupt() if death == "crash" else LOST]
    with pytest.raises((KeyboardInterrupt, BackendError)):
        till.buy()
    till.restart()
    for _ in range(2):
        with pytest.raises(JobUndecidedError):
            till.buy()
    assert till.asked == ["a dog"]
    (row,) = till.calls.undecided()
    assert till.workspace.budget.spent().undecided_usd_micros == 50_000
    till.calls.decide(row.id, billed=False)
    with pytest.raises(UsageError):
        till.calls.decide(row.id)
    assert till.buy() == b"about a dog"
    assert till.workspace.budget.spent().usd_micros == 50_000


@pytest.mark.parametrize("death", ["crash", "lost answer"])
def test_a_cheap_call_is_made_again_and_both_are_counted(till, death):
    till.faults = [KeyboardInterrupt() if death == "crash" else LOST]
    if death == "crash":
        with pytest.raises(KeyboardInterrupt):
            till.buy(usd_micros=100)
        till.restart()
    assert till.buy(usd_micros=100) == b"about a dog"
    assert till.workspace.budget.spent().usd_micros == 200


def test_a_refusal_by_moderation_is_remembered_and_another_error_is_not(till):
    till.faults = [
        ContentRejectedError("violence", backend="fake"),
        AccessDeniedError("no", backend="fake", request_id="r"),
    ]
    for _ in range(2):
        with pytest.raises(ContentRejectedError, match="violence"):
            till.buy()
    assert len(till.asked) == 1
    with pytest.raises(AccessDeniedError):
        till.buy("a cat")
    assert till.buy("a cat") == b"about a cat"


def test_a_cap_stops_the_call_that_would_pass_it(till):
    till.workspace.budget.caps = Caps(knowledge_base_usd_micros=100_000)
    till.buy("one")
    till.buy("two")
    with pytest.raises(BudgetError) as caught:
        till.buy("three")
    assert caught.value.cap == "knowledge_base_usd_micros"
    assert till.asked == ["one", "two"]
    assert till.buy("one") == b"about one"  # what is bought stays
    with pytest.raises(BudgetError, match="not known"):
        till.buy("four", usd_micros=None)


def test_another_process_that_is_asking_is_waited_for(till):
    other = Workspace(till.folder, clock=till.clock)
    call = PaidCall(kind="caption", model="fake", request={"image": "a dog"}, usd_micros=50_000, knowledge_base="brand")
    asking, go_on = threading.Event(), threading.Event()

    def slow():
        asking.set()
        go_on.wait(10)
        return b"from the other one"

    answers = []
    first = threading.Thread(target=lambda: answers.append(other.calls.buy(call, slow)))
    first.start()
    asking.wait(10)
    second = threading.Thread(target=lambda: answers.append(till.buy()))
    second.start()
    go_on.set()
    first.join(10)
    second.join(10)
    assert answers == [b"from the other one"] * 2
    assert till.asked == []
    other.close()
