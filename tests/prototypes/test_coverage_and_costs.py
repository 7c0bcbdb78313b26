"""The coverage bound, the audit of an upload, and the bytes of a round."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.prototypes.clients import CLASSES, D, clients, head

from surefoot import Verdict, certify
from surefoot.federated import wire_bytes
from surefoot.prototypes import (
    ResidualAdapter,
    ZeroShotHead,
    audit_membership,
    comm_cost,
    coverage,
    extract_prototypes,
)
from surefoot.prototypes.guarantee import coverage_bound

Z, Y = clients(1)[0]


def adapters(count, scale=1.0):
    for seed in range(count):
        a = ResidualAdapter(D, seed=seed)
        with torch.no_grad():
            for p in a.parameters():
                p.mul_(scale * 4 ** ((seed % 7 - 3) / 2))
        yield a


@pytest.mark.parametrize("count", [28, pytest.param(203, marks=pytest.mark.acceptance)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("method", ["mean", "cluster", "random"])
def test_no_adapter_violates_the_bound(method, normalize, count):
    c = coverage(Z, Y, extract_prototypes(Z, Y, method=method, ratio=0.3))
    record = c.record(adapters(count), head(scale=0.5, normalize=normalize))
    gap, bound = (record.curves(q).values[0] for q in ("risk gap", "coverage bound"))
    assert len(gap) == count
    assert (gap <= bound).all()
    assert certify(record, coverage_bound()).verdict is Verdict.KEPT


def test_the_constant_is_reached_by_a_linear_model():
    """One class pair, no adapter, small logits: the gap over the bound tends to 1."""
    u = torch.tensor([[1e-4, 0.0], [-1e-4, 0.0]], dtype=torch.float64)
    z = u[:1] + torch.tensor([[1e-6, 0.0]], dtype=torch.float64)
    flat = ResidualAdapter(2, 1, dtype=torch.float64)
    with torch.no_grad():
        for p in flat.parameters():
            p.zero_()
    two = ZeroShotHead(np.array([[1.0, 0.0], [-1.0, 0.0]]), 1.0, normalize=False)
    protos = extract_prototypes(u[:1], [0], method="random", ratio=1)
    c = coverage(z, [0], protos)
    # |grad| = |(p - e_0) H| = 1 where p = (1/2, 1/2); Lambda = sqrt(2) |H|_2 = 2.
    assert c.bound(flat, two) == pytest.approx(2 * 1e-6, rel=1e-6)
    assert c.gap(flat, two) == pytest.approx(1e-6, rel=1e-3)


def test_distance_and_shares_by_hand():
    z, y = torch.tensor([[0.0], [1.0], [5.0], [9.0]]), torch.tensor([0, 0, 0, 1])
    protos = extract_prototypes(z[[1, 2, 3]], y[[1, 2, 3]], method="random", ratio=1)
    c = coverage(z, y, protos)
    assert c.distance == 0.25
    assert c.shares.tolist() == [0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="y must be below 2"):
        coverage(z, y + 1, protos)
    with pytest.raises(ValueError, match=r"no prototype of classes \[0\]"):
        coverage(z, y, extract_prototypes(z[3:], y[3:], method="random"))


def test_a_prototype_at_the_origin_gives_no_bound_and_a_loose_one_is_vacuous():
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    protos = extract_prototypes(z[:1], [0], method="random", ratio=1)
    c = coverage(z, [0, 0], protos)
    two = ZeroShotHead(np.eye(2), 3.0)
    assert c.bound(ResidualAdapter(2), two) == math.inf
    assert c.certificates(ResidualAdapter(2), two)[0].verdict is Verdict.VACUOUS
    assert c.trivial(two) == pytest.approx(6 + math.log(2))
    loose = coverage(Z, Y, extract_prototypes(Z, Y, method="mean"))
    assert (
        loose.certificates(ResidualAdapter(D, seed=0), head(scale=50))[0].verdict is Verdict.VACUOUS
    )


def test_weights_of_one_each_break_the_bound(monkeypatch):
    """The planted fault: prototypes counted alike, however many records each stands for."""
    z = torch.tensor([[1.0, 0.0]] * 9 + [[-1.0, 0.0]])
    protos = extract_prototypes(z[[0, 9]], [0, 0], method="random", ratio=1)
    c = coverage(z, [0] * 10, protos)
    object.__setattr__(c, "shares", torch.tensor([0.5, 0.5], dtype=torch.float64))
    two = ZeroShotHead(np.array([[1.0, 0.0], [-1.0, 0.0]]), 1.0)
    assert (
        certify(c.record(ResidualAdapter(2, seed=0), two), coverage_bound()).verdict
        is Verdict.BROKEN
    )


def test_audit_is_the_area_under_the_curve_of_scikit_learn():
    protos = extract_prototypes(Z, Y, method="cluster", ratio=0.5, min_cluster=1)
    others, y_others = clients(2)[1]

    def score(z, y):
        return [
            -float((protos.features[protos.labels == c] - x).norm(dim=1).min())
            for x, c in zip(z, y, strict=True)
        ]

    truth = [1] * len(Z) + [0] * len(others)
    expected = roc_auc_score(truth, score(Z, Y) + score(others, y_others))
    found = audit_membership(protos, Z, Y, others, y_others)
    assert found.auc == pytest.approx(expected, abs=1e-9)
    assert found.flagged


def test_raw_records_are_seen_and_the_default_sends_none():
    others, y_others = clients(2)[1]
    raw = extract_prototypes(Z, Y, method="random", ratio=0.3)
    assert audit_membership(raw, Z, Y, others, y_others).raw_fraction == 1
    single = extract_prototypes(Z, Y, method="cluster", ratio=0.5, min_cluster=1)
    assert audit_membership(single, Z, Y, others, y_others).raw_fraction > 0
    default = extract_prototypes(Z, Y, ratio=0.5)
    assert audit_membership(default, Z, Y, others, y_others).raw_fraction == 0
    mean = audit_membership(
        extract_prototypes(Z, Y, method="mean"), others, y_others, others, y_others
    )
    assert mean.auc == 0.5
    assert not mean.flagged
    extra = audit_membership(
        default, Z, Y, others, torch.full_like(y_others, 9).index_fill_(0, torch.tensor([0]), 1)
    )
    assert extra.skipped == len(others) - 1
    with pytest.raises(ValueError, match="others must hold"):
        audit_membership(default, Z, Y, others, torch.full_like(y_others, 9))


def test_bytes_of_the_paper():
    cost = comm_cost([50] * 6, 512)
    assert (cost.up + cost.down) / 2**20 == pytest.approx(3.5882, abs=5e-5)
    adapter = 512**2 // 2
    assert cost.break_even == (cost.up + cost.down) / (8 * 6 * adapter)
    assert comm_cost([50] * 6, 512, head_rows=50).down - cost.down == 6 * 4 * 50 * 512
    assert comm_cost([3], 10, "cluster_var", 2).up == 3 * (4 * 10 + 12) + 2 * 4 * 10
    with pytest.raises(ValueError, match="give classes"):
        comm_cost([3], 10, "cluster_var")
    with pytest.raises(ValueError, match="one number a client"):
        comm_cost([3, 4], 10, classes=[1])


@pytest.mark.parametrize("method", ["mean", "cluster", "random", "cluster_var"])
def test_bytes_are_those_of_the_arrays(method):
    z = torch.randn(200, 384, generator=torch.Generator().manual_seed(0))
    s = extract_prototypes(z, torch.arange(200) % CLASSES, method=method)
    cost = comm_cost([len(s)], 384, method, CLASSES)
    assert s.nbytes == cost.up + cost.beside
    assert abs(cost.up / s.nbytes - 1) < 0.02


def test_bytes_on_the_wire_are_the_closed_form_within_two_percent(measured):
    """8.8, as counted in the arrays of a record; MiB of 6 clients, 50 classes, d 512."""
    g = torch.Generator().manual_seed(0)
    for method, ratio in (("mean", 0.1), ("cluster_var", 0.1), ("random", 0.3)):
        z, y = torch.randn(500, 512, generator=g), torch.arange(500) % 50
        found = extract_prototypes(z, y, method, ratio)
        cost = comm_cost([len(found)], 512, method, [50])
        counted = wire_bytes(found.to_record()["arrays"])
        assert abs(counted / (cost.up + cost.beside) - 1) <= 0.02
        measured(
            "8.8 wire / closed form",
            "within 2 %",
            f"{method}: {counted / (cost.up + cost.beside):.4f}",
        )
    cost = comm_cost([50] * 6, 512, "mean", 50)
    assert (cost.up + cost.down) / 2**20 == pytest.approx(3.5882, abs=5e-5)
