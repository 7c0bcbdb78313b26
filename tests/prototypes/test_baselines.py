"""Federated baselines against loops written out by hand, and FedPFT against closed forms."""

import numpy as np
import pytest
import torch
from tests.prototypes.clients import CLASSES, D, clients, head
from torch import nn

from surefoot._problems.paired import paired
from surefoot.prototypes import (
    ResidualAdapter,
    accuracy_matrix,
    extract_prototypes,
    train_global_adapter,
)
from surefoot.prototypes._baselines.objectives import BiasElimination, contrastive, proximal
from surefoot.prototypes._baselines.plans import plan_of
from surefoot.prototypes._baselines.stack import Batch, cross_entropy, stacked, train, unstacked
from surefoot.prototypes.baselines import federate, train_pooled, train_pooled_many
from surefoot.prototypes.mixtures import fedpft, sample_mixtures
from surefoot.prototypes.splits import split_domains

SENT = 4 * D * (D // 4) * 2


@pytest.fixture(scope="module")
def three():
    """Clients of different sizes; the last batch of the second would hold one record."""
    a, b, c = clients(3)
    return [(a[0][:40], a[1][:40]), (b[0][:33], b[1][:33]), (c[0][:9], c[1][:9])]


def weights(baseline):
    return [p.detach() for a in baseline.adapters() for p in a.parameters()]


def fitted_by_hand(adapter, z, y, batches, lr, extra=lambda adapter, z, y: 0.0):
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=lr)
    for rows in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head()(adapter(z[rows])), y[rows])
        (loss + extra(adapter, z[rows], y[rows])).backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
    return adapter


def batches_of(plan, client):
    return [rows[rows >= 0] for rows in plan[:, client] if (rows >= 0).any()]


def plan_like_federate(three, epochs, r=0):
    from surefoot._numerics.seeds import generator_for

    sizes = [len(z) for z, _ in three]
    return plan_of(sizes, 8, [generator_for("clients", 0, i, r) for i in range(3)], epochs=epochs)


@pytest.mark.parametrize(
    ("method", "mu", "extra"),
    [
        ("fedavg", 1.0, lambda start: lambda a, z, y: 0.0),
        (
            "fedprox", 3.0,
            lambda start: lambda a, z, y: 1.5 * sum(
                (p - q.detach()).square().sum()
                for p, q in zip(a.parameters(), start.parameters(), strict=True)
            ),
        ),
    ],
)  # fmt: skip
def test_two_rounds_of_averaging_by_hand(three, method, mu, extra):
    z, y = torch.cat([z for z, _ in three]), torch.cat([y for _, y in three])
    model = ResidualAdapter(D, seed=0)
    for r in range(2):
        plan = plan_like_federate(three, 2, r)
        found = []
        for i in range(3):
            copy = ResidualAdapter(D, seed=0)
            copy.load_state_dict(model.state_dict())
            found.append(fitted_by_hand(copy, z, y, batches_of(plan, i), 1e-2, extra(model)))
        total = sum(len(c[0]) for c in three)
        average = {
            k: sum(len(c[0]) / total * f.state_dict()[k] for c, f in zip(three, found, strict=True))
            for k in model.state_dict()
        }
        model.load_state_dict(average)
    run = federate(method, three, head(), 2, 1e-2, 2, mu, batch_size=8)
    assert [b.done for b in run] == [1, 2]
    assert len(run[1].adapters()) == 1
    for ours, theirs in zip(weights(run[1]), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=2e-5)
    assert run[1].bytes_up == run[1].bytes_down == 2 * 3 * SENT
    values = run[1].accuracy(three).values
    assert np.array_equal(values, accuracy_matrix(run[1].adapters()[0], three, head()).values)


def test_plans_hold_every_record_once_an_epoch_but_no_batch_of_one():
    plan = plan_of([5, 9], 4, [torch.Generator(), torch.Generator()], epochs=2)
    assert [len(b) for b in batches_of(plan, 0)] == [4, 4]
    assert [len(b) for b in batches_of(plan, 1)] == [4, 4, 4, 4]
    full = plan_of([6], 4, [torch.Generator()], epochs=1)
    assert sorted(full[full >= 0].tolist()) == list(range(6))
    assert plan_of([6, 6], 4, [torch.Generator(), torch.Generator()], steps=5).shape == (5, 2, 4)


