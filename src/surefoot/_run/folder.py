"""The folder that a run leaves behind: what is in it, under which name, and how it is read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa

from surefoot._run.files import write_json, write_text
from surefoot.certificate import Certificate, read_certificates, write_certificates
from surefoot.errors import FileFormatError, UnknownNameError
from surefoot.record import FACTS, Record, facts_table, write_parquet

FORMAT = 1


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a FileFormatError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"{path} is not there; is its folder a run of surefoot?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not readable JSON (truncated?): {error}") from None


def file_name(part: str, name: str) -> str:
    """A result's file: names are free text ("step 1/L"), so what no path may hold is escaped."""
    escaped = name.replace("%", "%25").replace("/", "%2F").replace("\\", "%5C").replace("\0", "%00")
    return f"{part}.{escaped}.json"


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    ```
    config.json       study, configuration, parts with their seeds, the command that made it
    environment.json  versions, platform, threads
    seeds/PART.SEED/  the Parquet files of one seed, then done.json or error.txt
    record.parquet    all seeds together, with a column `part`
    certificate.json  the certificates
    tables/, figures/ what the study derived from its record
    problems/         of parts that could not be concluded, the traceback
    status.json       running, finished, interrupted or failed, and how long it took
    index.html        the report
    ```
    """

    path: Path

    @classmethod
    def create(cls, root: Path, study: str) -> RunFolder:
        """Make `root/study/TIME`, a folder that did not exist before."""
        parent = root / study
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
        for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
            try:
                (parent / f"{stamp}{suffix}").mkdir()
            except FileExistsError:
                continue
            return cls(parent / f"{stamp}{suffix}")
        raise FileExistsError(f"{parent / stamp} and 998 names after it exist already")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run; anything else is a FileFormatError."""
        path = Path(path)
        if not path.is_dir():
            raise FileFormatError(f"{path} is not a folder")
        folder = cls(path)
        config = read_json(path / "config.json")
        if not isinstance(config, dict) or not isinstance(config.get("format"), int):
            raise FileFormatError(f"{path} is not a run of surefoot: config.json names no format")
        if config["format"] > FORMAT:
            raise FileFormatError(
                f"{path} was written in format {config['format']}, this version reads up to "
                f"{FORMAT}; upgrade surefoot"
            )
        if "study" not in config or "parts" not in config:
            raise FileFormatError(f"{path} is not a run of surefoot: config.json names no study")
        return folder

    @classmethod
    def all(cls, root: str | Path) -> list[RunFolder]:
        """Every readable run below `root`, newest first."""
        found = []
        for config in Path(root).glob("*/*/config.json"):
            try:
                found.append(cls.open(config.parent))
            except FileFormatError:
                continue
        return sorted(found, key=lambda f: (f.path.name, f.path.parent.name), reverse=True)

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds."""
        return dict(read_json(self.path / "config.json"))

    @property
    def environment(self) -> dict[str, Any]:
        """What environment.json holds."""
        return dict(read_json(self.path / "environment.json"))

    @property
    def status(self) -> dict[str, Any]:
        """What status.json holds; a run that was killed never got to say that it ended."""
        file = self.path / "status.json"
        return dict(read_json(file)) if file.exists() else {"state": "running", "failed": []}

    @property
    def study(self) -> str:
        """The name of the study."""
        return str(self.config["study"])

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Name -> {"title", "seeds"} of the parts that were asked for."""
        return dict(self.config["parts"])

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Parts that were not run, with the extras that they would have needed."""
        return dict(self.config.get("skipped", {}))

    def certificates(self) -> list[Certificate]:
        """The certificates, empty before the run got that far."""
        file = self.path / "certificate.json"
        return read_certificates(file) if file.exists() else []

    def write_certificates(self, certificates: list[Certificate]) -> None:
        """Store the certificates."""
        write_certificates(certificates, self.path / "certificate.json")

    def record(self, part: str) -> Record:
        """The record of one part over all its seeds."""
        if part not in self.parts:
            raise UnknownNameError("part", part, self.parts)
        return Record.read(self.path / "record.parquet", part=part)

    def seed_folder(self, part: str, seed: int) -> Path:
        """Where one seed of one part writes."""
        return self.path / "seeds" / f"{part}.{seed}"

    def is_done(self, part: str, seed: int) -> bool:
        """Whether this seed ran to its end."""
        return (self.seed_folder(part, seed) / "done.json").exists()

    def seconds(self, part: str) -> float:
        """Process seconds that the finished seeds of a part took together."""
        files = (self.seed_folder(part, s) / "done.json" for s in self.parts[part]["seeds"])
        return sum(float(read_json(f)["seconds"]) for f in files if f.exists())

    def merge(self) -> dict[str, Record]:
        """Put the seeds together into record.parquet and return the record of each part."""
        records, tables = {}, []
        for part, about in self.parts.items():
            seeds = [
                Record.read(self.seed_folder(part, s))
                for s in about["seeds"]
                if any(self.seed_folder(part, s).glob("*.parquet"))
            ]
            records[part] = Record.concat(seeds)
            table = records[part].table()
            # Typed, as a part whose seeds recorded nothing has no value to infer a type from.
            names = pa.array([part] * table.num_rows, pa.string()).dictionary_encode()
            tables.append(table.append_column("part", names))
        whole = pa.concat_tables(tables, promote_options="default")
        whole = whole.replace_schema_metadata({FACTS: facts_table(records)})
        write_parquet(whole, self.path / "record.parquet")
        return records

    def write_problem(self, part: str, trace: str) -> None:
        """Store why a part could not be concluded."""
        folder = self.path / "problems"
        folder.mkdir(exist_ok=True)
        write_text(folder / f"{part}.txt", trace)

    def write_table(self, part: str, name: str, table: pd.DataFrame) -> None:
        """Store a table of results as JSON."""
        folder = self.path / "tables"
        folder.mkdir(exist_ok=True)
        # Not through pandas' own JSON, which rounds numbers and reads dates into words.
        missing = table.astype(object).where(table.notna(), None)
        rows = [
            [str(v) if isinstance(v, float) and isinf(v) else v for v in row]
            for row in missing.to_numpy().tolist()
        ]
        data = {"columns": list(table.columns), "data": rows}
        write_json(folder / file_name(part, name), data)

    def tables(self, part: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """The stored tables of a part, by name."""
        for file in sorted((self.path / "tables").glob(f"{part}.*.json")):
            stored = read_json(file)
            table = pd.DataFrame(stored["data"], columns=stored["columns"])
            yield unquote(file.stem.split(".", 1)[1]), table

    def write_figure(self, part: str, name: str, figure: Mapping[str, Any]) -> None:
        """Store a plotly figure as JSON."""
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        write_json(folder / file_name(part, name), figure)

    def figures(self, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The stored plotly figures of a part, by name."""
        for file in sorted((self.path / "figures").glob(f"{part}.*.json")):
            yield unquote(file.stem.split(".", 1)[1]), read_json(file)
