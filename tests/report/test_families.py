"""Like claims fold into one row; nothing of them is lost in it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.certificate import certify
from surefoot.guarantee import Guarantee, Verdict
from surefoot.record import Record
from surefoot.report.families import Family, families


def certificate(name, *, measured=0.5, statement="x <= 1", source="here", **changes):
    record = Record()
    record.extend(0, "x", [measured] * 3)
    made = certify(
        record,
        Guarantee(
            name=name, statement=statement, source=source, quantity="x", sense="upper", holds_in="every run",
            bound=lambda r: 1.0,
        ),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("names", "name", "labels"),
    [
        (["G5: coverage, mean", "G5: coverage, random"], "G5: coverage", ["mean", "random"]),
        (["T1 rate", "T1 rate, m = 64"], "T1 rate", ["T1 rate", "m = 64"]),
        (
            ["A: descent (G1)", "train B, r = 1: descent (G1)"],
            "descent (G1)",
            ["A", "train B, r = 1"],
        ),
        (["A, B: the log", "A, C: the log"], "the log", ["A, B", "A, C"]),
        (["the log", "A, C: the log"], "the log", ["the log", "A, C"]),
        (["law: A, the log", "law: B, the log"], "law", ["A, the log", "B, the log"]),
        (["sphere", "valley"], "sphere, and the like", ["sphere", "valley"]),
        (["alone"], "alone", ["alone"]),
    ],
)
def test_a_family_is_called_by_what_its_names_share(names, name, labels):
    (family,) = families(map(certificate, names))
    assert family.name == name
    assert [family.label(c) for c in family.members] == labels


@given(st.lists(st.sampled_from(["x <= 1", "x <= 2", "y <= 1"]), max_size=12))
def test_nothing_is_lost_and_the_order_is_kept(statements):
    given_ = [certificate(f"n{i}", statement=s) for i, s in enumerate(statements)]
    found = families(given_)
    assert sorted(c.name for f in found for c in f.members) == sorted(c.name for c in given_)
    assert [f.members[0].statement for f in found] == list(dict.fromkeys(statements))
    assert len({f.key for f in found}) == len(found)


def test_a_heuristic_is_no_member_of_a_theorems_family():
    assert len(families([certificate("a"), certificate("b", heuristic=True)])) == 2
    assert len(families([certificate("a"), certificate("b", source="elsewhere")])) == 2


def test_the_worst_is_the_surprise_then_the_largest_ratio():
    kept, near = certificate("kept", measured=0.2), certificate("near", measured=0.9)
    broken = certificate("broken", measured=3.0)
    announced = replace(broken, name="announced", expected=Verdict.BROKEN)
    assert Family("f", (kept, near)).worst is near
    assert Family("f", (kept, announced, near)).worst is announced
    assert Family("f", (announced, kept, broken)).worst is broken


def test_where_nothing_is_promised_does_not_speak_for_the_rest():
    nothing = certificate("nothing", measured=7.0, verdict=Verdict.NOT_PROMISED)
    family = Family("f", (nothing, certificate("kept", measured=0.5)))
    assert (family.final, family.tightness) == (0.5, 0.5)
    assert Family("f", (nothing,)).final == 7.0
    assert sum(len(group) for group in family.outcomes) == 2