def test_pooled_training_is_the_servers(three):
    sets = [extract_prototypes(z, y, "random", 1.0) for z, y in three]
    adapter, _ = train_global_adapter(sets, head(), lr=3e-3, steps=30, seed=4)
    z, y = torch.cat([z for z, _ in three]), torch.cat([y for _, y in three])
    early, late = train_pooled(z, y, head(), 3e-3, (10, 30), seed=4)
    for ours, theirs in zip(weights(late), adapter.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-5)
    assert (early.done, late.done) == (10, 30)
    many = train_pooled_many([three[0], (z, y)], head(), 3e-3, (10, 30), seed=4)
    torch.testing.assert_close(weights(many[1][0])[0], weights(early)[0], rtol=1e-3, atol=1e-5)


def test_gradients_whose_memory_lies_crosswise_are_read_as_they_are():
    """The weights' gradients are transposed products; a fused optimizer that ignores it goes astray."""
    z, y = clients(1)[0]
    start = stacked([ResidualAdapter(D, seed=0)])
    plan = plan_of([len(z)], 8, [torch.Generator().manual_seed(0)], epochs=3)

    def loss(stack, batch):
        hidden = torch.relu(stack[0].mT @ batch.z.mT)
        u = batch.z + torch.relu(stack[1].mT @ hidden).mT
        each = nn.functional.cross_entropy(head()(u).flatten(0, 1), batch.y.flatten())
        return each[None]

    found = unstacked(train(start, z, y, plan, 1e-2, loss)[len(plan)])[0]
    expected = fitted_by_hand(ResidualAdapter(D, seed=0), z, y, batches_of(plan, 0), 1e-2)
    torch.testing.assert_close(found.up.weight, expected.up.weight, rtol=1e-3, atol=2e-5)


def test_terms_without_weight_leave_fedavg_and_heavy_ones_hold_fast(three):
    plain = federate("fedavg", three, head(), 2, 1e-2, batch_size=8)[1]
    for method in ("fedprox", "moon"):
        same = federate(method, three, head(), 2, 1e-2, mu=0.0, batch_size=8)[1]
        torch.testing.assert_close(weights(same)[0], weights(plain)[0], rtol=1e-3, atol=1e-5)
    proto = federate("fedproto", three, head(), 2, 1e-2, authors_proto=True, batch_size=8)[1]
    local = federate("local", three, head(), 2, 1e-2, batch_size=8)[1]
    assert torch.equal(weights(proto)[0], weights(local)[0])
    start = ResidualAdapter(D, seed=0).up.weight

    def moved(mu):
        run = federate("fedprox", three, head(), 1, 1e-3, 3, mu=mu, batch_size=8)[0]
        return float((weights(run)[1] - start.detach()).norm())

    assert moved(1e4) < 0.5 * moved(0.0)


def test_personal_methods_end_with_a_model_a_client(three):
    for method in ("local", "ditto", "fedproto", "dbe"):
        last = federate(method, three, head(), 2, 1e-2, batch_size=8)[1]
        assert last.personal
        assert len(last.adapters()) == 3
        assert last.accuracy(three).values.shape == (3, 3)
    assert federate("local", three, head())[0].bytes_up == 0
    near = federate("ditto", three, head(), 1, 1e-3, mu=0.0, batch_size=8)[0].adapters()
    assert not torch.equal(near[0].up.weight, near[1].up.weight)


def test_fedproto_answers_with_the_nearest_mean_over_clients(three):
    means = torch.zeros(CLASSES, D)
    for c in range(CLASSES):
        of = [z[y == c].mean(0) for z, y in three if (y == c).any()]
        means[c] = torch.stack(of).mean(0)
    run = federate("fedproto", three, head(), 1, 1e-2, batch_size=8)[0]
    values = run.accuracy(three).values
    for i, adapter in enumerate(run.adapters()):
        for j, (z, y) in enumerate(three):
            nearest = torch.cdist(adapter(z), means).argmin(1)
            assert values[i, j] == pytest.approx(float((nearest == y).double().mean()))
    pairs = sum(len(y.unique()) for _, y in three)
    assert run.bytes_up == pairs * (4 * D + 8)
    assert run.bytes_down == 3 * CLASSES * 4 * D


