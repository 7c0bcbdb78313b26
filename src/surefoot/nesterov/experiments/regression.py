"""Overparametrised regression on digits: the noise constant that is certified is not the fast one.

120 images of scikit-learn's digits, 600 random cosine features, labels +1 for digits of at least 5
and -1 below, batches of 6 drawn with replacement. The noise is measured along a pilot run of SGD;
AGNES then runs with the median of variance over squared gradient (which promises nothing), with the
largest ratio, and with the envelope that also has an additive part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from surefoot import data
from surefoot._problems.ridge import ridge
from surefoot.guarantee import Assumption, Guarantee
from surefoot.nesterov._probe.noise import NoiseSample, fit_noise
from surefoot.nesterov.experiments.ledgers import carry_facts
from surefoot.nesterov.guarantee import NOISE_LAW, accelerated_rate
from surefoot.nesterov.optimizer import AGNES
from surefoot.nesterov.parameters import AgnesParams, agnes_parameters
from surefoot.nesterov.probe import Landscape
from surefoot.record import Record

IMAGES, FEATURES, BATCH = 120, 600, 6
STEPS = {"quick": 1600, "standard": 3200, "paper": 12800}
CHECKPOINTS = 16
ENVELOPE, LARGEST, MEDIAN = "AGNES, envelope", "AGNES, largest ratio", "AGNES, median ratio"
NAG_ARM, SGD = "NAG, eta = 1/L", "SGD"
PROMISING = (ENVELOPE, LARGEST, MEDIAN, NAG_ARM)


@dataclass(frozen=True)
class Problem:
    """Features phi (N, D) and labels; f(w) = |phi w - y|^2 / (2N) with its exact constants."""

    phi: Tensor
    y: Tensor
    mu: float
    L: float
    L_max: float
    distance: float


def problem() -> Problem:
    """The same problem for every seed: only the batches differ."""
    table = data.load("digits")
    x, digits = table.x, table.y
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, FEATURES))
    phase = rng.uniform(0, 2 * np.pi, FEATURES)
    images = x[:IMAGES] / np.linalg.norm(x[:IMAGES], axis=1, keepdims=True)
    phi = np.sqrt(2 / FEATURES) * np.cos(2 * images @ w + phase)
    y = np.where(digits[:IMAGES] >= 5, 1.0, -1.0)
    exact = ridge(phi, y[:, None], 0.0)
    assert exact.minimiser is not None
    return Problem(
        torch.tensor(phi), torch.tensor(y), exact.mu, exact.L,
        float((phi**2).sum(axis=1).max()), float(exact.minimiser.square().sum()),
    )  # fmt: skip


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(FEATURES, dtype=torch.float64))

    def forward(self, phi: Tensor) -> Tensor:
        return phi @ self.w


def _half_square(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * ((output - target) ** 2).mean()


@dataclass(frozen=True)
class Path:
    """f at the iterate, every step, what the optimizer noted, and the noise at the checkpoints."""

    losses: np.ndarray
    ran: Record
    noise: list[NoiseSample]


def descend(about: Problem, params: AgnesParams, steps: int, seed: int) -> Path:
    """Run AGNES (with alpha = 0: SGD) on batches; stop when f has grown a thousandfold."""
    model = _Model()
    optimizer = AGNES(
        model.parameters(), lr=params.alpha, correction=params.eta, momentum=params.rho
    )
    landscape = Landscape(model, _half_square, (about.phi, about.y))
    generator = torch.Generator().manual_seed(seed)
    every = max(1, steps // CHECKPOINTS)
    losses, noise = [], []
    f0 = float(0.5 * (about.y**2).mean())
    for n in range(steps):
        with optimizer.iterate(), torch.no_grad():
            losses.append(float(_half_square(model(about.phi), about.y)))
        if not losses[-1] <= 1e3 * f0:
            break
        if n % every == 0:
            noise.append(landscape.noise(BATCH))
        rows = torch.randint(IMAGES, (BATCH,), generator=generator)
        residual = about.phi[rows] @ model.w.detach() - about.y[rows]
        model.w.grad = about.phi[rows].T @ residual / BATCH
        optimizer.step()
    return Path(np.array(losses), optimizer.record, noise)


def run(config: Any, seed: int, record: Record) -> None:
    """Pilot, fits, and the four arms."""
    about, steps = problem(), STEPS[config.size]
    eta = 1 / about.L_max
    pilot = descend(about, AgnesParams(eta, 0.0, 0.0, 0.0, 0.0, 0.0), steps, seed)
    ratios = np.array([s.V / s.grad_sq for s in pilot.noise])
    envelope = fit_noise(pilot.noise, "envelope")
    sigma = {
        ENVELOPE: (envelope.sigma_mult, envelope.sigma_add),
        LARGEST: (float(np.sqrt(ratios.max())), 0.0),
        MEDIAN: (float(np.sqrt(np.median(ratios))), 0.0),
        NAG_ARM: (0.0, 0.0),
    }
    record.append(
        seed, 0, median=float(np.median(ratios)), largest=float(ratios.max()),
        first=float(ratios[0]), envelope=envelope.sigma_mult**2,
        checkpoints=float(len(ratios)),
    )  # fmt: skip
    record.extend(seed, SGD, pilot.losses)
    for name, (sm, sa) in sigma.items():
        params = agnes_parameters(about.mu, about.L, sm)
        path = descend(about, params, steps, seed + 10_000)
        _store(record, seed, name, path, sm, sa)


def _store(
    record: Record, seed: int, name: str, path: Path, sigma_mult: float, sigma_add: float
) -> None:
    assumed = [sigma_add**2 + sigma_mult**2 * s.grad_sq for s in path.noise]
    covered = max(s.V / a if a > 0 else np.inf for s, a in zip(path.noise, assumed, strict=True))
    record.extend(seed, name, path.losses)
    carry_facts(path.ran, record, seed, name)
    record.note(seed, name, sigma_mult=sigma_mult, sigma_add=sigma_add)
    record.update(seed, 0, {f"{name}: noise / assumed": covered})


def guarantees(config: Any) -> list[Guarantee]:
    """One claim an arm; the noise met on the arm's own path decides whether it was promised."""

    about = problem()

    def claim(name: str) -> Guarantee:
        rate = accelerated_rate(
            name, mu=about.mu, L=about.L, dist0_sq=about.distance, of=name, name=name,
            how="exact: the spectrum of the features",
        )  # fmt: skip

        def assumptions(record: Record) -> tuple[Assumption, ...]:
            worst = float(record.constant(f"{name}: noise / assumed").max())
            return (
                *(a for a in rate.assumptions(record) if a.name != NOISE_LAW),
                Assumption(
                    NOISE_LAW,
                    "trace variance <= sigma_a^2 + sigma_m^2 |grad f|^2 at every checkpoint",
                    worst,
                    worst <= 1 + 1e-9,
                    f"per-example gradients at {CHECKPOINTS} checkpoints of the run itself; "
                    "measured is the worst ratio of the two sides",
                ),
            )

        return dataclasses.replace(rate, assumptions=assumptions)

    return [claim(name) for name in PROMISING]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Last loss of each arm, and the noise constants behind it."""
    rows = []
    last_bound = {
        g.name: float(np.asarray(g.bound(record))[:, -1].mean()) for g in guarantees(config)
    }
    for name in (*PROMISING, SGD):
        last = record.constant(name)
        rows.append(
            {
                "arm": name,
                "steps": record[name].shape[1],
                "last f, mean": float(last.mean()),
                "last f, sd": float(last.std(ddof=1)) if len(last) > 1 else float("nan"),
                "last bound": last_bound.get(name, float("nan")),
            }
        )
    noise = pd.DataFrame(
        {q: record.constant(q) for q in ("first", "median", "largest", "envelope")},
    )
    return {"arms": pd.DataFrame(rows), "variance over squared gradient, a row a seed": noise}
