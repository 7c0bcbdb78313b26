"""Records: appending, reading back, what a killed process leaves, what is refused."""

import math
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot import Record
from surefoot.errors import FileFormatError, UnknownNameError

names = st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable())
rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-(2**40), 2**40), names, st.floats()), max_size=30
)


def record_of(entries):
    record = Record()
    for seed, step, name, value in entries:
        record.update(seed, step, {name: value})
    return record


def content(record):
    """What a record holds, in order, NaN included."""
    table = record.table().to_pydict()
    return repr(list(zip(*table.values(), strict=True)))


# In memory


def test_append_and_read():
    record = Record()
    for seed in (3, 1):
        for step in (0, 10, 20):
            record.append(seed, step, loss=seed + step / 100, lr=0.1)
    record.append(1, 20, **{"f(x_n) - f*": 7})
    curves = record.curves("loss")
    assert (curves.seeds.tolist(), curves.steps.tolist()) == ([1, 3], [0, 10, 20])
    assert curves.values.tolist() == [[1.0, 1.1, 1.2], [3.0, 3.1, 3.2]]
    assert curves.complete
    assert record.quantities == ["f(x_n) - f*", "loss", "lr"]
    assert record["f(x_n) - f*"].tolist() == [[7.0]]
    assert record.seeds == [1, 3]
    assert len(record) == 13
    assert "loss" in record
    assert "los" not in record
    assert repr(record) == "Record(2 seeds, quantities: f(x_n) - f*, loss, lr)"
    assert repr(Record()) == "Record(0 seeds, quantities: none)"


def test_quantities_may_be_called_like_anything():
    record = Record()
    record.append(0, 1, seed=2.0, step=3.0, self=4.0, values=5.0)
    assert record.quantities == ["seed", "self", "step", "values"]


def test_rows_may_come_in_any_order_and_the_last_of_a_step_counts():
    record = record_of([(0, 2, "a", 3.0), (0, 0, "a", 1.0), (0, 1, "a", 2.0), (0, 1, "a", 9.0)])
    assert record["a"].tolist() == [[1.0, 9.0, 3.0]]
    assert record.frame()["a"].tolist() == [1.0, 9.0, 3.0]
    assert record.constant("a").tolist() == [3.0]


def test_seeds_share_the_steps_that_all_of_them_have():
    record = record_of([(0, 0, "a", 1.0), (0, 5, "a", 2.0), (1, 0, "a", 3.0), (1, 6, "a", 4.0)])
    curves = record.curves("a")
    assert curves.steps.tolist() == [0]
    assert curves.values.tolist() == [[1.0], [3.0]]
    assert not curves.complete
    record.append(1, 5, a=math.nan)
    assert record.curves("a").steps.tolist() == [0, 5]  # NaN was measured; nothing was not


def test_quantities_differ_in_their_steps():
    record = Record()
    record.extend(0, "every", [1.0, 2.0, 3.0])
    record.extend(0, "now and then", np.array([5.0]), [2])
    assert record["every"].shape == (1, 3)
    frame = record.frame()
    assert frame.index.names == ["seed", "step"]
    assert frame.loc[(0, 2)].to_dict() == {"every": 3.0, "now and then": 5.0}
    assert math.isnan(frame.loc[(0, 0), "now and then"])


def test_unknown_quantity_lists_those_there_are():
    record = record_of([(0, 0, "loss", 1.0), (0, 0, "lr", 1.0)])
    for read in (record.curves, record.constant, record.__getitem__):
        with pytest.raises(UnknownNameError) as caught:
            read("los")
        assert str(caught.value) == (
            "unknown quantity 'los'; there are: loss, lr. Did you mean 'loss'?"
        )
    with pytest.raises(LookupError, match="there are: none"):
        Record()["loss"]


def test_a_value_that_is_no_number_leaves_no_trace():
    record = record_of([(0, 0, "a", 1.0)])
    with pytest.raises(TypeError):
        record.append(0, 1, b=1.0, a=None)
    with pytest.raises(ValueError, match="equally long, got 1 and 2"):
        record.extend(0, "c", [1.0, 2.0], [1])
    with pytest.raises(TypeError):
        record.extend(0, "d", [[1.0, 2.0]])
    record.extend(0, "e", [])
    assert record.quantities == ["a"]
    assert content(record) == content(record_of([(0, 0, "a", 1.0)]))


