"""Facts of a run: noted by what ran, never overwritten, kept apart by seed, stored beside the numbers."""

import numpy as np
import pytest

from surefoot import Guarantee, Record, Verdict, certify
from surefoot.certificate import unmeasured
from surefoot.errors import FileFormatError
from surefoot.guarantee import assume_fact
from surefoot.record import FACTS, read_parquet, write_parquet


def noted(seed, **facts):
    record = Record()
    record.append(seed, 0, q=0.5)
    record.note(**facts)
    return record


def plain(record, of=""):
    return assume_fact(record, "momentum", "no momentum", "beta = 0", lambda v: v == 0, of=of)


@pytest.mark.parametrize(
    ("facts", "holds"), [({"momentum": 0.0}, True), ({"momentum": 0.9}, False), ({}, None)]
)
def test_a_condition_is_read_off_the_record(facts, holds):
    assert plain(noted(0, **facts)).holds is holds


def test_what_was_once_true_cannot_be_unsaid():
    record = noted(0, momentum=0.9)
    record.note(momentum=0.0)
    found = plain(record)
    assert found.holds is False
    assert "0.9, 0" in found.how
    assert found.measured is None


def test_the_same_value_is_noted_once_and_true_is_not_one():
    record = noted(0, a=1)
    record.note(a=1)
    record.note(a=True)
    assert [type(v) for v in record._facts["a"][None]] == [int, bool]


def test_seeds_that_differ_are_kept_apart_and_named():
    record = Record.concat([noted(3, momentum=0.0), noted(4, momentum=0.9), noted(5)])
    known = record.fact("momentum")
    assert known.values == {3: (0.0,), 4: (0.9,)}
    assert known.missing == (5,)
    assert str(known) == "momentum = 0 in seed 3; 0.9 in seed 4; not recorded in seed 5"
    assert plain(record).holds is False


def test_one_silent_seed_leaves_a_condition_open():
    record = Record.concat([noted(0, momentum=0.0), noted(1)])
    assert plain(record).holds is None


def test_a_fact_of_one_arm_is_not_one_of_another():
    record = noted(0)
    record.note(None, "LOZO-M", momentum=0.9)
    record.note(None, "LOZO", momentum=0.0)
    assert plain(record, "LOZO").holds is True
    assert plain(record, "LOZO-M").holds is False
    assert plain(record, "MeZO").holds is None
    record.note(momentum=0.5)  # of all of them
    assert plain(record, "LOZO").holds is False


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, np.zeros(2), object()])
def test_what_is_no_fact_is_refused_by_name(value):
    with pytest.raises(TypeError, match="beta"):
        Record().note(beta=value)


def test_facts_survive_the_disk(tmp_path):
    record = noted(7, momentum=np.float32(0.5), optimizer="LOZO", nesterov=True, rank=2)
    record.note(7, "arm.with.dots", nu=np.int64(5))
    record.write(tmp_path / "r.parquet")
    again = Record.read(tmp_path / "r.parquet")
    assert {k: v.all for k, v in again.facts.items()} == {
        "momentum": (0.5,), "optimizer": ("LOZO",), "nesterov": (True,), "rank": (2,),
        "arm.with.dots.nu": (5,),
    }  # fmt: skip
    assert again.fact("nu", "arm.with.dots").values == {7: (5,)}
    assert type(again.fact("nesterov").all[0]) is bool


def test_a_folder_keeps_facts_that_come_after_the_last_row(tmp_path):
    with Record(tmp_path) as record:
        record.append(0, 0, q=1.0)
        record.flush()
        record.note(reason="landscape")
    assert Record.read(tmp_path).fact("reason").all == ("landscape",)
    assert len(Record.read(tmp_path)) == 1


def test_damaged_facts_are_said(tmp_path):
    noted(0, a=1).write(tmp_path / "r.parquet")
    table = read_parquet(tmp_path / "r.parquet").replace_schema_metadata({FACTS: b'{"": [1]}'})
    write_parquet(table, tmp_path / "bad.parquet")
    with pytest.raises(FileFormatError, match="facts"):
        Record.read(tmp_path / "bad.parquet")


def theorem():
    return Guarantee(
        "g", "q <= 1", "here", "gradient", "upper", "every run", lambda r: 1.0,
        lambda r: (plain(r),),
    )  # fmt: skip


def test_a_theorem_whose_quantity_was_not_measured_says_how_to():
    found = unmeasured(noted(0, momentum=0.0), theorem(), "record |grad f|^2")
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason == "gradient was not measured: record |grad f|^2"
    assert type(found).from_json(found.to_json()).reason == found.reason
    assert "momentum" in found.summary()
    assert found.html()


def test_and_promises_nothing_where_a_condition_fails():
    found = unmeasured(noted(0, momentum=0.9), theorem(), "record |grad f|^2")
    assert found.verdict is Verdict.NOT_PROMISED
    assert "no momentum" in found.reason


def test_not_promised_comes_before_broken():
    record = noted(0, momentum=0.9)
    record.append(0, 0, gradient=5.0)
    assert certify(record, theorem()).verdict is Verdict.NOT_PROMISED
    record = noted(0, momentum=0.0)
    record.append(0, 0, gradient=5.0)
    assert certify(record, theorem()).verdict is Verdict.BROKEN


def test_facts_of_a_run_without_a_row_are_not_lost_and_not_lent_to_others():
    silent, told = Record(), noted(0)
    silent.note(momentum=0.9)
    assert plain(Record.concat([silent])).holds is False
    assert plain(Record.concat([silent, told])).holds is None