def test_moons_contrast_by_hand():
    z, y = (t[:6][None] for t in clients(1)[0])
    now, anchor, last = (ResidualAdapter(D, seed=s) for s in (1, 2, 3))
    batch = Batch(z, y, torch.full((1, 6), 1 / 6))
    found = contrastive(head(), stacked([anchor]), stacked([last]), 2.0, 0.5)(stacked([now]), batch)
    u, a, b = now(z[0]), anchor(z[0]), last(z[0])
    near, far = (torch.cosine_similarity(u, v, dim=1).div(0.5).exp() for v in (a, b))
    expected = nn.functional.cross_entropy(head()(u), y[0]) - 2 * (near / (near + far)).log().mean()
    torch.testing.assert_close(found[0], expected)


def test_dbe_by_hand():
    z, y = (t[:6][None] for t in clients(1)[0])
    adapter, vector = ResidualAdapter(D, seed=1), torch.randn(1, D)
    running, common = torch.randn(1, D), torch.randn(D)
    rule = BiasElimination(head(), common, running, 0.7, 0.2)
    batch = Batch(z, y, torch.full((1, 6), 1 / 6))
    found = rule([*stacked([adapter]), vector], batch)
    u = adapter(z[0])
    mean = 0.8 * running[0] + 0.2 * u.mean(0)
    expected = nn.functional.cross_entropy(head()(u + vector[0]), y[0])
    expected = expected + 0.7 * (mean - common).square().mean() / 2
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(rule.running[0], mean.detach())


def test_the_distance_of_fedprox_by_hand():
    z, y = (t[:6][None] for t in clients(1)[0])
    now, anchor = ResidualAdapter(D, seed=1), ResidualAdapter(D, seed=2)
    batch = Batch(z, y, torch.full((1, 6), 1 / 6))
    found = proximal(head(), stacked([anchor]), 0.6)(stacked([now]), batch)
    pairs = zip(now.parameters(), anchor.parameters(), strict=True)
    away = sum((p - q).square().sum() for p, q in pairs)
    torch.testing.assert_close(
        found[0], nn.functional.cross_entropy(head()(now(z[0])), y[0]) + 0.3 * away
    )


def test_step_sizes_may_follow_the_round(three):
    seen = []
    federate("fedavg", three, head(), 3, lambda r: seen.append(r) or 1e-3)
    assert seen == [0, 1, 2]
    slow = federate("fedavg", three, head(), 1, lambda r: 1e-4)[0]
    assert torch.equal(weights(slow)[0], weights(federate("fedavg", three, head(), 1, 1e-4)[0])[0])


def test_fedpft_with_one_component_is_mean_and_variance(three):
    upload = fedpft(*three[0])
    z, y = three[0]
    for label, mixture in upload.items():
        own = z[y == label].double()
        torch.testing.assert_close(mixture.means[0].double(), own.mean(0))
        torch.testing.assert_close(
            mixture.variances[0].double(), own.var(0, correction=0), rtol=1e-4, atol=1e-7
        )
        assert mixture.count == len(own)
        assert mixture.nbytes == 8 * D + 4 + 16
    features, labels = sample_mixtures([upload], per_record=500)
    assert len(features) == 500 * len(y)
    for label, mixture in upload.items():
        drawn = features[labels == label]
        error = 5 * (mixture.variances[0] / len(drawn)).sqrt() + 1e-6
        assert bool(((drawn.mean(0) - mixture.means[0]).abs() < error).all())
        assert len(drawn) == 500 * mixture.count


def test_fedpft_with_two_components_finds_two_clouds():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(60, 3, generator=g) * 0.1
    z[:20] += 5
    found = fedpft(z, torch.zeros(60, dtype=torch.int64), components=2)[0]
    assert sorted(found.weights.tolist()) == pytest.approx([1 / 3, 2 / 3])
    assert sorted(found.means[:, 0].tolist()) == pytest.approx([0, 5], abs=0.1)
    alone = fedpft(z[:1].repeat(3, 1), torch.tensor([0, 0, 1]), components=2)
    assert alone[0].means.shape == (1, 3)
    assert float(alone[1].variances.sum()) == 0


