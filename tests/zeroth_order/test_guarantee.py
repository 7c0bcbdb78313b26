"""The bound beside runs: never violated on random quadratics, BROKEN where a fault is planted."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Record, Verdict, certify
from surefoot.zeroth_order import LOZO
from surefoot.zeroth_order.bounds import lozo_bound
from surefoot.zeroth_order.guarantee import contraction_guarantee, gradient_guarantee
from surefoot.zeroth_order.probe import curvature_probe, gradient_noise, smoothness, trace


def quadratic_run(shapes, r, nu, periods, sigma, alpha, seed, ascend=False):
    """Hessian diag(linspace(.05, 1)) in every row, so L = 1; noise of total variance sigma^2."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.Generator().manual_seed(99)
    x = [nn.Parameter(torch.randn(m, n, generator=start, dtype=torch.float64)) for m, n in shapes]
    h = [torch.linspace(0.05, 1, n, dtype=torch.float64) for _, n in shapes]
    size = sum(m * n for m, n in shapes)
    optimizer = LOZO(x, alpha, rank=r, nu=nu, eps=1e-3, v_dist="orthogonal", seed=seed)
    squares = []
    for t in range(nu * periods):
        if t % nu == 0:
            squares.append(
                sum(float((a * p.detach()).square().sum()) for a, p in zip(h, x, strict=True))
            )
        noise = [
            sigma / math.sqrt(size) * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for p in x
        ]

        def closure(noise=noise):
            value = sum(
                (a * p.square()).sum() / 2 + (e * p).sum()
                for a, p, e in zip(h, x, noise, strict=True)
            )
            return -value if ascend else value

        optimizer.step(closure)
    delta0 = sum(
        float((a * torch.randn(m, n, generator=g, dtype=torch.float64).square()).sum()) / 2
        for g in [torch.Generator().manual_seed(99)]
        for a, (m, n) in zip(h, shapes, strict=True)
    )
    return float(np.mean(squares)), delta0


def recorded(shapes, r, nu, periods, sigma, seeds, alpha=None, **how):
    _, delta0 = quadratic_run(shapes, r, nu, 1, 0.0, 0.0, 0)
    bound = lozo_bound(shapes, r, nu, nu * periods, 1.0, sigma**2, delta0)
    record = Record()
    for seed in range(seeds):
        mean, _ = quadratic_run(
            shapes, r, nu, periods, sigma, bound.alpha if alpha is None else alpha, seed, **how
        )
        record.append(seed, 0, gradient=mean)
    return record, bound


def test_kept_on_a_quadratic_and_not_vacuous():
    record, bound = recorded([(8, 12)], 2, 5, 60, 0.0, 8)
    found = certify(record, gradient_guarantee("gradient", bound))
    assert found.verdict is Verdict.KEPT
    assert 1 / 30 < found.tightness < 1


def test_a_wrong_sign_is_broken():
    """Planted fault: the update climbs."""
    record, bound = recorded([(8, 12)], 2, 5, 60, 0.0, 6, ascend=True)
    assert certify(record, gradient_guarantee("gradient", bound)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"v_dist": "gaussian"}, "orthogonal V"),
        ({"momentum": 0.9}, "no momentum"),
        ({"fd_error": 0.3}, "linear over the perturbation"),
    ],
)
def test_what_the_theorem_does_not_cover_is_not_promised(settings, name):
    record, bound = recorded([(8, 12)], 2, 5, 4, 0.0, 5)
    found = certify(record, gradient_guarantee("gradient", bound, **settings))
    assert found.verdict is Verdict.NOT_PROMISED
    assert name in found.reason


@pytest.mark.acceptance
def test_twenty_random_block_quadratics(measured):
    rng = np.random.default_rng(0)
    ratios = []
    for case in range(20):
        shapes = [
            (int(rng.integers(5, 10)), int(rng.integers(5, 13)))
            for _ in range(int(rng.integers(1, 3)))
        ]
        r, nu = int(rng.integers(1, 4)), int(rng.choice([1, 5, 10, 20]))
        sigma = float(rng.choice([0.0, 0.5, 1.0]))
        _, delta0 = quadratic_run(shapes, r, nu, 1, 0.0, 0.0, 0)
        # Long enough for alpha L T >= 1: shorter runs cannot come near the bound.
        periods = 1
        while True:
            bound = lozo_bound(shapes, r, nu, nu * periods, 1.0, sigma**2, delta0)
            if bound.alpha * nu * periods >= 1 or nu * periods > 20_000:
                break
            periods *= 2
        record, bound = recorded(shapes, r, nu, periods, sigma, 6)
        found = certify(record, gradient_guarantee("gradient", bound))
        assert found.verdict is Verdict.KEPT, case
        ratios.append(1 / found.tightness)
    measured(
        "8.13 bound / measured, 20 quadratics",
        "> 1, <= 30",
        f"{min(ratios):.1f} to {max(ratios):.1f}",
    )
    assert max(ratios) <= 30


class Redrawn(LOZO):
    """The fault of the authors' code, at every step: the update is along another draw."""

    def _update_all(self, scalars, lrs):
        self._release()
        self._held = {
            s.index: self.streams.normal("late", self.t, s.index, s.shape()).double()
            for s in self.slots
        }
        super()._update_all(scalars, lrs)


def energies(record_name, nu, v_dist, seeds, kind=LOZO):
    target = torch.randn(4, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    record = Record()
    for seed in range(seeds):
        x = nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
        optimizer = kind([x], 0.02, rank=2, nu=nu, eps=1e-2, v_dist=v_dist, seed=seed)
        for k in range(1, 4):
            for _ in range(nu):
                optimizer.step(lambda x=x: (x - target).square().sum() / 2)
            ratio = float((x.detach() - target).square().sum() / target.square().sum())
            record.append(seed, k, **{record_name: ratio})
    return record


def test_exact_law_kept_and_broken():
    law = contraction_guarantee("energy", 4, 6, 2, 0.02, 5, "orthogonal")
    assert certify(energies("energy", 5, "orthogonal", 250), law).verdict is Verdict.KEPT
    faulty = energies("energy", 5, "orthogonal", 60, Redrawn)
    assert certify(faulty, law).verdict is Verdict.BROKEN


class TestProbes:
    def setup_method(self):
        self.h = torch.diag(torch.tensor([0.5, 2.0, 7.0, 1.0], dtype=torch.float64))
        self.x = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def loss(self):
        return self.x @ self.h @ self.x / 2

    def test_power_iteration_and_trace(self):
        assert smoothness(self.loss, [self.x], iterations=60) == pytest.approx(7.0, rel=1e-6)
        assert trace(self.loss, [self.x]) == pytest.approx(10.5, rel=1e-9)

    def test_forward_probe_is_below_the_truth_and_leaves_no_trace(self):
        matrix = nn.Parameter(
            torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
        )
        optimizer = LOZO([matrix], 0.1, nu=10, eps=1e-3)
        before = matrix.detach().clone()
        found = curvature_probe(optimizer, lambda: 3 * matrix.square().sum(), draws=5)
        assert found == pytest.approx(6.0, rel=1e-4)
        torch.testing.assert_close(matrix.detach(), before, rtol=0, atol=1e-14)
        assert optimizer.t == 0

    def test_gradient_noise(self):
        draws = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).double() * 2 + 5
        assert gradient_noise(draws) == pytest.approx(12.0, rel=0.03)