def test_seeds_concatenate():
    parts = [record_of([(seed, step, "a", seed + step) for step in range(3)]) for seed in range(4)]
    whole = Record.concat(parts)
    assert whole["a"].tolist() == [[seed + step for step in range(3)] for seed in range(4)]
    # The parts stay as they were, and so does the whole when they grow.
    parts[0].append(0, 9, a=0.0)
    assert len(whole) == 12
    assert len(parts[1]) == 3
    assert len(Record.concat([])) == 0


def test_appending_does_not_slow_down():
    def cost(record):
        """Of a thousand appends; the quickest of many, as the machine has other work."""
        times = []
        for _ in range(7):
            started = time.perf_counter()
            for step in range(1000):
                record.append(0, step, loss=1.0)
            times.append(time.perf_counter() - started)
        return min(times)

    short, long = Record(), Record()
    short.extend(0, "loss", np.zeros(1_000))
    long.extend(0, "loss", np.zeros(1_000_000))
    assert cost(long) < 3 * cost(short)


# On disk


@given(rows)
def test_round_trip_through_parquet(tmp_path_factory, entries):
    record = record_of(entries)
    path = tmp_path_factory.mktemp("record") / "record.parquet"
    record.write(path)
    assert content(Record.read(path)) == content(record)
    assert len(list(path.parent.iterdir())) == 1


@given(rows, st.lists(st.integers(0, 30), max_size=4))
def test_flushes_add_up(tmp_path_factory, entries, flush_at):
    folder = tmp_path_factory.mktemp("record")
    with Record(folder) as record:
        for i, (seed, step, name, value) in enumerate(entries):
            if i in flush_at:
                record.flush()
            record.update(seed, step, {name: value})
    if entries:
        assert content(Record.read(folder)) == content(record)
    else:
        assert list(folder.iterdir()) == []


def test_a_flush_writes_only_what_is_new(tmp_path):
    record = Record(tmp_path, flush_every=math.inf)
    for step in range(5000):
        record.append(0, step, loss=float(step), lr=0.1)
    record.flush()
    record.append(0, 5000, loss=5000.0)
    record.flush()
    record.flush()
    first, second = sorted(tmp_path.iterdir())
    assert pq.read_table(first).num_rows == 10_000
    assert pq.read_table(second).to_pydict() == {
        "quantity": ["loss"], "seed": [0], "step": [5000], "value": [5000.0],
    }  # fmt: skip


def test_flushes_come_by_themselves(tmp_path):
    record = Record(tmp_path, flush_every=0.0)
    record.append(0, 0, loss=1.0)
    assert Record.read(tmp_path)["loss"].tolist() == [[1.0]]
    record.extend(0, "lr", [0.1])
    assert Record.read(tmp_path)["lr"].tolist() == [[0.1]]
    # A record in memory has nowhere to flush to.
    Record().flush()


def test_an_exception_still_flushes(tmp_path):
    with pytest.raises(ZeroDivisionError), Record(tmp_path) as record:
        record.append(0, 0, loss=1.0)
        1 / 0  # noqa: B018
    assert Record.read(tmp_path)["loss"].tolist() == [[1.0]]


KILLED = """
import sys
from surefoot import Record
record = Record(sys.argv[1], flush_every=float(sys.argv[2]))
step = 0
while True:
    record.append(7, step, loss=step / 4)
    step += 1
    if step % 500 == 0:
        record.flush()
        print(step, flush=True)
"""


