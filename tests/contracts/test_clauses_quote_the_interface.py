"""The docstrings of `vrag.interfaces` and the clauses of the suites say the same, sentence by sentence."""

from __future__ import annotations

import inspect
import re
from typing import ClassVar

import pytest

from vrag import interfaces
from vrag.testing import FakeEmbedder, contracts
from vrag.testing.contracts.clauses import Contract

SUITES = [suite for name in contracts.__all__ if (suite := getattr(contracts, name)) is not Contract]


def sentences(text):
    """The sentences of a docstring, with single spaces."""
    plain = " ".join((text or "").split())
    return [one for one in re.split(r"(?<=\.)\s+(?=[A-Z`])", plain) if one]


def promised(protocol):
    members = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    return {(name, one) for name, member in members.items() for one in sentences(inspect.getdoc(member))}


def quoted(suite):
    """What its clauses quote: the member that the name of the clause begins with, and the sentence."""
    found = set()
    for name, clause in suite.clauses.items():
        if name in Contract.__dict__:
            continue
        quote, advice = inspect.getdoc(clause).split("When it fails:")
        assert advice.strip()
        member = name.removeprefix("test_").partition("__")[0]
        found |= {(member, one) for one in sentences(quote)}
    return found


def test_each_seam_has_one_suite():
    assert sorted(suite.seam.__name__ for suite in SUITES) == sorted(interfaces.__all__)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.__name__)
def test_each_sentence_is_a_clause_and_each_clause_a_sentence(suite):
    assert quoted(suite) == promised(suite.seam)


def test_the_splitter_sees_every_sentence():
    text = "One. Two is `..` parts; so. `Three` goes 1, 2, 3 …. Four\nends …"
    assert sentences(text) == ["One.", "Two is `..` parts; so.", "`Three` goes 1, 2, 3 ….", "Four ends …"]


def test_a_clause_cannot_be_replaced():
    with pytest.raises(TypeError, match="replaces the clause test_embed__in_order"):

        class Bent(contracts.EmbedderContract):
            def test_embed__in_order(self):
                pass


def test_a_clause_cannot_be_deleted():
    with pytest.raises(TypeError, match="replaces the clause test_embed__in_order"):

        class Bent(contracts.EmbedderContract):
            test_embed__in_order = None


def test_a_clause_cannot_be_replaced_by_a_mixin():
    class Mixin:
        def test_32_threads_get_the_serial_result(self):
            pass

    with pytest.raises(TypeError, match="replaces the clause test_32_threads"):

        class Bent(Mixin, contracts.SignerContract):
            pass


@pytest.mark.parametrize(
    ("waived", "message"),
    [({"test_embed__in_ordre": "typo"}, "which is no clause"), ({"test_embed__in_order": " "}, "without a reason")],
)
def test_a_waiver_names_a_clause_and_a_reason(waived, message):
    with pytest.raises(TypeError, match=message):
        type("Bent", (contracts.EmbedderContract,), {"waived": waived})


def test_a_waiver_is_an_expected_failure_and_strict():
    class Waiving(contracts.EmbedderContract):
        waived: ClassVar = {"test_embed__in_order": "the vendor answers in any order"}

        def make(self, tmp_path):
            return FakeEmbedder()

    [mark] = Waiving.test_embed__in_order.pytestmark
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "the vendor answers in any order", "strict": True}

    class Inheriting(Waiving):
        pass

    assert Inheriting.test_embed__in_order.pytestmark == [mark]


def test_a_missing_hook_says_which(tmp_path):
    class Empty(contracts.EmbedderContract):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty needs `make\(self, tmp_path\)`"):
        Empty().make(tmp_path)
