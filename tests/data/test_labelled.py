"""Labelled texts on disk: splits, columns, hidden labels, and what is refused."""

import pandas as pd
import pytest

from surefoot.data.labelled import labelled
from surefoot.errors import FileFormatError


def write(folder, kind="tsv", **changes):
    train = {"sentence": ["good", "bad", "fine"], "label": [1, 0, 1]} | changes
    for name, rows in (("train", train), ("dev", {"sentence": ["dull"], "label": [0]}),
                       ("test", {"sentence": ["secret"], "label": [-1]})):  # fmt: skip
        frame = pd.DataFrame(rows)
        if kind == "tsv":
            frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
        else:
            frame.to_parquet(folder / f"{name}-00000-of-00001.parquet")


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_a_folder_of_splits(tmp_path, kind):
    write(tmp_path, kind)
    found = labelled(tmp_path)
    assert found["split"].tolist().count("train") == 3
    row = found[found["split"] == "validation"].iloc[0]
    assert (row["text"], row["second"], row["label"]) == ("dull", "", 0)
    assert "secret" not in set(found["text"])


def test_pairs_and_the_columns_of_glue(tmp_path):
    frame = pd.DataFrame(
        {
            "premise": ["a", "b"],
            "hypothesis": ["c", "d"],
            "label": [2, 0],
            "split": ["train", "dev"],
        }
    )
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    found = labelled(tmp_path / "rows.jsonl")
    assert found[["text", "second", "label"]].to_numpy().tolist() == [["a", "c", 2], ["b", "d", 0]]


def test_what_is_refused(tmp_path):
    pd.DataFrame({"text": ["a"], "label": [0]}).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(FileFormatError, match="names no splits: train and validation"):
        labelled(tmp_path / "one.csv")
    folder = tmp_path / "f"
    folder.mkdir()
    write(folder, label=[0.5, 1.0, 0.0])
    with pytest.raises(FileFormatError, match="must hold whole numbers, got float64"):
        labelled(folder)
    write(folder, label=[-1, -1, -1])
    with pytest.raises(FileFormatError, match="no labelled rows of the split train"):
        labelled(folder)