@pytest.mark.parametrize("flush_every", ["inf", "0.01"])
def test_a_killed_process_leaves_everything_up_to_its_last_flush(tmp_path, flush_every):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), flush_every],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said = [process.stdout.readline() for _ in range(8)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    flushed = max(int(line) for line in said if line.endswith("\n"))
    assert process.returncode == -signal.SIGKILL
    curves = Record.read(tmp_path).curves("loss")
    assert flushed >= 4000
    assert len(curves.steps) >= flushed
    assert curves.steps.tolist() == list(range(len(curves.steps)))
    assert curves.values[0].tolist() == [step / 4 for step in curves.steps]
    assert curves.seeds.tolist() == [7]


def test_a_second_record_in_the_same_folder_overwrites_nothing(tmp_path):
    for value in (1.0, 2.0, 3.0):
        with Record(tmp_path) as record:
            record.append(0, int(value), loss=value)
    (tmp_path / "000001.parquet").unlink()
    with Record(tmp_path) as record:
        record.append(0, 4, loss=4.0)
    assert Record.read(tmp_path)["loss"].tolist() == [[1.0, 3.0, 4.0]]
    (tmp_path / "000000.parquet").unlink()
    (tmp_path / "000002.parquet").unlink()
    with Record(tmp_path) as record:
        record.append(0, 4, loss=40.0)  # read last, as it was written last
    assert Record.read(tmp_path)["loss"].tolist() == [[40.0]]
    # Two at once take each other's names for taken.
    one, two = Record(tmp_path), Record(tmp_path)
    for record, step in ((one, 5), (two, 6), (one, 7)):
        record.append(0, step, loss=float(step))
        record.flush()
    assert Record.read(tmp_path)["loss"].tolist() == [[40.0, 5.0, 6.0, 7.0]]


def test_an_existing_file_is_not_overwritten(tmp_path):
    record = record_of([(0, 0, "a", 1.0)])
    record.write(tmp_path / "record.parquet")
    before = (tmp_path / "record.parquet").read_bytes()
    record.append(0, 1, a=2.0)
    with pytest.raises(FileExistsError, match="exists already and is not overwritten"):
        record.write(str(tmp_path / "record.parquet"))
    assert (tmp_path / "record.parquet").read_bytes() == before


# Bad files


def test_not_a_record(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.parquet"):
        with pytest.raises(FileFormatError, match="holds no Parquet record"):
            Record.read(path)


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.parquet"
    record_of([(s, t, "a", 1.0) for s in range(3) for t in range(100)]).write(path)
    return path


@pytest.mark.parametrize("end", [0, 4, 100, -100, -8, -1])
def test_a_truncated_file_is_one_sentence(whole, end):
    whole.write_bytes(whole.read_bytes()[:end])
    with pytest.raises(FileFormatError, match=r"is not readable Parquet \(truncated") as caught:
        Record.read(whole)
    assert str(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_data_is_found(tmp_path):
    values = np.random.default_rng(0).standard_normal(100)
    record = Record()
    record.extend(0, "a", values)
    record.write(tmp_path / "record.parquet")
    data = bytearray((tmp_path / "record.parquet").read_bytes())
    for value in values[::10]:
        at = data.index(struct.pack("<d", value))
        damaged = data.copy()
        damaged[at + 3] ^= 0x04
        (tmp_path / "record.parquet").write_bytes(damaged)
        with pytest.raises(FileFormatError, match="CRC") as caught:
            Record.read(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["quantity", "seed", "step", "value"])
def test_a_foreign_table(whole, name):
    table = pq.read_table(whole)
    pq.write_table(table.drop_columns(name), whole)
    with pytest.raises(FileFormatError, match=f"is not a record: column '{name}' is missing"):
        Record.read(whole)
    place = table.column_names.index(name)
    words = pa.array([None if name == "quantity" else "word"] * table.num_rows, pa.string())
    pq.write_table(table.set_column(place, name, words), whole)
    with pytest.raises(FileFormatError, match=f"is not a record: column '{name}': "):
        Record.read(whole)


def test_a_record_without_parts(whole):
    with pytest.raises(FileFormatError, match="is not the record of a study: it names no part"):
        Record.read(whole, part="S1")


def test_types_of_other_writers_are_understood(tmp_path):
    table = pa.table(
        {
            "quantity": pa.array(["a", "b", "a"]),
            "seed": pa.array([0, 0, 0], pa.int32()),
            "step": pa.array([0, 0, 1], pa.int16()),
            "value": pa.array([1.0, 2.0, 3.0], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "record.parquet")
    record = Record.read(tmp_path)
    assert record["a"].tolist() == [[1.0, 3.0]]
    assert record["b"].tolist() == [[2.0]]


def test_leftovers_of_a_killed_flush_are_not_read(tmp_path):
    with Record(tmp_path) as record:
        record.append(0, 0, a=1.0)
    (tmp_path / f".000001.parquet.{os.getpid()}.part").write_bytes(b"PAR1")
    assert Record.read(tmp_path)["a"].tolist() == [[1.0]]
