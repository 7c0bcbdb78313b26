"""The sets inside scikit-learn, by facts their sources publish, and one's own tables."""

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float64, Int64

from surefoot import data
from surefoot.errors import FileFormatError


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("iris", (150, 4), [50, 50, 50]),
        ("wine", (178, 13), [59, 71, 48]),
        ("breast_cancer", (569, 30), [212, 357]),
        ("digits", (1797, 64), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    ],
)
def test_classification_sets(name, shape, counts):
    table = data.load(name)
    assert isinstance(table.x, Float64[np.ndarray, "n d"])
    assert isinstance(table.y, Int64[np.ndarray, "n"])
    assert table.x.shape == shape
    assert np.bincount(table.y).tolist() == counts
    assert len(table.feature_names) == shape[1]
    assert len(table.target_names) == len(counts)


def test_first_values():
    # Fisher 1936, Table I: the first Iris setosa
    iris = data.load("iris")
    assert iris.x[0].tolist() == [5.1, 3.5, 1.4, 0.2]
    assert iris.target_names == ("setosa", "versicolor", "virginica")
    assert data.load("digits").x.max() == 16


def test_diabetes_is_a_regression():
    table = data.load("diabetes")
    assert table.x.shape == (442, 10)
    assert isinstance(table.y, Float64[np.ndarray, "442"])
    assert table.target_names == ()
    assert np.allclose(table.x.mean(axis=0), 0, atol=1e-12)
    assert np.allclose((table.x**2).sum(axis=0), 1)
    # Efron, Hastie, Johnstone and Tibshirani 2004: the response of the first patient
    assert table.y[0] == 151


def own(tmp_path, **columns):
    pd.DataFrame(columns).to_csv(tmp_path / "own.csv", index=False)
    return data.load("wine", path=tmp_path / "own.csv")


def test_own_classes(tmp_path):
    table = own(tmp_path, Target=["no", "yes", "no"], a=[1, 2, 3], b=[0.5, 1.5, 2.5])
    assert table.x.tolist() == [[1, 0.5], [2, 1.5], [3, 2.5]]
    assert table.y.tolist() == [0, 1, 0]
    assert table.feature_names == ("a", "b")
    assert table.target_names == ("no", "yes")
    # without a column of that name the last one is the target; classes need not start at 0
    table = own(tmp_path, a=[1, 2, 3], grower=[3, 1, 3])
    assert table.y.tolist() == [1, 0, 1]
    assert table.target_names == ("1", "3")


def test_own_regression(tmp_path):
    table = own(tmp_path, a=[1, 2], y=[0.5, 1.5])
    assert table.y.tolist() == [0.5, 1.5]
    assert table.target_names == ()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": [1]}, "at least one measurement and a target"),
        ({"a": ["x"], "y": [1]}, "column 'a' that is not of numbers"),
        ({"a": [np.nan, 1], "y": [1, 2]}, "missing or infinite"),
        ({"a": [1, 2], "y": [None, "b"]}, "missing or infinite"),
    ],
)
def test_own_tables_that_do_not_fit(tmp_path, columns, says):
    with pytest.raises(FileFormatError, match=says):
        own(tmp_path, **columns)
