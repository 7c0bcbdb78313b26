"""What a run measured and what it was: quantities over (seed, step) and facts, in memory and as Parquet."""

from __future__ import annotations

import contextlib
import json
import operator
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._run.files import replacing
from surefoot.errors import FileFormatError, UnknownNameError

Fact = str | bool | int | float
FACTS = b"surefoot.facts"
PRIVATE = "private_columns"
SCHEMA = pa.schema(
    [
        ("quantity", pa.dictionary(pa.int32(), pa.string())),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Curves:
    """One quantity over the steps at which every seed recorded it.

    `complete` is False where some seed lacks a step that another one has.
    """

    seeds: Int[np.ndarray, " seeds"]
    steps: Int[np.ndarray, " steps"]
    values: Float[np.ndarray, "seeds steps"]
    complete: bool


@dataclass(frozen=True)
class Known:
    """What the seeds of a record say of one fact.

    `values` has the distinct values of every seed that noted it, in the order of noting; `missing`
    the seeds that say nothing. A fact that was noted for the whole record counts for all its seeds.
    """

    name: str
    values: Mapping[int, tuple[Fact, ...]]
    missing: tuple[int, ...]

    @property
    def all(self) -> tuple[Fact, ...]:
        """The distinct values over all seeds."""
        return tuple(dict.fromkeys(v for found in self.values.values() for v in found))

    def __str__(self) -> str:
        if len(self.all) <= 1 and not self.missing:
            return f"{self.name} = {_shown(self.all)}" if self.all else f"{self.name} not recorded"
        said: dict[tuple[Fact, ...], list[int]] = {}
        for seed, values in self.values.items():
            said.setdefault(values, []).append(seed)
        each = [f"{_shown(v)} in {_seeds(seeds)}" for v, seeds in said.items()]
        if self.missing:
            each.append(f"not recorded in {_seeds(self.missing)}")
        return f"{self.name} = " + "; ".join(each)


def _shown(values: Iterable[Fact]) -> str:
    return ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values)


def _seeds(seeds: Iterable[int]) -> str:
    listed = list(seeds)
    return ("seed " if len(listed) == 1 else "seeds ") + ", ".join(map(str, listed))


def _whole(name: str, value: Any) -> int:
    """A seed or a step: 0.25 of an epoch would be written over 0."""
    if type(value) is int:
        return value
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return int(value)
        raise ValueError(f"a {name} must be a whole number, got {value!r}") from None


def _real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name!r} must be one number, got {value!r}") from None


@dataclass
class _Column:
    seed: array[int] = field(default_factory=lambda: array("q"))
    step: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))


