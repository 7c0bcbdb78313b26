"""The closed form of one pair, against published numbers, a numerical minimiser and its dual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from surefoot.barycenter import reference
from surefoot.barycenter.gaussian import SuotResult, suot_gaussian
from surefoot.guarantee import Guarantee
from surefoot.record import Record

PAIRS = {"quick": 10, "standard": 50, "paper": 200}
LARGEST = {"quick": 3, "standard": 4, "paper": 6}
NUMBERS = "reference numbers"
VALUE, MINIMUM, DUAL = "value at the relaxed input", "minimum", "dual gap"
FOUND, UPSILON, GAP = "number found", "Upsilon of the pair", "dual gap of the pair"
SOURCE = "derived in surefoot, for the objective of arXiv 2410.08117"


def spd(rng: np.random.Generator, d: int) -> Float64[np.ndarray, "d d"]:
    """Eigenvalues uniform in [.1, 3], a random rotation."""
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = (Q * rng.uniform(0.1, 3, d)) @ Q.T
    return np.asarray((A + A.T) / 2)


def examples() -> dict[str, tuple[float, float]]:
    """What was computed here, and what the derivation's first implementation had, to all its digits."""
    A, B = np.array([[2, 0.5], [0.5, 1]]), np.array([[1, -0.3], [-0.3, 3]])
    pair, scalar = suot_gaussian(A, B, 0.7), suot_gaussian([[2.0]], [[0.5]], 1.0)
    free = suot_gaussian(A, B, 0.7, mass="free")
    singular = suot_gaussian(np.diag([4.0, 0.0]), np.eye(2), 1.0)

    def three(name: str, M: Any, numbers: tuple[float, ...]) -> dict[str, tuple[float, float]]:
        found = {f"{name}11": M[0, 0], f"{name}12": M[0, 1], f"{name}22": M[1, 1]}
        return {k: (float(v), n) for (k, v), n in zip(found.items(), numbers, strict=True)}

    return {
        "Upsilon": (float(pair.upsilon), 0.3620022483265834),
        **three("Sigma", pair.sigma_x, (1.1983225820613885, 0.03264550521707, 1.9978646654867132)),
        **three("S", pair.map, (1.1106285493419956, 0.08635333796678, 0.8232173275165757)),
        "free value": (float(free.value), 0.28264621557462),
        "scalar Upsilon": (float(scalar.upsilon), 0.1813136444151321),
        "scalar Sigma": (float(scalar.sigma_x[0, 0]), 0.9519183588),
        "singular Upsilon": (float(singular.upsilon), 1.2277891102034735),
        "singular Sigma11": (float(singular.sigma_x[0, 0]), 1.5517138322),
    }


def run(config: Any, seed: int, record: Record) -> None:
    """The numbers, a step each; then random pairs, a step each, tau between .01 and 100."""
    for i, (found, number) in enumerate(examples().values()):
        record.append(seed, i, **{FOUND: found, "number": number})
    rng = np.random.default_rng(seed)
    for i in range(PAIRS[config.size]):
        d = int(rng.integers(1, LARGEST[config.size] + 1))
        A, B, tau = spd(rng, d), spd(rng, d), float(10 ** rng.uniform(-2, 2))
        r: SuotResult = suot_gaussian(A, B, tau)
        direct = reference.bures(r.sigma_x, B) + tau * reference.kl(r.sigma_x, A)
        record.append(
            seed, i, tau=tau, d=d, direct=direct,
            minimum=reference.minimum(A, B, tau), **{UPSILON: float(r.upsilon), GAP: float(r.dual_gap)},
        )  # fmt: skip


def guarantees(config: Any) -> list[Guarantee]:
    """The numbers to 1e-10; the value where it is attained; at most BFGS; a gap of rounding size."""

    def direct(record: Record) -> Float64[np.ndarray, "seeds steps"]:
        return record["direct"]

    return [
        Guarantee(
            name=NUMBERS, statement="found = number, a number a step", source=SOURCE, quantity=FOUND,
            sense="equal", holds_in="every run", bound=lambda record: record["number"],
            tolerance=0.0, atol=1e-10,
        ),
        Guarantee(
            name=VALUE, statement="Upsilon = W2^2(Sigma, B) + tau KL(Sigma || A), a pair a step",
            source=SOURCE, quantity=UPSILON, sense="equal", holds_in="every run", bound=direct,
            tolerance=0.0, atol=1e-11,
        ),
        Guarantee(
            name=MINIMUM, statement="Upsilon <= what BFGS finds over Cholesky factors, a pair a step",
            source=SOURCE, quantity=UPSILON, sense="upper", holds_in="every run",
            bound=lambda record: record["minimum"], tolerance=0.0, atol=1e-9,
        ),
        Guarantee(
            name=DUAL, statement="primal - dual <= 1e-10 Upsilon, a pair a step", source=SOURCE, quantity=GAP,
            sense="upper", holds_in="every run", tolerance=0.0,
            bound=lambda record: 1e-10 * np.maximum(record[UPSILON], 1e-3),
        ),
    ]  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The reference numbers, and the worst of the random pairs."""
    rows = [
        {"number": name, "found": found, "reference": number, "difference": found - number}
        for name, found, number in zip(
            examples(), record[FOUND][0], record["number"][0], strict=True
        )
    ]
    upsilon = record[UPSILON]
    worst = {
        "pairs": upsilon.size,
        "|Upsilon - direct|": np.abs(upsilon - record["direct"]).max(),
        "Upsilon - BFGS, most": (upsilon - record["minimum"]).max(),
        "Upsilon - BFGS, least": (upsilon - record["minimum"]).min(),
        "dual gap / Upsilon": (record[GAP] / np.maximum(upsilon, 1e-3)).max(),
    }
    return {"reference numbers": pd.DataFrame(rows), "random pairs": pd.DataFrame([worst])}
