"""Prototypes of one client, against closed forms and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from tests.prototypes.clients import clients

from surefoot.prototypes import GaussianRelease, PrototypeSet, extract_prototypes
from surefoot.prototypes._client import clusters
from surefoot.prototypes._client.clusters import clustered
from surefoot.prototypes.extraction import rows_of

Z, Y = clients(1)[0]
ALL = ("mean", "random", "cluster", "cluster_var", "gauss")


@pytest.mark.parametrize(
    ("ratio", "n", "m"), [(0.07, 100, 7), (0.1, 34, 4), (0.3, 1, 1), (1, 9, 9)]
)
def test_rows_of_a_class(ratio, n, m):
    assert rows_of(ratio, n) == m


def test_means_are_means_and_weights_are_counts():
    s = extract_prototypes(Z, Y, method="mean")
    for row, label, weight in zip(s.features, s.labels, s.weights, strict=True):
        own = Z[label == Y]
        torch.testing.assert_close(row, own.double().mean(0).float(), rtol=0, atol=1e-7)
        assert weight == len(own) == s.counts[int(label)]


def test_random_rows_are_records_in_their_order_and_weights_sum_to_the_class():
    s = extract_prototypes(Z, Y, method="random", ratio=0.3, seed=4)
    at = [int(torch.nonzero((row == Z).all(1))) for row in s.features]
    assert at == sorted(set(at))
    assert torch.equal(s.labels, Y[at])
    assert s.labels.tolist() != sorted(s.labels.tolist())
    again = extract_prototypes(Z, Y, method="random", ratio=0.3, seed=4)
    assert torch.equal(again.features, s.features)
    assert not torch.equal(
        extract_prototypes(Z, Y, method="random", ratio=0.3, seed=5).features, s.features
    )


def test_all_rows_come_back_bitwise():
    s = extract_prototypes(Z, Y, method="random", ratio=1)
    assert torch.equal(s.features, Z)
    assert torch.equal(s.labels, Y)


def test_centres_are_those_of_scikit_learn():
    own = Z[Y == 0].double().numpy()
    s = extract_prototypes(Z, Y, method="cluster", ratio=0.3, min_cluster=1)
    fitted = KMeans(rows_of(0.3, len(own)), n_init=1, random_state=0).fit(own)
    ours = s.features[s.labels == 0].numpy()
    np.testing.assert_allclose(ours, fitted.cluster_centers_, atol=1e-6)


def test_variance_is_residual_over_degrees_of_freedom():
    own = Z[Y == 1].double().numpy()
    s = extract_prototypes(Z, Y, method="cluster_var", ratio=0.2)
    centres = s.features[s.labels == 1].double().numpy()
    sizes = s.weights[s.labels == 1].numpy()
    assert sizes.min() >= 2
    # Sum over clusters of sum (z - c)^2 = sum z^2 - sum size c^2, whatever the assignment.
    residual = (own**2).sum(0) - (sizes[:, None] * centres**2).sum(0)
    np.testing.assert_allclose(
        s.variances[1].numpy(), residual / (len(own) - len(centres)), rtol=1e-4
    )


def test_as_many_clusters_as_records_leave_no_variance():
    found = clustered(Z[:5].double().numpy(), 5, 1, 0)
    assert (found.variance == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(1, 25), st.integers(0, 99))
def test_no_cluster_is_smaller_than_wished(n, least, m, seed):
    z = np.random.default_rng(seed).normal(size=(n, 3)).round(1)
    found = clustered(z, min(m, n), least, 0)
    assert found.sizes.sum() == n
    assert found.sizes.min() >= min(least, n)
    np.testing.assert_allclose(found.sizes @ found.centres, z.sum(0), atol=1e-9)


def test_many_records_are_clustered_in_mini_batches(monkeypatch):
    monkeypatch.setattr(clusters, "MANY", 20)
    monkeypatch.setattr(clusters, "KMeans", None)
    z = np.random.default_rng(0).normal(size=(60, 3))
    found = clustered(z, 6, 2, 0)
    assert found.sizes.min() >= 2
    np.testing.assert_allclose(found.sizes @ found.centres, z.sum(0), atol=1e-9)


def test_duplicates_give_no_more_centres_than_points():
    z = torch.eye(3).repeat(10, 1)
    s = extract_prototypes(z, torch.zeros(30, dtype=int), method="cluster", ratio=0.9)
    assert sorted(s.weights.tolist()) == [10, 10, 10]


@pytest.mark.parametrize("method", ALL)
def test_missing_classes_and_single_records(method):
    z, y = Z[:5], torch.tensor([7, 7, 3, 7, 7])
    if method == "random":
        s = extract_prototypes(z, y, method=method)
    else:
        with pytest.warns(UserWarning, match=r"classes \[3\] have one record"):
            s = extract_prototypes(z, y, method=method)
    assert s.counts == {3: 1, 7: 4}
    assert s.features.shape[1] == Z.shape[1]
    torch.testing.assert_close(s.features[s.labels == 3], z[2:3])
    assert s.weights[s.labels == 3].tolist() == [1]


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_dtypes(dtype, kept):
    assert extract_prototypes(Z.to(dtype), Y).features.dtype == kept


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    z = Z.clone()
    z[3, 2] = bad
    for dp in (None, GaussianRelease(4, 1e-5)):
        with pytest.raises(ValueError, match="feats must be finite"):
            extract_prototypes(z, Y, method="mean", dp=dp)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"method": "median"}, "method must be one of"),
        ({"ratio": 0}, "ratio must be"),
        ({"ratio": 1.1}, "ratio must be"),
        ({"min_cluster": 0}, "min_cluster must be"),
        ({"y": Y[:-1]}, "one class a record"),
        ({"y": Y - 1}, "at least 0"),
        ({"y": Y + 0.5}, "whole numbers"),
        ({"basis": np.eye(16)[:, :2]}, "basis is for"),
        ({"method": "gauss", "basis": np.ones((16, 2))}, "orthonormal"),
        ({"feats": Z[:, 0]}, "2 dimensions"),
    ],
)
def test_refusals(options, what):
    with pytest.raises(ValueError, match=what):
        extract_prototypes(**{"feats": Z, "y": Y, **options})


def test_gauss_has_the_second_moment_also_in_a_basis():
    s = extract_prototypes(Z, Y, method="gauss")
    torch.testing.assert_close(s.moment, (Z.double().T @ Z.double() / len(Z)).float())
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 3)))[0]
    low = extract_prototypes(Z.double(), Y, method="gauss", basis=basis)
    projected = Z.double() @ torch.as_tensor(basis)
    torch.testing.assert_close(low.moment, projected.T @ projected / len(Z))
    torch.testing.assert_close(
        low.features[0], (projected[Y == 0].mean(0)) @ torch.as_tensor(basis).T
    )


@pytest.mark.parametrize(
    "change",
    [
        {"features": torch.full((2, 3), float("nan"))},
        {"labels": torch.tensor([0, 5])},
        {"weights": torch.tensor([2.0, 2.0])},
        {"variances": {0: torch.ones(3)}},
        {"moment": torch.eye(3)},
        {"method": "cluster_var"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_set_that_contradicts_itself_is_refused(change):
    fields = {
        "features": torch.ones(2, 3), "labels": torch.tensor([0, 1]), "weights": torch.tensor([2.0, 3.0]),
        "method": "mean", "ratio": 0.1, "counts": {0: 2, 1: 3},
    }  # fmt: skip
    assert len(PrototypeSet(**fields)) == 2
    with pytest.raises(ValueError, match="must|belongs|has variances"):
        PrototypeSet(**{**fields, **change})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": float("nan")}, "seed"),
        ({"seed": "nonsense"}, "seed"),
        ({"encoder_id": True}, "encoder_id"),
        ({"dp": 4.0}, "dp must be a GaussianRelease"),
    ],
)
def test_arguments_that_a_method_does_not_use_are_checked_too(change, match, unchecked):
    with pytest.raises(ValueError, match=match):
        extract_prototypes(torch.ones(4, 2), [0, 0, 1, 1], method="mean", **change)