@checked
class Record:
    """Quantities over (seed, step) and facts of the run; appending is O(1), quantities may differ in steps.

    A quantity is a number at a step. A fact is what was true of the run as a whole: which optimizer, which
    momentum. Whatever runs writes both here, and guarantees read both here and nowhere else.

    Parameters
    ----------
    folder
        Where to flush while the run goes on: each flush adds one whole Parquet file, so a killed
        process loses at most what came after the last flush. None keeps the record in memory.
    flush_every
        Seconds between flushes.
    """

    # Sets that note which quantities are read; see `reading`.
    _readers: tuple[set[str], ...] = ()

    def __init__(self, folder: str | Path | None = None, *, flush_every: float = 5.0) -> None:
        self._columns: dict[str, _Column] = {}
        # None in place of a seed: noted for the whole record, whichever seeds it will hold.
        self._facts: dict[str, dict[int | None, tuple[Fact, ...]]] = {}
        self._facts_flushed = True
        self._folder = Path(folder) if folder is not None else None
        self._flush_every = check_number("flush_every", flush_every, least=0, finite=False)
        self._flushed: dict[str, int] = {}
        self._last_flush = time.monotonic()
        self._next_file = 0
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            taken = [int(f.stem) for f in self._folder.glob("*.parquet") if f.stem.isdecimal()]
            self._next_file = max(taken, default=-1) + 1

    def append(self, seed: int, step: int, /, **values: float) -> None:
        """Add one row. Writing the same (quantity, seed, step) again replaces the value."""
        self.update(seed, step, values)

    def update(self, seed: int, step: int, values: Mapping[str, float]) -> None:
        """Add one row whose quantities have names that are not Python identifiers."""
        # Converted first: a value that is no number must not leave half a row behind.
        seed, step = _whole("seed", seed), _whole("step", step)
        numbers = {name: _real(name, value) for name, value in values.items()}
        for name, number in numbers.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
            column.seed.append(seed)
            column.step.append(step)
            column.value.append(number)
        self._flush_if_due()

    def extend(
        self,
        seed: int,
        quantity: str,
        values: Iterable[float],
        steps: Iterable[int] | None = None,
    ) -> None:
        """Add a whole curve at once; `steps` defaults to 0, 1, 2, ..."""
        data = array("d", (_real(quantity, v) for v in values))
        where = array(
            "q", range(len(data)) if steps is None else (_whole("step", s) for s in steps)
        )
        if len(where) != len(data):
            raise ValueError(
                f"steps and values must be equally long, got {len(where)} and {len(data)}"
            )
        if len(set(where)) < len(where):
            raise ValueError(f"{quantity!r} has two values at one step; each step takes one")
        if not len(data):
            return
        column = self._columns.setdefault(quantity, _Column())
        column.value.extend(data)
        column.step.extend(where)
        column.seed.extend(array("q", [_whole("seed", seed)]) * len(data))
        self._flush_if_due()

    def note(self, seed: int | None = None, of: str = "", /, **facts: Fact) -> None:
        """Note facts of the run.

        A fact is never overwritten: noting another value keeps both, so that a momentum that was on for
        one step cannot be unsaid.

        Parameters
        ----------
        seed
            The run of which they are true; None: of every run in this record.
        of
            Where one record holds several things that ran (the arms of a comparison): which one.
        facts
            Words, numbers, True or False.

        Raises
        ------
        TypeError
            A value is of another type.
        """
        plain = {name: _fact(name, value) for name, value in facts.items()}
        for name, value in plain.items():
            self._note(f"{of}.{name}" if of else name, None if seed is None else int(seed), value)

    def private(self, *quantities: str) -> None:
        """Say that columns are queries of private data without noise: they stay when others are published.

        Certificates that read them, pages and trackers leave their numbers out unless asked. The mark is a
        fact: it goes wherever the record goes, and nothing takes it back.
        """
        for name in quantities:
            if not isinstance(name, str):
                raise TypeError(f"quantities must be names of columns, got {name!r}")
            self.note(**{PRIVATE: name})

    @property
    def private_quantities(self) -> tuple[str, ...]:
        """The columns that were said to be private, whether or not they have a row yet.

        What was said of one of several that ran is true of its columns, by whatever name they have here.
        """
        found: set[str] = set()
        for key, noted in self._facts.items():
            of, _, fact = key.rpartition(".")
            for name in (str(v) for values in noted.values() for v in values if fact == PRIVATE):
                found |= {name, f"{of}: {name}", f"{of}.{name}", f"{name}, {of}"} if of else {name}
        return tuple(sorted(found))

    @contextlib.contextmanager
    def deriving(self) -> Iterator[None]:
        """Columns that are made inside are private where a private one was read for them."""
        before = set(self._columns)
        with self.reading() as read:
            yield
        if read & set(self.private_quantities):
            self.private(*sorted(set(self._columns) - before))

    @contextlib.contextmanager
    def reading(self) -> Iterator[set[str]]:
        """The names of the quantities whose values are read inside, here or in a copy that is made inside."""
        seen: set[str] = set()
        self._readers = (*self._readers, seen)
        try:
            yield seen
        finally:
            self._readers = tuple(s for s in self._readers if s is not seen)

    def _note(self, key: str, seed: int | None, value: Fact) -> None:
        values = self._facts.setdefault(key, {})
        before = values.get(seed, ())
        if not any(value == v and type(value) is type(v) for v in before):
            values[seed] = (*before, value)
            self._facts_flushed = False

    @property
    def facts(self) -> dict[str, Known]:
        """Every fact that was noted, by name, or by "of.name" where it is true of one of several."""
        return {key: self._known(key, (key,)) for key in sorted(self._facts)}

    def fact(self, name: str, of: str = "") -> Known:
        """What the seeds say of one fact; a fact that nobody noted is missing in every seed.

        What was noted of no one in particular is true of each of several.
        """
        return self._known(name, (name, f"{of}.{name}") if of else (name,))

    def arms(self, *names: str) -> list[str]:
        """The `of`s under which any of these facts was noted, "" for no one in particular first."""
        split = (key.rpartition(".") for key in self._facts)
        return sorted({of for of, _, name in split if name in names})

    def _known(self, name: str, keys: tuple[str, ...]) -> Known:
        noted = [self._facts.get(key, {}) for key in keys]
        told = {s for by_seed in noted for s in by_seed if s is not None}
        seeds = self.seeds or sorted(told) or ([0] if any(noted) else [])
        values = {
            s: tuple(dict.fromkeys(v for n in noted for key in (None, s) for v in n.get(key, ())))
            for s in seeds
        }
        there = {s: v for s, v in values.items() if v}
        return Known(name, there, tuple(s for s in seeds if s not in there))

    @property
    def quantities(self) -> list[str]:
        """The names of the recorded quantities, sorted."""
        return sorted(self._columns)

    @property
    def seeds(self) -> list[int]:
        """All seeds of the record, sorted."""
        return sorted({s for c in self._columns.values() for s in c.seed})

    def __contains__(self, quantity: str) -> bool:
        return quantity in self._columns

    def __len__(self) -> int:
        return sum(len(c.value) for c in self._columns.values())

    def _column(self, quantity: str) -> _Column:
        for seen in self._readers:
            seen.add(quantity)
        try:
            return self._columns[quantity]
        except KeyError:
            raise UnknownNameError("quantity", quantity, self._columns) from None

    def curves(self, quantity: str) -> Curves:
        """The quantity as a matrix over the seeds and the steps that all these seeds share."""
        column = self._column(quantity)
        seed = np.array(column.seed, dtype=np.int64)
        step = np.array(column.step, dtype=np.int64)
        seeds, row = np.unique(seed, return_inverse=True)
        steps, place = np.unique(step, return_inverse=True)
        values = np.full((len(seeds), len(steps)), np.nan)
        there = np.zeros(values.shape, dtype=bool)
        values[row, place] = np.array(column.value)
        there[row, place] = True
        shared = there.all(axis=0)
        return Curves(seeds, steps[shared], values[:, shared], bool(shared.all()))

    def __getitem__(self, quantity: str) -> Float[np.ndarray, "seeds steps"]:
        return self.curves(quantity).values

    def constant(self, quantity: str) -> Float[np.ndarray, " seeds"]:
        """The last value of a quantity for each seed: a constant measured once, or a final state."""
        return np.array([value for _, value in self.last(quantity).values()])

    def last(self, quantity: str) -> dict[int, tuple[int, float]]:
        """For each seed the last step at which a quantity was recorded, and its value there."""
        column = self._column(quantity)
        found: dict[int, tuple[int, float]] = {}
        for seed, step, value in zip(column.seed, column.step, column.value, strict=True):
            if seed not in found or step >= found[seed][0]:
                found[seed] = (step, value)
        return dict(sorted(found.items()))

    def of_seed(self, seed: int) -> Record:
        """The numbers and facts of one seed."""
        found = Record()
        found._readers = self._readers
        for name, column in self._columns.items():
            own = [i for i, s in enumerate(column.seed) if s == seed]
            if own:
                found._columns[name] = _Column(
                    array("q", [seed] * len(own)),
                    array("q", (column.step[i] for i in own)),
                    array("d", (column.value[i] for i in own)),
                )
        for name, noted in self._facts.items():
            found._facts[name] = {s: v for s, v in noted.items() if s in (None, seed)}
        return found

    def lacking(self, quantity: str) -> list[int]:
        """The seeds that recorded other quantities of the same run ("arm: ...") and not this one."""
        arm = quantity.rpartition(": ")[0]
        family = [c for name, c in self._columns.items() if name.rpartition(": ")[0] == arm]
        return sorted({s for c in family for s in c.seed} - set(self._column(quantity).seed))

    def to(
        self,
        tracker: str,
        place: str | Path | None = None,
        *,
        project: str = "surefoot",
        run: str = "record",
        certificates: Iterable[Any] = (),
        publish_private: bool = False,
    ) -> None:
        """Hand the record to a tracker, a run of it for each seed, through the tracker's own client.

        Quantities become metrics over their steps, facts parameters, certificates an artifact (in TensorBoard
        a text, and a file beside its own).

        Parameters
        ----------
        tracker
            "mlflow", "tensorboard" or "trackio".
        place
            A tracking URI of MLflow, a folder for TensorBoard, the URL of a server of Trackio; None: where
            each writes by itself.
        project
            MLflow's experiment, Trackio's project, a folder for TensorBoard.
        run
            The name of the run, to which the seed is added.
        certificates
            Of this record.
        publish_private
            Whether private columns go too. They are then among what left (fact `released`), and no promise of
            privacy holds.

        Raises
        ------
        UnknownNameError
            There is no such tracker.
        MissingExtraError
            Its package is not installed.
        """
        from surefoot._sinks.sending import send

        # Before anything leaves: an interrupted sending is one too.
        if publish_private:
            self.published()
        send(tracker, self, place, project, run, certificates, publish_private)

    def published(self) -> None:
        """Note that the private columns left as they are; `released` then names them."""
        for name in self.private_quantities:
            self.note(released=name)

    def frame(self, *quantities: str) -> pd.DataFrame:
        """A data frame indexed by (seed, step), one column a quantity, NaN where none was taken.

        Of these quantities, by default of all.
        """
        chosen = quantities or tuple(self._columns)
        for name in chosen:
            self._column(name)
        table: pd.DataFrame = self._rows(chosen, {}).to_pandas()
        table["quantity"] = table["quantity"].astype(str)
        table = table.drop_duplicates(["quantity", "seed", "step"], keep="last")
        return table.pivot(index=["seed", "step"], columns="quantity", values="value")

    def table(self, *, since: Mapping[str, int] | None = None) -> pa.Table:
        """The record as an Arrow table with columns quantity, seed, step, value; facts as its metadata."""
        for seen in self._readers:
            seen.update(self._columns)
        return self._rows(self.quantities, since or {})

    def _rows(self, quantities: Iterable[str], since: Mapping[str, int]) -> pa.Table:
        parts = []
        for name in sorted(quantities):
            column, first = self._columns[name], since.get(name, 0)
            count = len(column.value) - first
            if count:
                indices = pa.array(np.zeros(count, dtype=np.int32))
                parts.append(
                    pa.table(
                        [
                            pa.DictionaryArray.from_arrays(indices, pa.array([name])),
                            pa.array(np.array(column.seed[first:])),
                            pa.array(np.array(column.step[first:])),
                            pa.array(np.array(column.value[first:])),
                        ],
                        schema=SCHEMA,
                    )
                )
        whole = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
        return whole.replace_schema_metadata({FACTS: facts_table({"": self})})

    def _flush_if_due(self) -> None:
        if self._folder is not None and time.monotonic() - self._last_flush > self._flush_every:
            self.flush()

    def flush(self) -> None:
        """Write what is new since the last flush as one more Parquet file of the folder."""
        if self._folder is None:
            return
        self._last_flush = time.monotonic()
        table = self.table(since=self._flushed)
        if not table.num_rows and self._facts_flushed:
            return
        while (path := self._folder / f"{self._next_file:06d}.parquet").exists():
            self._next_file += 1  # another process flushes into the same folder
        write_parquet(table, path)
        self._flushed = {name: len(c.value) for name, c in self._columns.items()}
        self._facts_flushed = True

    def write(self, path: str | Path) -> None:
        """Write the whole record as one Parquet file, atomically; an existing file is an error."""
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists already and is not overwritten")
        write_parquet(self.table(), path)

    @classmethod
    def read(cls, path: str | Path, *, part: str | None = None) -> Record:
        """Read a Parquet file, or all Parquet files of a folder in the order of their names.

        `part` keeps the rows of one part of a study whose table has such a column.
        """
        path = Path(path)
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files or not path.exists():
            raise FileFormatError(f"{path} holds no Parquet record")
        record = cls()
        for file in files:
            table = read_parquet(file)
            if part is not None:
                if "part" not in table.column_names:
                    raise FileFormatError(f"{file} is not the record of a study: it names no part")
                table = table.filter(pc.equal(table["part"].cast(pa.string()), part))
            record._load(table)
            record._add_facts(_facts_of(file, table, part or ""))
            if part is None:
                # The rows of all parts are here, and so are their marks: nothing else would hold them back.
                record.private(*_private_in(file, table))
        return record

    def _add_facts(self, facts: Mapping[str, Mapping[int | None, Iterable[Fact]]]) -> None:
        for name, noted in facts.items():
            for seed, values in noted.items():
                for value in values:
                    self._note(name, seed, value)

    def _load(self, table: pa.Table) -> None:
        codes = table["quantity"].combine_chunks()
        index = codes.indices.to_numpy(zero_copy_only=False)
        arrays = {k: table[k].to_numpy() for k in ("seed", "step", "value")}
        for code, name in enumerate(codes.dictionary.to_pylist()):
            rows = index == code
            if rows.any():
                column = self._columns.setdefault(str(name), _Column())
                column.seed.frombytes(arrays["seed"][rows].tobytes())
                column.step.frombytes(arrays["step"][rows].tobytes())
                column.value.frombytes(arrays["value"][rows].tobytes())

    @classmethod
    def concat(cls, records: Iterable[Record]) -> Record:
        """One record with the rows of several, for instance of several seeds."""
        whole, several = cls(), list(records)
        # Without a row there is no seed, and what is true of the whole would be true of none.
        rowless = not any(record.seeds for record in several)
        for record in several:
            whole._readers += record._readers
            for name, column in record._columns.items():
                target = whole._columns.setdefault(name, _Column())
                target.seed.extend(column.seed)
                target.step.extend(column.step)
                target.value.extend(column.value)
            # What was true of a whole record is true of its seeds, not of those of the others.
            for name, noted in record._facts.items():
                for seed, values in noted.items():
                    for s in [seed] if seed is not None or rowless else record.seeds:
                        for value in values:
                            whole._note(name, s, value)
        return whole

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def __repr__(self) -> str:
        return (
            f"Record({len(self.seeds)} seeds, quantities: {', '.join(self.quantities) or 'none'})"
        )


