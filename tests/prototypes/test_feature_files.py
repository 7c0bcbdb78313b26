"""Embeddings in a file of one's own: what does not fit is said before anybody has sent anything."""

import numpy as np
import pandas as pd
import pytest
from tests.prototypes.federation import feature_file

from surefoot.cli import main
from surefoot.errors import FileFormatError
from surefoot.prototypes import domain_texts, extract_prototypes
from surefoot.prototypes._client.feature_file import read_features
from surefoot.prototypes.configured import mpft_task

WRONG = {
    "head of another d": ({"head": np.ones((4, 5))}, r"head must be .* d = 16, got \(4, 5\)"),
    "head of too few": (
        {"head": np.eye(3, 16)},
        "head has 3 rows, classes no names, labels go to 3",
    ),
    "flat head": ({"head": np.ones(16)}, "head must be"),
    "a name twice": ({"classes": np.array(list("abca"))}, "classes must be different names"),
    "names in a table": ({"classes": np.array([list("ab"), list("cd")])}, "different names"),
    "too few names": ({"classes": np.array(list("abc"))}, "labels must be from 0 and below"),
    "too many names": ({"classes": np.array(list("abcde"))}, "head has 4 rows, classes 5 names"),
    "two encoders": ({"encoder": np.array(["a", "b"])}, "encoder must be one name"),
    "words as labels": ({"labels": np.full(144, "a")}, "labels must be .* whole numbers"),
    "a misspelt array": ({"label": np.zeros(3)}, "nobody reads"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_with_the_file(name, tmp_path):
    more, said = WRONG[name]
    path = feature_file(tmp_path / "f.npz", **more)
    with pytest.raises(FileFormatError, match=rf"f\.npz.*{said}"):
        read_features(path)


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"", b"\x80\x04pickle", b"PK not a zip"])
def test_another_kind_of_file(content, tmp_path):
    path = tmp_path / "f.npz"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"is no \.npz of plain arrays") as error:
        read_features(path)
    assert "allow_pickle" not in str(error.value)


def test_more_partitions_than_records(tmp_path):
    path = feature_file(tmp_path / "f.npz", 3, 4)
    task = mpft_task({"data": "features", "data-path": str(path)})
    assert len(task.records(11, 12, ())[1]) == 1
    with pytest.raises(
        FileFormatError, match="too few records for 13 partitions: partition 12 gets"
    ):
        task.records(12, 13, ())


def test_a_file_without_records_is_not_inspected(tmp_path, capsys):
    z, y = np.eye(16, dtype="f4")[:8], np.arange(8) % 2
    extract_prototypes(z, y).save(tmp_path / "u.npz")
    np.savez(tmp_path / "h.npz", head=np.eye(2, 16))
    assert (
        main(
            ["prototypes", "inspect", str(tmp_path / "u.npz"), "--records", str(tmp_path / "h.npz")]
        )
        == 2
    )
    assert "has a head and no records" in capsys.readouterr().err


def test_a_frame_is_no_file():
    with pytest.raises(ValueError, match="path must name a table, got DataFrame"):
        domain_texts(pd.DataFrame({"text": ["a"], "label": ["b"], "domain": ["c"]}))
