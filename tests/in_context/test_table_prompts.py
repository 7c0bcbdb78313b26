"""Prompts from a table: different rows, whitened by others, labels in their own units."""

import numpy as np
import pytest
import torch

from surefoot.in_context import TablePrompts


def table(rows=60, features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, features)) @ np.diag([1.0, 5.0, 0.2][:features]) + 7
    return X, X @ np.arange(1.0, features + 1) + rng.standard_normal(rows)


def test_rows_of_a_prompt_differ_and_none_whitened():
    X, _ = table(40, 1)
    X[:, 0] = np.arange(40)  # a row is known by its number
    source = TablePrompts(X, X[:, 0], 6, seed=3)
    drawn = source.sample(200)
    rows = torch.cat([drawn.X[:, 0], drawn.xq], 1)
    assert all(len(r.unique()) == 7 for r in rows)
    used = rows.unique()
    assert len(used) == source.rows == 20
    # The other half has mean 0 and variance 1 in these units; the map back is linear in the number.
    order = np.random.default_rng(3).permutation(40)
    first, held = order[:20].astype(float), order[20:].astype(float)
    expected = np.sort((held - first.mean()) / first.std(ddof=1))
    found = used.numpy() if used.numpy()[0] * expected[0] > 0 else np.sort(-used.numpy())
    assert np.allclose(np.sort(np.abs(found)), np.sort(np.abs(expected)))
    labels = torch.cat([drawn.y, drawn.target[:, None]], 1).unique()
    assert np.allclose(labels.numpy(), np.sort((held - first.mean()) / first.std()))


def test_another_half_does_not_depend_on_rows_that_prompts_use():
    X, y = table()
    order = np.random.default_rng(0).permutation(60)
    spoilt = X.copy()
    spoilt[order[30]] = 1e3
    one, two = (TablePrompts(A, y, 5).sample(50) for A in (X, spoilt))
    same = (one.X == two.X).all(1)
    assert same.float().mean() > 0.9
    assert not same.all()


def test_whitened_by_all_rows_the_whole_table_is_white():
    X, y = table(500)
    source = TablePrompts(X, y, 499, whiten_with="all")
    drawn = source.sample(1)
    rows = torch.cat([drawn.X[0].mT, drawn.xq])
    assert torch.allclose(torch.cov(rows.mT), torch.eye(3, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(rows.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-10)


def test_a_read_out_is_linear_and_without_noise():
    X, _ = table()
    drawn = TablePrompts(X, None, 8, components=2).sample(30)
    assert drawn.X.shape == (30, 2, 8)
    assert torch.allclose((drawn.w[:, None] @ drawn.X)[:, 0], drawn.y, atol=1e-12)
    assert torch.allclose((drawn.w * drawn.xq).sum(-1), drawn.target, atol=1e-12)
    assert len(drawn.w.unique(dim=0)) == 30


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n": 0}, "n must"),
        ({"n": 30}, "at least 31 rows"),
        ({"components": 4}, "components"),
        ({"whiten_with": "half"}, "whiten_with"),
        ({"seed": -1}, "seed"),
        ({"y": np.zeros(3)}, "each of the 60 rows"),
        ({"y": np.ones(60)}, "same number"),
        ({"X": np.full((60, 3), np.nan)}, "X must"),
        ({"X": np.repeat(np.arange(60.0)[:, None], 3, 1)}, "components must be fewer"),
    ],
)
def test_bad_tables_are_refused_by_name(change, match, unchecked):
    X, y = table()
    given = {"X": X, "y": y, "n": 5} | change
    with pytest.raises(ValueError, match=match):
        TablePrompts(given.pop("X"), given.pop("y"), given.pop("n"), **given)
    with pytest.raises(ValueError, match="B must"):
        TablePrompts(X, y, 5).sample(0)