def test_splits_are_disjoint_stratified_and_repeatable():
    z = torch.arange(200.0)[:, None].repeat(1, 2)
    labels, domains = np.tile([0, 1], 100), np.repeat([0, 1], 100)
    found = split_domains(z, labels, domains, ("a", "b"), seed=3)
    for i, domain in enumerate(found):
        parts = [set(part[0][:, 0].tolist()) for part in (domain.train, domain.val, domain.test)]
        assert [len(p) for p in parts] == [56, 14, 30]
        assert set.union(*parts) == set(range(100 * i, 100 * i + 100))
        assert all(float(part[1].double().mean()) == 0.5 for part in (domain.train, domain.test))
    again = split_domains(z, labels, domains, ("a", "b"), seed=3)
    assert torch.equal(found[0].train[0], again[0].train[0])
    with pytest.raises(ValueError, match="domain 'b' must have at least 4 records"):
        split_domains(z[:103], labels[:103], domains[:103], ("a", "b"))


def test_corrected_intervals_of_overlapping_splits():
    values = np.array([1.0, 2.0, 3.0])
    mean, plain, corrected = paired(values, 0.5)
    assert mean == 2
    assert plain == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert corrected == pytest.approx(4.302653 * (1 / 3 + 0.5) ** 0.5, rel=1e-6)
    assert np.isnan(paired(values[:1], 0.5)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fedsgd"}, "method"),
        ({"rounds": 0}, "rounds"),
        ({"lr": 0.0}, "lr"),
        ({"lr": lambda r: float("nan")}, "lr"),
        ({"local_epochs": 0}, "local_epochs"),
        ({"mu": -1.0}, "mu"),
        ({"tau": 0.0}, "tau"),
        ({"momentum": 2.0}, "momentum"),
        ({"batch_size": 0}, "batch_size"),
        ({"clients": []}, "clients"),
    ],
)
def test_bad_settings_of_a_federation(three, options, message):
    given = {"method": "fedavg", "clients": three, "head": head()} | options
    with pytest.raises(ValueError, match=message):
        federate(**given)


def test_bad_records_and_mixtures(three):
    wrong = [(torch.full((4, D), float("nan")), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(ValueError, match="feats must be finite"):
        federate("fedavg", wrong, head())
    with pytest.raises(ValueError, match="below 4"):
        train_pooled(three[0][0], three[0][1] + 4, head())
    with pytest.raises(ValueError, match="steps"):
        train_pooled(*three[0], head(), steps=())
    with pytest.raises(ValueError, match="components"):
        fedpft(*three[0], components=0)
    with pytest.raises(ValueError, match="uploads"):
        sample_mixtures([])


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_in_closed_form_are_autograds(normalize):
    g = torch.Generator().manual_seed(0)
    adapters = [ResidualAdapter(D, seed=i, dtype=torch.float64) for i in range(3)]
    leaves = [w.requires_grad_() for w in stacked(adapters)]
    z = torch.randn(3, 5, D, generator=g, dtype=torch.float64)
    z[0, 0] = 0  # u = 0 has logits 0 and no gradient beyond the layers
    y = torch.randint(0, CLASSES, (3, 5), generator=g)
    weight = torch.full((3, 5), 0.2, dtype=torch.float64)
    weight[1, 3:] = 0
    objective = cross_entropy(head(torch.float64, normalize=normalize))
    batch = Batch(z, y, weight)
    wanted = torch.autograd.grad(objective(leaves, batch).sum(), leaves)
    for found, right in zip(objective.gradients(leaves, batch), wanted, strict=True):
        assert found.is_contiguous()
        torch.testing.assert_close(found, right)


def test_a_model_that_diverged_has_no_accuracy(three):
    """The largest of NaNs is the first: that would be an accuracy too."""
    (found,) = federate("fedavg", three, head(), 1, 1e30)
    assert np.isnan(found.accuracy(three).values).all()
