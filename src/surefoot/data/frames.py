"""Users' own rows: a CSV, JSON lines, Parquet or Arrow file, or a Hugging Face dataset directory.

Such a directory is either a clone of a dataset repository (Parquet, CSV or JSON lines files) or
what `datasets.Dataset.save_to_disk` writes (Arrow streams). Neither needs the `datasets` package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from surefoot.errors import FileFormatError

KINDS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".csv.gz", ".tsv")
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|dev|test)(?![a-z])", re.IGNORECASE)


def read_frame(path: Path) -> pd.DataFrame:
    """All rows under `path`; a column `split` is added where the names of several files tell it."""
    if path.is_file():
        return _read(path)
    if not path.is_dir():
        raise FileFormatError(f"{path} is neither a file nor a folder")
    for kind in KINDS:
        files = sorted(
            found for found in path.rglob(f"*{kind}") if not _is_bookkeeping(found, path)
        )
        if files:
            break
    else:
        raise FileFormatError(f"{path} holds no file of the kinds {', '.join(KINDS)}")
    splits = [_split(file.relative_to(path)) for file in files]
    frames = [_read(file) for file in files]
    if len(set(splits)) > 1:
        frames = [
            frame if "split" in frame else frame.assign(split=split)
            for frame, split in zip(frames, splits, strict=True)
        ]
    return pd.concat(frames, ignore_index=True)


def column(frame: pd.DataFrame, names: Sequence[str], path: Path) -> pd.Series:
    """The first column that bears one of `names`, whatever its case."""
    found = {str(name).lower(): name for name in frame.columns}
    for name in names:
        if name in found:
            return frame[found[name]]
    raise FileFormatError(
        f"{path} has the columns {', '.join(map(str, frame.columns))}; one of "
        f"{', '.join(names)} is needed"
    )


def _is_bookkeeping(file: Path, root: Path) -> bool:
    inside = file.relative_to(root)
    return (
        any(part.startswith(".") for part in inside.parts)
        or file.name.startswith("cache-")
        or file.name in ("dataset_info.json", "dataset_infos.json", "dataset_dict.json",
                         "state.json")
    )  # fmt: skip


def _split(inside: Path) -> str:
    found = _SPLIT.search(inside.as_posix())
    return found[1].lower() if found else inside.stem


def _read(path: Path) -> pd.DataFrame:
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            return pd.read_parquet(path)
        if name.endswith(".arrow"):
            return _read_arrow(path)
        if name.endswith(".jsonl"):
            return pd.read_json(path, lines=True)
        if name.endswith(".json"):
            return pd.read_json(path)
        if name.endswith((".csv", ".csv.gz")):
            return pd.read_csv(path)
        if name.endswith(".tsv"):
            return pd.read_csv(path, sep="\t")
    except (ValueError, OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{path} cannot be read as {path.suffix}: {reason}") from error
    raise FileFormatError(f"{path} is not of the kinds {', '.join(KINDS)}")


def _read_arrow(path: Path) -> pd.DataFrame:
    with pa.memory_map(str(path)) as source:
        try:
            table = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            # save_to_disk writes streams, but the file format bears the same suffix
            table = pa.ipc.open_file(source).read_all()
        frame: pd.DataFrame = table.to_pandas()
        return frame
