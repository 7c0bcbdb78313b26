"""The server's training: the paper's loop, the certified one, pooled training, drawn features."""

import math

import numpy as np
import pytest
import torch
from tests.prototypes.clients import CLASSES, D, clients, head

from surefoot import Verdict
from surefoot.prototypes import (
    GaussianRelease,
    ResidualAdapter,
    accuracy_matrix,
    additive_model,
    compare_with_pooled,
    extract_prototypes,
    train_global_adapter,
)
from surefoot.prototypes._server import armijo
from surefoot.prototypes._server.adamw import Schedule
from surefoot.prototypes._server.drawing import training_features

FEW = {"epochs": 4, "early_stop": False}


def sets(method="mean", count=3, dtype=torch.float32, dp=None, **options):
    return [
        extract_prototypes(z, y, method=method, dp=dp, **options)
        for z, y in clients(count, dtype=dtype)
    ]


def pooled(dtype=torch.float32):
    return tuple(torch.cat(parts) for parts in zip(*clients(dtype=dtype), strict=True))


def verdicts(report):
    return {c.quantity: c.verdict for c in report.certificates()}


@pytest.mark.parametrize("options", [FEW, {**FEW, "authors_batches": True}, {"steps": 30}])
def test_all_records_are_pooled_training_bitwise(options):
    _, report = compare_with_pooled(sets("random", ratio=1), *pooled(), head(), seed=3, **options)
    assert verdicts(report)["weights that differ"] is Verdict.KEPT


def test_rows_in_another_order_break_the_identity():
    z, y = pooled()
    _, report = compare_with_pooled(sets("random", ratio=1), z.flip(0), y.flip(0), head(), **FEW)
    assert verdicts(report)["weights that differ"] is Verdict.BROKEN
    _, report = compare_with_pooled(sets("random", ratio=0.5), z, y, head(), **FEW)
    assert verdicts(report)["weights that differ"] is Verdict.NOT_PROMISED


