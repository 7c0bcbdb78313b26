"""The folder that a run leaves behind: what is in it, under which name, and how it is read."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa

from surefoot._run import manifest
from surefoot._run.files import read_json, sha256_of, write_json, write_text
from surefoot._run.in_use import in_use
from surefoot._showing import showing
from surefoot.certificate import Certificate, read_certificates, write_certificates
from surefoot.errors import FileFormatError, UnknownNameError
from surefoot.record import FACTS, Record, facts_table, write_parquet

FORMAT = 1
UNBORN = ".new"


def _foreign(config: Mapping[str, Any]) -> str | None:
    """What a config.json has that no run wrote; names in it become paths."""
    parts, study = config["parts"], config["study"]
    if not isinstance(study, str) or not _is_name(study):
        return f"names a study {study!r}"
    if not isinstance(config.get("config", {}), dict):
        return "holds no configuration"
    if not isinstance(parts, dict):
        return "lists no parts"
    for part, about in parts.items():
        if not _is_name(part):
            return f"names a part {part!r}"
        seeds = about.get("seeds") if isinstance(about, dict) else None
        if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
            return f"does not list the seeds of part {part}"
        if not isinstance(about.get("title"), str):
            return f"gives part {part} no title"
    return None


def _is_name(text: str) -> bool:
    return bool(text) and text not in (".", "..") and not any(c in "/\\\0" for c in text)


def file_name(part: str, name: str) -> str:
    """A result's file: names are free text ("step 1/L"), so what no path may hold is escaped."""
    escaped = name.replace("%", "%25").replace("/", "%2F").replace("\\", "%5C").replace("\0", "%00")
    return f"{part}.{escaped}.json"


def plain_table(table: pd.DataFrame) -> dict[str, Any]:
    """A table as it is stored: pandas' own JSON rounds numbers and reads dates into words."""
    missing = table.astype(object).where(table.notna(), None)
    rows = [
        [str(v) if isinstance(v, float) and isinf(v) else v for v in row]
        for row in missing.to_numpy().tolist()
    ]
    return {"columns": list(table.columns), "data": rows}