def _fact(name: str, value: Any) -> Fact:
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, (str, bool, int, float)):
        raise TypeError(
            f"a fact must be a word, a number, True or False, got {name} = {value!r} "
            f"of type {type(value).__name__}"
        )
    return value


def _stored(facts: Mapping[str, Mapping[int | None, tuple[Fact, ...]]]) -> dict[str, Any]:
    return {
        name: {"" if seed is None else str(seed): list(values) for seed, values in noted.items()}
        for name, noted in facts.items()
    }


def facts_table(records: Mapping[str, Record]) -> bytes:
    """The facts of the records of several parts, as the metadata of one table."""
    return json.dumps({part: _stored(r._facts) for part, r in records.items()}).encode()


def _facts_of(file: Path, table: pa.Table, part: str) -> dict[str, dict[int | None, list[Fact]]]:
    raw = (table.schema.metadata or {}).get(FACTS)
    if raw is None:
        return {}
    try:
        noted = json.loads(raw).get(part, {})
        return {
            name: {(int(s) if s else None): list(v) for s, v in by_seed.items()}
            for name, by_seed in noted.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f"{file} is not a record: its facts are unreadable: {error}"
        ) from None


def _private_in(file: Path, table: pa.Table) -> list[str]:
    """The columns that any part of a record says are private."""
    raw = (table.schema.metadata or {}).get(FACTS)
    parts = [] if raw is None else list(json.loads(raw))
    noted = (_facts_of(file, table, part).get(PRIVATE, {}) for part in parts)
    return sorted({str(name) for by_seed in noted for names in by_seed.values() for name in names})


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table so that a reader sees the whole file or none of it."""
    with replacing(path) as partial:
        pq.write_table(table, partial, write_page_checksum=True)


def read_parquet(path: Path) -> pa.Table:
    """Read a record's table; anything that is not one is a FileFormatError."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0]
        raise FileFormatError(f"{path} is not readable Parquet (truncated?): {cause}") from None
    columns = {}
    for name in SCHEMA.names:
        if name not in table.column_names:
            raise FileFormatError(f"{path} is not a record: column {name!r} is missing")
        try:
            columns[name] = _column_of(table[name], SCHEMA.field(name).type)
        except pa.ArrowException as error:
            raise FileFormatError(f"{path} is not a record: column {name!r}: {error}") from None
    if "part" in table.column_names:
        columns["part"] = table["part"]
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _column_of(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.null_count:
        raise pa.ArrowInvalid(f"{column.null_count} values are missing")
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)
