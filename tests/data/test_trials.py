"""The `.ts` format, with the oddities that the real files have."""

import numpy as np
import pytest
from jaxtyping import Float64, Int64

from surefoot import data
from surefoot.data.trials import read_ts
from surefoot.errors import FileFormatError, UnknownNameError

HEAD = """#an EEG set: with, punctuation
@problemName toy
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@seriesLength 2
@classLabel true left right
@data
"""
TRAIN = HEAD + "1,2,3:4,5,6:right\n-1.5,2e-3,0:7,8,9:left\n"
TEST = HEAD.replace("@data", "@DATA") + "0,0,?:1,1,1:left\n\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("B", "A"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_TRAIN.ts").write_text(TRAIN)
    (tmp_path / "A" / "A_TEST.ts").write_text(TEST)
    return tmp_path


def test_sets_by_name(folder):
    sets = data.load("eeg", path=folder)
    assert list(sets) == ["A", "B"]
    assert len(sets) == 2
    assert repr(sets) == "TrialSets(A, B)"
    trials = sets["A"]
    assert isinstance(trials.x, Float64[np.ndarray, "2 2 3"])
    assert isinstance(trials.y, Int64[np.ndarray, "2"])
    assert trials.x.tolist() == [[[1, 2, 3], [4, 5, 6]], [[-1.5, 2e-3, 0], [7, 8, 9]]]
    assert trials.y.tolist() == [1, 0]
    assert trials.classes == ("left", "right")
    assert np.isnan(trials.x_test[0, 0, 2])
    assert trials.y_test.tolist() == [0]
    assert trials.rate is None
    assert sets["B"].x_test.shape == (0, 2, 3)
    assert sets["B"].y_test.shape == (0,)


def test_files_are_read_only_when_asked_for(folder):
    (folder / "B" / "B_TRAIN.ts").write_text("damaged")
    sets = data.load("eeg", path=folder)
    assert "B" in sets
    assert sets["A"].name == "A"
    with pytest.raises(FileFormatError):
        sets["B"]


def test_one_file_or_a_flat_folder(folder):
    (trials,) = data.load("eeg", path=folder / "A" / "A_TRAIN.ts").values()
    assert len(trials.x) == 2
    assert len(data.load("eeg", path=folder / "A")["A"].x_test) == 1


def test_unknown_set_lists_the_known(folder):
    with pytest.raises(UnknownNameError, match="unknown set of trials 'a'; there are: A, B"):
        data.load("eeg", path=folder)["a"]


def test_the_only_set_of_a_folder(folder):
    with pytest.raises(FileFormatError, match="must hold one set of trials, got A, B"):
        data.load("basic_motions", path=folder)
    trials = data.load("basic_motions", path=folder / "A")
    assert trials.name == "A"
    assert trials.x.shape == (2, 2, 3)


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileFormatError, match=r"holds no file NAME_TRAIN\.ts"):
        data.load("eeg", path=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD, "declares no classes or holds no trials"),
        ("@data\n1,2:left\n", "declares no classes"),
        (HEAD + "1,2:3,4:left\n1,2:3:left\n", "not of equal length"),
        (HEAD + "1,2:3,4:left\n1,2:left\n", "not a readable set"),
        (HEAD + "1,2:3,4:up\n", "'up'|not in tuple"),
        (HEAD + "1,x:3,4:left\n", "could not convert string to float"),
        (HEAD + "left\n", "not of equal length"),
    ],
)
def test_damaged_files(tmp_path, text, says):
    (tmp_path / "x.ts").write_text(text)
    with pytest.raises(FileFormatError, match=says):
        read_ts(tmp_path / "x.ts")


def test_train_and_test_must_agree(folder):
    (folder / "A" / "A_TEST.ts").write_text(HEAD + "1,2:3,4:left\n")
    with pytest.raises(FileFormatError, match="other classes or shapes"):
        data.load("eeg", path=folder)["A"]