def test_the_authors_loop_by_hand():
    """Fixed batches, no last partial one, warm-up and cosine, AdamW and clipping as torch has them."""
    adapter, report = train_global_adapter(
        sets("random", ratio=1), head(), epochs=12, authors_batches=True, early_stop=False, seed=1
    )
    z, y = pooled()
    plain = ResidualAdapter(D, seed=1)
    weights = [plain.down.weight, plain.up.weight]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    from surefoot._numerics.seeds import generator_for

    order = torch.randperm(len(z), generator=generator_for("server batches", 1))
    rates = [(e + 1) / 10 for e in range(10)] + [1, 0.5]
    losses = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = 1e-3 * rate
        for i in range(0, len(z) - 9, 10):
            rows = order[i : i + 10]
            optimizer.zero_grad()
            u = z[rows] + torch.relu(torch.relu(z[rows] @ weights[0].T) @ weights[1].T)
            u = u / u.norm(dim=1, keepdim=True)
            loss = torch.nn.functional.cross_entropy(u @ head().weight.T, y[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
    assert len(report.losses) == 12 * (len(z) // 10)
    np.testing.assert_allclose(report.losses, losses, rtol=1e-4)
    torch.testing.assert_close(adapter.down.weight, weights[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("rows", "authors", "sizes"),
    [
        (25, False, [10, 10, 5]),
        (21, False, [10, 10]),
        (25, True, [10, 10]),
        (1, False, [1]),
        (7, True, [7]),
    ],
)
def test_last_batches(rows, authors, sizes):
    schedule = Schedule(1e-3, 1, 10, None, authors, False, 0)
    batches = schedule.batches(rows, torch.Generator().manual_seed(0))
    assert [len(b) for b in batches] == sizes
    assert len(set(torch.cat(batches).tolist())) == sum(sizes)


def test_it_stops_by_the_authors_rule_and_not_where_steps_are_given():
    z, y = torch.eye(D)[:CLASSES], torch.arange(CLASSES)
    with pytest.warns(UserWarning, match="one record each"):
        easy = [extract_prototypes(z, y, method="mean")]
    top = torch.nn.functional.normalize(torch.eye(D)[:CLASSES])
    from surefoot.prototypes import ZeroShotHead

    certain = ZeroShotHead(top, scale=50)
    assert len(train_global_adapter(easy, certain)[1].losses) == 21
    assert len(train_global_adapter(easy, certain, steps=40)[1].losses) == 40


def test_it_learns_and_is_repeatable():
    first, report = train_global_adapter(sets("cluster_var"), head(), steps=150)
    again, _ = train_global_adapter(sets("cluster_var"), head(), steps=150)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    zero_shot = accuracy_matrix(torch.nn.Identity(), clients(), head())
    assert accuracy_matrix(first, clients(), head()).ind > zero_shot.ind
    assert report.rows == 2 * 3 * 48
    assert verdicts(report)["bytes up"] is Verdict.KEPT
    assert verdicts(report)["loss"] is Verdict.NOT_PROMISED


def test_the_certified_run_keeps_its_certificates():
    adapter, report = train_global_adapter(
        sets("random", ratio=0.5, dtype=torch.float64), head(torch.float64), lr=1.0, epochs=60,
        solver="certified",
    )  # fmt: skip
    f, g2, eta = (np.array(v) for v in (report.losses, report.grad_norms_sq, report.step_sizes))
    assert len(f) == len(g2) + 1 == len(eta) + 1 == 61
    assert (f[1:] <= f[:-1] - eta / 2 * g2).all()
    assert g2.min() <= report.bound <= 2 * f[0] / eta.sum()
    found = verdicts(report)
    assert found["loss"] is Verdict.KEPT
    assert found["least gradient norm squared"] is Verdict.KEPT
    # The last loss and gradient by hand.
    rows, labels = training_features(sets("random", ratio=0.5, dtype=torch.float64), None, True, 0)
    loss = torch.nn.functional.cross_entropy(head(torch.float64)(adapter(rows)), labels)
    assert float(loss.detach()) == pytest.approx(f[-1], rel=1e-12)


def test_a_loss_that_did_not_fall_enough_breaks_descent():
    _, report = train_global_adapter(
        sets("mean", dtype=torch.float64), head(torch.float64), epochs=5, solver="certified"
    )
    enough = report.losses[1] - report.step_sizes[1] / 2 * report.grad_norms_sq[1]
    report.record.append(0, 2, loss=enough + 1e-9)
    assert verdicts(report)["loss"] is Verdict.BROKEN
    report.record.append(0, 5, **{"least gradient norm squared": report.bound + 1e-6})
    assert verdicts(report)["least gradient norm squared"] is Verdict.BROKEN


def test_where_no_step_descends_it_says_stalled_and_claims_nothing(monkeypatch):
    whole = armijo._step
    monkeypatch.setattr(armijo, "_step", lambda p, here, g, eta: whole(p, here, g, -eta))
    adapter, report = train_global_adapter(
        sets("mean", dtype=torch.float64), head(torch.float64), epochs=5, solver="certified"
    )
    assert report.stop == "stalled"
    assert (len(report.losses), report.step_sizes, report.bound) == (1, [], math.inf)
    start = ResidualAdapter(D, seed=0, dtype=torch.float64)
    assert torch.equal(adapter.up.weight, start.up.weight)


@pytest.mark.parametrize("method", ["mean", "cluster", "random", "gauss", "cluster_var"])
def test_bytes_are_as_promised_for_every_method(method):
    _, report = train_global_adapter(sets(method), head(), steps=1)
    assert verdicts(report)["bytes up"] is Verdict.KEPT
    report.record.append(0, 0, **{"bytes up": sum(s.nbytes for s in sets(method)) + 4})
    assert verdicts(report)["bytes up"] is Verdict.BROKEN


def test_drawn_features_have_the_moments_they_should():
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 2.0, 0.5]
    )
    y = torch.zeros(4000, dtype=torch.int64)
    for method in ("gauss", "cluster_var"):
        s = extract_prototypes(z + 1, y, method=method, ratio=0.0003)
        rows, labels = training_features([s], None, True, 0)
        assert labels.tolist() == [0] * 8000
        torch.testing.assert_close(rows.mean(0), (z + 1).mean(0), atol=0.1, rtol=0)
        torch.testing.assert_close(rows.std(0), z.std(0), atol=0.1, rtol=0)


def by_hand(M, n, sigma2, C, residual):
    """The formulas of the specification for clients that all have all classes, one loop each."""
    K, k, d = M.shape
    w = n**2 / (n**2).sum(0)
    g = np.array([sum(w[i, c] * M[i, c] for i in range(K)) for c in range(k)])
    o = np.array([np.mean([M[i, c] - g[c] for c in range(k)], axis=0) for i in range(K)])
    R = np.array([[M[i, c] - g[c] - o[i] for c in range(k)] for i in range(K)])
    a, energies = [], []
    for i in range(K):
        V = d * sigma2[i].mean() / k * (1 - 1 / K)
        e = max(o[i] @ o[i] - V, 0)
        a.append(1.0 if V == 0 else e / (e + V))
        energies.append(e)
    V = d * sigma2.mean() * (1 - 1 / K) * (1 - 1 / k)
    e = max(np.mean([[r @ r for r in row] for row in R]) - V, 0)
    b = (1.0 if V == 0 else e / (e + V)) * residual
    q = np.mean(
        [max(g[c] @ g[c] - d * (w[:, c] ** 2 @ sigma2[:, c]), 0.02 * C**2) for c in range(k)]
    )
    q += np.mean(np.array(a) * energies) + b * e
    mu = np.array([[g[c] + a[i] * o[i] + b * R[i, c] for c in range(k)] for i in range(K)])
    return mu, max(C**2 - q, 0.05 * C**2) / d


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dp", [None, GaussianRelease(8, 1e-5), GaussianRelease(40, 1e-5, 0.8)])
def test_the_additive_model_by_hand(dp, residual):
    given = sets("mean", dtype=torch.float64, dp=dp)
    M = np.stack([s.features.numpy() for s in given])
    n = np.array([[s.counts[c] for c in range(CLASSES)] for s in given], dtype=float)
    sigma2 = np.array([[0.0 if dp is None else dp.sigma(int(v)) ** 2 for v in row] for row in n])
    mu, variance = by_hand(M, n, sigma2, 1.0 if dp is None else dp.clip, residual)
    centres, found = additive_model(given, residual)
    np.testing.assert_allclose(np.stack(centres), mu, rtol=1e-9, atol=1e-12)
    assert found == pytest.approx(variance, rel=1e-9)
    rows, labels = training_features(given, "additive", residual, 0)
    assert len(rows) == 2 * n.sum()
    torch.testing.assert_close(
        rows.norm(dim=1),
        torch.full((len(rows),), 1.0 if dp is None else dp.clip, dtype=torch.float64),
    )
    assert torch.equal(labels.bincount(), 2 * torch.as_tensor(n.sum(0)).long())


def test_without_noise_the_additive_centres_are_the_means():
    given = sets("mean")
    for s, own in zip(given, additive_model(given)[0], strict=True):
        torch.testing.assert_close(own, s.features, atol=1e-6, rtol=0)


def test_a_missing_class_is_left_out_of_every_mean():
    (z, y), *_ = clients()
    given = [extract_prototypes(z[y != 2], y[y != 2], method="mean"), *sets("mean")[1:]]
    centres, variance = additive_model(given)
    assert len(centres[0]) == CLASSES - 1
    torch.testing.assert_close(centres[0], given[0].features, atol=1e-6, rtol=0)
    assert variance > 0
    train_global_adapter(given, head(), steps=3, sampler="additive")


def test_what_the_additive_model_refuses():
    with pytest.raises(ValueError, match='method "mean"'):
        train_global_adapter(sets("cluster"), head(), sampler="additive")
    with pytest.raises(ValueError, match="one clip"):
        additive_model([sets(dp=GaussianRelease(4, 1e-5, c))[0] for c in (1, 2)])
    long = [extract_prototypes(5 * z, y, method="mean") for z, y in clients()]
    with pytest.raises(ValueError, match="normalise"):
        additive_model(long)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"solver": "lbfgs"}, "solver must be"),
        ({"sampler": "subtractive"}, "sampler must be"),
        ({"lr": 0}, "lr must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"steps": 0}, "steps must be"),
        ({"residual": False}, "additive sampler"),
        ({"solver": "certified", "steps": 5}, "certified"),
        ({"solver": "certified", "authors_batches": True}, "certified"),
    ],
)
def test_options_that_are_refused(options, what):
    with pytest.raises(ValueError, match=what):
        train_global_adapter(sets(), head(), **options)


