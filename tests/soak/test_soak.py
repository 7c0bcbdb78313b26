"""The soak counts what it is there to count."""

import itertools

import pytest

for package in ("gguf", "peft", "transformers", "flwr"):
    pytest.importorskip(package, reason="needs the extras")

from tests.soak import federation
from tests.soak.__main__ import kinds, soak
from tests.soak.processes import command
from tests.soak.table import Row, run, table


def test_what_is_lost_is_counted_and_ends_in_a_fault():
    words = itertools.cycle(
        [("named", "a"), ("whole", "b"), ("silent", "c"), ("traceback", "d"), ("lost", "e")]
    )
    row = run(Row("planted", 10), words, seconds=600)
    assert (row.tried, row.lost, row.at_fault) == (10, 6, 6)
    assert row.examples["silent"] == "c"
    assert row.line().startswith("| planted | 10 | 10 | 2 | 2 | 6 | 2 | 2 |")
    excused = run(Row("planted", 5, "no checksum"), words, seconds=600)
    assert (excused.lost, excused.at_fault) == (3, 2)


def test_time_that_is_up_is_said_by_the_count():
    row = run(Row("slow", 10), itertools.repeat(("whole", "")), seconds=0)
    assert row.tried == 0
    assert row.line().startswith("| slow | 10 | 0 |")


def test_what_is_missing_is_said_and_not_run(tmp_path):
    def never(folder, seed):
        raise AssertionError

    said = []
    (row,) = soak([(Row("x", 5, missing="missing: y"), 1.0, never)], 1, 0, said.append)
    assert row.tried == 0
    assert "missing: y" in table([row])
    assert said == [row.line()]


def test_liars_are_named_the_same_for_a_seed():
    found = [list(itertools.islice(federation.liars(3), 12)) for _ in range(2)]
    assert found[0] == found[1]
    assert {word for word, _ in found[0]} == {"named"}
    assert len({what for _, what in found[0]}) > 6


def test_an_average_that_takes_a_lie_is_silent(monkeypatch):
    """The planted fault: a lie that the server has no reason to refuse."""
    ones = {"w": federation.torch.full((2,), 2.0)}
    monkeypatch.setattr(federation, "LIES", {"far": (lambda v: (ones, 10, {}), "NaN")})
    assert next(federation.liars(0))[0] == "silent"


def test_a_killed_command_is_told_from_one_that_ended():
    assert command("-c", "import time; time.sleep(600)", patience=0.2).killed
    ended = command("-c", "print(1 / 0)")
    assert ended.traceback
    assert not ended.killed
    assert command("-c", "print(7)").out == "7\n"


def test_every_kind_has_a_share_and_a_number():
    wanted = {row.kind: row.wanted for row, share, _ in kinds() if share > 0}
    assert sum(n for kind, n in wanted.items() if kind.startswith("kills")) == 100
    assert wanted["flips: sealed files"] == wanted["bad calls"] == 1000
    assert wanted["clients that lie"] == 20
