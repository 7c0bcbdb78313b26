"""Differential privacy of an upload: the exact curve, the noise that is drawn, and what is refused."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tests.prototypes.clients import clients

from surefoot import Verdict
from surefoot.prototypes import (
    GaussianRelease,
    Ledger,
    amplify,
    extract_prototypes,
    gaussian_epsilon,
    measure_advantage,
    noise_multiplier,
)
from surefoot.prototypes import extraction as module
from surefoot.prototypes._client.system_noise import system_normal, system_order

Z, Y = clients(1)[0]
KEPT, BROKEN = Verdict.KEPT, Verdict.BROKEN


@pytest.mark.parametrize("delta", [1e-6, 1e-5])
@pytest.mark.parametrize("nu", [0.3, 0.6, 1, 2, 5])
def test_epsilon_is_that_of_dp_accounting(nu, delta):
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    # The other's grid is pessimistic: it lies above, by less than the grid's interval.
    other = from_gaussian_mechanism(nu, value_discretization_interval=5e-4)
    other = other.get_epsilon_for_delta(delta)
    assert abs(gaussian_epsilon(nu, delta) - other) <= 1e-6


@pytest.mark.parametrize("nu", [0.2, 1.0, 3.0])
def test_epsilon_solves_the_textbook_curve(nu):
    eps = gaussian_epsilon(nu, 1e-5)
    a = 1 / (2 * nu)
    delta = norm.cdf(a - eps * nu) - math.exp(eps) * norm.cdf(-a - eps * nu)
    assert delta == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(("eps", "nu"), [(1, 3.730632), (4, 1.081162), (8, 0.600229)])
def test_noise_multiplier(eps, nu):
    found = noise_multiplier(eps, 1e-5)
    assert found == pytest.approx(nu, abs=1e-6)
    assert eps * (1 - 1e-9) <= gaussian_epsilon(found, 1e-5) <= eps
    assert gaussian_epsilon(found * (1 - 1e-9), 1e-5) > eps


@pytest.mark.parametrize(("eps", "delta"), [(1e-6, 1e-12), (1e-3, 0.9), (50, 1e-2), (1e12, 1e-12)])
def test_noise_multiplier_never_falls_short(eps, delta):
    assert gaussian_epsilon(noise_multiplier(eps, delta), delta) <= eps


@pytest.mark.parametrize("call", [GaussianRelease, noise_multiplier])
@pytest.mark.parametrize(
    ("eps", "delta"),
    [
        (0, 1e-5),
        (-1, 1e-5),
        (math.nan, 1e-5),
        ("4", 1e-5),
        (4, 0),
        (4, 1),
        (4, math.nan),
        (4, -0.1),
    ],
)
def test_numbers_outside_their_range(call, eps, delta):
    with pytest.raises(ValueError, match="must be"):
        call(eps, delta)


@pytest.mark.parametrize("clip", [0, -1, math.inf, math.nan])
def test_clips_outside_their_range(clip):
    with pytest.raises(ValueError, match="clip must be"):
        GaussianRelease(4, 1e-5, clip)


@pytest.mark.parametrize("method", ["cluster", "cluster_var"])
def test_clusters_have_no_finite_sensitivity(method):
    with pytest.raises(ValueError, match="no finite sensitivity"):
        extract_prototypes(Z, Y, method=method, dp=GaussianRelease(4, 1e-5))


def test_amplification_in_closed_form():
    eps, delta = amplify(2.0, 1e-5, 1, 4)
    assert math.exp(eps) - 1 == pytest.approx((math.exp(2) - 1) / 4)
    assert delta == pytest.approx(2.5e-6)
    assert amplify(1000.0, 1e-5, 1, 2)[0] == pytest.approx(1000 - math.log(2))
    assert amplify(30.0000001, 1e-5, 1, 4)[0] == pytest.approx(
        amplify(29.9999999, 1e-5, 1, 4)[0], abs=1e-6
    )
    assert amplify(3.0, 1e-5, 5, 5) == pytest.approx((3.0, 1e-5))
    with pytest.raises(ValueError, match="m must be"):
        amplify(1, 1e-5, 5, 4)


def test_ledger_composes_and_refuses_unchanged():
    at = GaussianRelease(gaussian_epsilon(2, 1e-5), 1e-5)
    ledger = Ledger(4.0, 1e-5)
    for _ in range(3):
        ledger.charge(at)
    assert ledger.spent == pytest.approx(3.708635, abs=1e-6)
    assert ledger.spent == pytest.approx(gaussian_epsilon(2, 1e-5, releases=3), abs=1e-9)
    before = ledger.mu_squared
    with pytest.raises(RuntimeError, match="above max_epsilon 4"):
        ledger.charge(at)
    assert ledger.mu_squared == before
    with pytest.raises(RuntimeError, match="above max_epsilon 4"):
        Ledger(4.0, 1e-5, before).charge(at)  # after a restart
    with pytest.raises(RuntimeError):
        ledger.charge(GaussianRelease(math.inf, 1e-5))


def exact(z, y, method="mean", clip=1.0):
    return extract_prototypes(z, y, method=method, dp=GaussianRelease(math.inf, 1e-5, clip))


def test_sensitivity_of_a_mean():
    """Each class is a pair of neighbours; the first one is the worst case."""
    g, C = np.random.default_rng(0), 0.7
    sizes = g.integers(1, 6, size=1000)
    y, first = np.repeat(np.arange(1000), sizes), np.cumsum(sizes) - sizes
    z = g.normal(size=(len(y), 3)) * g.choice([0.01, 1, 100], size=(len(y), 1))
    other = z.copy()
    other[first] = g.normal(size=(1000, 3)) * g.choice([0.01, 1, 100], size=(1000, 1))
    z[0], other[0] = [5, 0, 0], [-5, 0, 0]
    moved = (exact(z, y, clip=C).features - exact(other, y, clip=C).features).norm(dim=1).numpy()
    most = np.array([GaussianRelease(4, 1e-5, C).sensitivity(n) for n in sizes])
    np.testing.assert_allclose(most, 2 * C / sizes, rtol=1e-15)
    assert (moved <= most * (1 + 1e-12)).all()
    assert moved[0] == pytest.approx(most[0], rel=1e-12)


def test_the_second_moment_is_free():
    """Joint shift of means and moment, in units of the noise, is at most 1/nu; +-C e reaches it."""
    g = np.random.default_rng(1)
    count, C, nu = 20_000, 1.3, 0.8
    p, q = (g.normal(size=(count, 4)) for _ in range(2))
    p, q = (x / np.linalg.norm(x, axis=1, keepdims=True) * C for x in (p, q))
    p *= g.uniform(size=(count, 1)) ** 0.2
    q = np.where(g.uniform(size=(count, 1)) < 0.5, -p + 0.05 * g.normal(size=p.shape), q)
    q *= np.minimum(1, C / np.linalg.norm(q, axis=1, keepdims=True))
    p[0], q[0] = [C, 0, 0, 0], [-C, 0, 0, 0]
    n_c, n = 3, 7
    sigma, sigma2 = nu * 2 * C / n_c, nu * 2 * math.sqrt(2) * C**2 / n
    D = (p[:, :, None] * p[:, None, :] - q[:, :, None] * q[:, None, :]) / n
    # std sigma2 on the diagonal and sigma2 / sqrt(2) off it, each pair once: the Frobenius norm.
    upper = np.triu(np.ones((4, 4)), 1)
    moment = (np.einsum("bii->bi", D) ** 2).sum(1) / sigma2**2
    moment += ((D**2) * upper).sum((1, 2)) / (sigma2**2 / 2)
    shift = np.sqrt(((p - q) ** 2).sum(1) / n_c**2 / sigma**2 + moment)
    assert shift.max() <= 1 / nu * (1 + 1e-12)
    assert shift[0] == pytest.approx(1 / nu, rel=1e-12)
    at = GaussianRelease(gaussian_epsilon(nu, 1e-5), 1e-5, C)
    assert at.sigma(n, "moment") == pytest.approx(sigma2, rel=1e-9)
    assert at.sigma(n_c) == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize("method", ["mean", "gauss"])
def test_noise_has_its_size_and_is_new_each_time(method):
    at = GaussianRelease(2.0, 1e-5)
    z, y = np.zeros((600, 60)), np.repeat(np.arange(200), 3)

    def drawn():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what must not move the noise
        random.seed(0)
        return extract_prototypes(z, y, method=method, seed=0, dp=at)

    first, again = drawn(), drawn()
    assert not torch.equal(first.features, again.features)
    noise = torch.cat([first.features, again.features]).double()
    assert float(noise.std()) == pytest.approx(at.sigma(3), rel=0.03)  # 24 000 numbers: 6 errors
    assert abs(float(noise.mean())) < 5 * at.sigma(3) / math.sqrt(noise.numel())
    if method == "gauss":
        S = first.moment.double()
        assert torch.equal(S, S.T)
        off = S[torch.triu(torch.ones_like(S), 1) > 0]
        assert float(off.std()) == pytest.approx(at.sigma(600, "moment") / math.sqrt(2), rel=0.1)
        assert float(S.diag().std()) == pytest.approx(at.sigma(600, "moment"), rel=0.5)


def test_system_normals_are_normal():
    x = system_normal(200_000)
    assert abs(x.mean()) < 5 / math.sqrt(len(x))
    assert x.std() == pytest.approx(1, abs=5 / math.sqrt(2 * len(x)))
    for level in (-3.0, -1.0, 0.5, 2.5):
        p = norm.cdf(level)
        assert abs((x < level).mean() - p) < 5 * math.sqrt(p * (1 - p) / len(x))
    assert sorted(system_order(50)) == list(range(50))
    assert system_order(50).tolist() != system_order(50).tolist()


def test_random_rows_under_privacy_are_shuffled_by_the_system():
    at = GaussianRelease(math.inf, 1e-5, 10)
    z, y = np.arange(40.0)[:, None] / 10, np.zeros(40, dtype=int)
    first, again = (
        extract_prototypes(z, y, method="random", ratio=0.5, seed=0, dp=at) for _ in range(2)
    )
    assert first.features.flatten().tolist() != sorted(first.features.flatten().tolist())
    assert set(first.features.flatten().tolist()) != set(again.features.flatten().tolist())
    with pytest.warns(UserWarning, match="little to learn"):
        extract_prototypes(z, y, method="random", dp=GaussianRelease(8, 1e-5))


def test_long_records_are_clipped_and_counted_at_the_client_only():
    z = torch.cat([3 * Z[:5], Z[5:] * 0.5])
    s = extract_prototypes(z, Y, method="mean", dp=GaussianRelease(math.inf, 1e-5))
    assert s.clipped == 5
    clipped = torch.cat([Z[:5], Z[5:] * 0.5])
    torch.testing.assert_close(s.features, extract_prototypes(clipped, Y, method="mean").features)
    assert set(s.arrays()) == {"features", "labels", "weights", "counts"}


def test_advantage_is_as_promised_in_both_directions():
    at = GaussianRelease(4, 1e-5)
    assert at.advantage == pytest.approx(0.3563, abs=5e-5)
    assert at.advantage_of_any == pytest.approx(
        (math.exp(4) - 1 + 2e-5) / (math.exp(4) + 1), rel=1e-9
    )
    found = measure_advantage(at, trials=3000)
    assert abs(found.measured - at.advantage) <= 3.5 * found.standard_error
    assert [c.verdict for c in found.certificates()] == [KEPT, KEPT]


def test_too_little_noise_is_seen_by_both_certificates(monkeypatch):
    """A sensitivity of C/n instead of 2C/n: the mistake of "add or remove" under "replace"."""
    monkeypatch.setattr(
        GaussianRelease, "sigma", lambda self, n, method="mean": self.nu * self.clip / n
    )
    found = measure_advantage(GaussianRelease(4, 1e-5), trials=1000)
    assert [c.verdict for c in found.certificates()] == [BROKEN, BROKEN]


def test_noise_that_is_not_drawn_is_seen_by_the_attack(monkeypatch):
    monkeypatch.setattr(module, "system_normal", lambda *shape: np.zeros(shape))
    found = measure_advantage(GaussianRelease(4, 1e-5), trials=200)
    assert found.certificates()[1].verdict is BROKEN


def test_certificate_of_an_upload():
    s = extract_prototypes(Z, Y, method="mean", dp=GaussianRelease(4, 1e-5))
    assert s.certificates()[0].verdict is KEPT
    plain = extract_prototypes(Z, Y, method="cluster").certificates()[0]
    assert plain.verdict is Verdict.NOT_PROMISED
    unknown = extract_prototypes(Z, Y, method="mean").certificates()[0]
    assert unknown.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_second_moment_with_too_little_noise_is_seen(monkeypatch, share):
    """It rides on the promise of the means, and only with its own share of noise."""
    at = GaussianRelease(4, 1e-5)
    right = extract_prototypes(Z, Y, method="gauss", dp=at)
    assert right.certificates()[0].verdict is KEPT
    assert len(right.record.curves("noise multiplier").steps) == len(right.counts) + 1
    whole = GaussianRelease.sigma
    monkeypatch.setattr(
        GaussianRelease, "sigma",
        lambda self, n, method="mean": whole(self, n, method) * (share if method == "moment" else 1),
    )  # fmt: skip
    wrong = extract_prototypes(Z, Y, method="gauss", dp=at)
    assert wrong.certificates()[0].verdict is BROKEN