def test_sets_that_do_not_belong_together_are_refused():
    mixed = [*sets(encoder_id="a")[:1], *sets(encoder_id="b")[1:]]
    with pytest.raises(ValueError, match="one encoder"):
        train_global_adapter(mixed, head())
    with pytest.raises(ValueError, match="one dtype"):
        train_global_adapter([sets()[0], sets(dtype=torch.float64)[0]], head())
    z, y = clients(1)[0]
    other = extract_prototypes(z[:, :5], y, method="mean")
    with pytest.raises(ValueError, match="one dimension"):
        train_global_adapter([sets()[0], other], head())
    with pytest.raises(ValueError, match="head must be for embeddings of 5"):
        train_global_adapter([other], head())
    with pytest.raises(ValueError, match="head has classes 0 to 3"):
        train_global_adapter([extract_prototypes(z, y + 3, method="mean")], head())
    with pytest.raises(ValueError, match="at least one"):
        train_global_adapter([], head())


def test_a_class_that_nobody_has_is_named():
    z, y = clients(1)[0]
    with pytest.warns(UserWarning, match=r"classes \[1\]"):
        _, report = train_global_adapter(
            [extract_prototypes(z[y != 1], y[y != 1])], head(), steps=2
        )
    assert report.classes_without_prototypes == [1]