@showing
@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    ```
    config.json       study, configuration, parts with their seeds, the command that made it
    environment.json  versions, platform, threads
    seeds/PART.SEED/  the Parquet files of one seed, then done.json (with their SHA-256) or error.txt
    record.parquet    all seeds together, with a column `part`
    certificate.json  the certificates
    tables/, figures/ what the study derived from its record
    problems/         of parts that could not be concluded, the traceback
    status.json       running, finished, interrupted or failed, and how long it took
    manifest.json     SHA-256 of all of the above, and of the data that was read
    index.html        the report
    ```
    """

    path: Path

    @classmethod
    def create(cls, root: Path, study: str, files: Mapping[str, Any] | None = None) -> RunFolder:
        """Make `root/study/TIME`, a folder that did not exist before, with these JSON files in it.

        It is filled under a hidden name, so that nobody finds half of it.
        """
        parent = root / study
        parent.mkdir(parents=True, exist_ok=True)
        hidden = parent / f".{secrets.token_hex(8)}{UNBORN}"
        try:
            hidden.mkdir()
            for name, data in (files or {}).items():
                write_json(hidden / name, data)
            stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
            for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
                path = parent / f"{stamp}{suffix}"
                # An empty folder would be replaced without an error.
                if path.exists():
                    continue
                try:
                    os.rename(hidden, path)
                except OSError:
                    if path.exists():
                        continue
                    raise
                return cls(path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
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
        if wrong := _foreign(config):
            raise FileFormatError(f"{path} is not a run of surefoot: config.json {wrong}")
        return folder

    @staticmethod
    def paths(root: str | Path) -> list[Path]:
        """Every folder below `root` that says it is a run, newest first; none that is being made."""
        found = [config.parent for config in Path(root).glob("*/*/config.json")]
        seen = [path for path in found if not path.name.startswith(".")]
        return sorted(seen, key=lambda path: (path.name, path.parent.name), reverse=True)

    @classmethod
    def all(cls, root: str | Path) -> list[RunFolder]:
        """Every readable run below `root`, newest first."""
        found = []
        for path in cls.paths(root):
            try:
                found.append(cls.open(path))
            except FileFormatError:
                continue
        return found

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds."""
        return dict(read_json(self.path / "config.json"))

    @property
    def environment(self) -> dict[str, Any]:
        """What environment.json holds; nothing where it was not written."""
        return self._optional("environment.json", {})

    @property
    def status(self) -> dict[str, Any]:
        """What status.json holds; a run that is said to be running and that no process runs was killed."""
        status = self._optional("status.json", {"state": "running", "failed": []})
        if status.get("state") == "running" and not in_use(self.path):
            status["state"] = "killed"
        return status

    @property
    def changes(self) -> list[str] | None:
        """What differs from the files that the run left; None: it left no list of them."""
        return manifest.changes(self.path)

    def _optional(self, name: str, otherwise: dict[str, Any]) -> dict[str, Any]:
        file = self.path / name
        found = read_json(file) if file.exists() else otherwise
        if not isinstance(found, dict):
            raise FileFormatError(f"{file} is no table of names and values")
        return dict(found)

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
        """Store the certificates, whole: beside them lie the private columns themselves."""
        write_certificates(certificates, self.path / "certificate.json", publish_private=True)

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

    def seal(self, part: str, seed: int, seconds: float, read: Mapping[str, str]) -> None:
        """Say that a seed ran to its end, with what it left and what it read."""
        folder = self.seed_folder(part, seed)
        files = {f.name: sha256_of(f) for f in sorted(folder.glob("*.parquet"))}
        write_json(folder / "done.json", {"seconds": seconds, "files": files, "read": dict(read)})

    def sealed(self, part: str, seed: int) -> dict[str, Any]:
        """What a seed said when it ended: "seconds", "files" and "read"."""
        file = self.seed_folder(part, seed) / "done.json"
        found = read_json(file)
        if not isinstance(found, dict) or not isinstance(found.get("seconds"), (int, float)):
            raise FileFormatError(f"{file} does not say how long the seed took")
        # Those of before said no more.
        return {"files": None, "read": {}} | found

    def damage(self, part: str, seed: int) -> str | None:
        """What is wrong with a seed that ended; None: nothing."""
        folder = self.seed_folder(part, seed)
        try:
            files = self.sealed(part, seed)["files"]
        except FileFormatError as error:
            return str(error)
        if files is None:
            return None
        for name, digest in files.items():
            if not (folder / name).is_file():
                return f"{folder / name} is gone"
            if sha256_of(folder / name) != digest:
                return f"{folder / name} was changed"
        return None

    def seconds(self, part: str) -> float:
        """Process seconds that the finished seeds of a part took together."""
        seeds = (s for s in self.parts[part]["seeds"] if self.is_done(part, s))
        return sum(float(self.sealed(part, s)["seconds"]) for s in seeds)

    def merge(self) -> dict[str, Record]:
        """Put the seeds together into record.parquet and return the record of each part."""
        records, tables = {}, []
        for part, about in self.parts.items():
            records[part] = Record.concat(self._seeds_of(part, about["seeds"]))
            table = records[part].table()
            # Typed, as a part whose seeds recorded nothing has no value to infer a type from.
            names = pa.array([part] * table.num_rows, pa.string()).dictionary_encode()
            tables.append(table.append_column("part", names))
        whole = pa.concat_tables(tables, promote_options="default")
        whole = whole.replace_schema_metadata({FACTS: facts_table(records)})
        write_parquet(whole, self.path / "record.parquet")
        return records

    def _seeds_of(self, part: str, seeds: list[int]) -> Iterator[Record]:
        for seed in seeds:
            folder = self.seed_folder(part, seed)
            if not any(folder.glob("*.parquet")):
                continue
            try:
                yield Record.read(folder)
            except FileFormatError:
                # One that did not end counts as missing, with or without what it wrote.
                if self.is_done(part, seed):
                    raise

    def write_problem(self, part: str, trace: str) -> None:
        """Store why a part could not be concluded."""
        folder = self.path / "problems"
        folder.mkdir(exist_ok=True)
        write_text(folder / f"{part}.txt", trace)

    def write_table(self, part: str, name: str, table: pd.DataFrame) -> None:
        """Store a table of results as JSON."""
        folder = self.path / "tables"
        folder.mkdir(exist_ok=True)
        write_json(folder / file_name(part, name), plain_table(table))

    def tables(self, part: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """The stored tables of a part, by name."""
        for file in sorted((self.path / "tables").glob(f"{glob.escape(part)}.*.json")):
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
        for file in sorted((self.path / "figures").glob(f"{glob.escape(part)}.*.json")):
            yield unquote(file.stem.split(".", 1)[1]), read_json(file)
