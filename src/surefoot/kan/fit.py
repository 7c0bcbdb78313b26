"""Gradient descent and its mini-batch form as the theorems have them, with their record and certificates."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.kan._guarantee.conditions import GD, SGD
from surefoot.kan.forecasting import forecast
from surefoot.kan.guarantee import ABOVE, RATE, STOPPED, run_certificates
from surefoot.kan.local_rate import LocalRate
from surefoot.kan.monitoring import ConvergenceMonitor
from surefoot.kan.problem import Normalisation, Problem, Regression, as_problem, parameters_of
from surefoot.record import Record

MOMENT_ROWS = 256
"""Rows up to which the mean of a stochastic run is forecast: n^3 a step."""


@showing
@checked(nan=True)
@dataclass(frozen=True)
class Run:
    """What a fit did.

    Attributes
    ----------
    losses
        L at every step, the start first.
    eta
        The step size that was used.
    violations
        Steps that fell by less than T1's rate, beyond rounding.
    moved
        |theta - theta_0| at the end.
    local_rate
        T1 and T3 at the start.
    monitor
        The checkpoints and `report()`.
    headline
        The name of the claim that `verdict` is about: T1 in mode "certified", the forecast in mode "gd", T3
        for mini-batches.
    """

    losses: Float64[Tensor, " losses"]
    eta: float
    violations: int
    moved: float
    local_rate: LocalRate
    monitor: ConvergenceMonitor
    headline: str

    @property
    def record(self) -> Record:
        """The core record: every number and every fact."""
        return self.monitor.record

    def certificates(self) -> list[Certificate]:
        """T1 and T2, or T3 of a stochastic run, by what the record says was done."""
        return run_certificates(self.record)

    @property
    def certificate(self) -> Certificate:
        """That of the headline."""
        return next(c for c in self.certificates() if c.name == self.headline)

    @property
    def verdict(self) -> Verdict:
        """That of the headline; NOT_PROMISED where the step size is above the rule, whatever the loss did."""
        return self.certificate.verdict


@checked
def fit_gd(
    model: Any,
    X: Any = None,
    y: Any = None,
    steps: int = 1000,
    eta: float | Literal["auto"] = "auto",
    mode: Literal["gd", "certified"] = "gd",
    *,
    every: int = 50,
    seed: int = 0,
    record: Record | None = None,
    normalisation: Normalisation = "sum",
) -> Run:
    """Full-batch gradient descent on L = |r|^2 / 2, in place.

    Parameters
    ----------
    model
        Any torch module, or a problem (`PIKAN`).
    X, y
        Points (n, d) and targets (n,) of a regression; of a problem None.
    steps
        How many.
    eta
        The step size; "auto": the largest that the mode permits. Above it mode "certified" is an error, and
        mode "gd" runs, NOT_PROMISED.
    mode
        "gd": 1 / lambda_max, where the forecast holds. "certified": T1's.
    every
        Steps between checkpoints.
    seed, record
        Where the numbers are filed; nothing here is random.
    normalisation
        "sum" or "mean": the latter divides L by n.

    Returns
    -------
    Run
        Losses, record and certificates.

    Raises
    ------
    ValueError
        An argument out of range; eta above T1's step in mode "certified", or no such step.
    NonFiniteError
        The loss became NaN or infinite: at which step.
    """
    check_choice("mode", mode, ("gd", "certified"))
    steps = check_number("steps", steps, least=0, whole=True)
    problem = as_problem(model, X, y, normalisation)
    watch = _watch(problem, every, seed, record, method=GD)
    rule = watch.local_rate.step if mode == "certified" else _inverse(watch.local_rate.lambda_max)
    used = _chosen(eta, rule, mode, "lambda0 is 0" if mode == "certified" else "K is 0")
    if mode == "certified" and used > rule:
        raise ValueError(
            f"eta must be at most T1's step {rule:.6g} in mode 'certified', got {used:.6g}; "
            f"mode='gd' permits {_inverse(watch.local_rate.lambda_max):.6g}"
        )
    watch.use(used)
    parameters = parameters_of(problem)

    def gradient() -> tuple[Tensor, tuple[Tensor, ...]]:
        r = problem.residual()
        loss = r @ r / 2
        return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    losses = _descend(watch, parameters, steps, used, gradient)
    return _run(watch, losses, used, RATE if mode == "certified" else ABOVE)


@checked
def fit_sgd(
    model: Any,
    X: Any = None,
    y: Any = None,
    steps: int = 1000,
    batch: int = 1,
    eta: float | Literal["auto"] = "auto",
    seed: int | None = None,
    *,
    every: int = 50,
    record: Record | None = None,
    normalisation: Normalisation = "sum",
) -> Run:
    """Mini-batches drawn with replacement, gradient (n/B) sum_{i in batch} r_i J_i, in place.

    T3 speaks of the mean over seeds: one run leaves it UNDECIDED. Give each seed its own copy of the model
    and one record to all.

    Parameters
    ----------
    model
        Any torch module, or a problem (`PIKAN`).
    X, y
        Points (n, d) and targets (n,) of a regression; of a problem None.
    steps
        How many.
    batch
        B, rows drawn a step.
    eta
        The step size; "auto": T3's. Above it nothing is promised.
    seed
        Of the draws, and where the numbers are filed; None: one is drawn.
    every
        Steps between checkpoints.
    record
        Where the numbers go; by default a record of its own.
    normalisation
        "sum" or "mean": the latter divides L by n.

    Returns
    -------
    Run
        Losses of all rows, record and certificates.

    Raises
    ------
    ValueError
        An argument out of range; eta="auto" where T3 has no step.
    NonFiniteError
        The loss became NaN or infinite: at which step.
    """
    steps = check_number("steps", steps, least=0, whole=True)
    batch = check_number("batch", batch, least=1, whole=True)
    seed = secrets.randbits(31) if seed is None else check_number("seed", seed, least=0, whole=True)
    problem = as_problem(model, X, y, normalisation)
    watch = _watch(problem, every, seed, record, method=SGD, batch=batch)
    rule = watch.local_rate.stochastic(batch).step
    used = _chosen(eta, rule, "sgd", "lambda0 is 0, or no bound of Lambda is known")
    watch.use(used)
    parameters, n = parameters_of(problem), watch.local_rate.n
    _forecast_mean(watch, steps, batch, used)
    generator = torch.Generator().manual_seed(seed)

    def gradient() -> tuple[None, tuple[Tensor, ...]]:
        rows = torch.randint(n, (batch,), generator=generator)
        r = _rows(problem, rows)
        loss = (n / batch) * (r @ r) / 2
        return None, torch.autograd.grad(loss, parameters, materialize_grads=True)

    losses = _descend(watch, parameters, steps, used, gradient)
    return _run(watch, losses, used, STOPPED)


def _rows(problem: Problem, rows: Tensor) -> Tensor:
    """Some rows of the residual; of another problem than a regression all are computed."""
    return problem.residual(rows) if isinstance(problem, Regression) else problem.residual()[rows]


def _watch(
    problem: Problem,
    every: int,
    seed: int,
    record: Record | None,
    *,
    method: str,
    batch: int | None = None,
) -> ConvergenceMonitor:
    return ConvergenceMonitor(
        problem, every=every, seed=seed, record=record, method=method, batch=batch
    )


def _inverse(lambda_max: float) -> float:
    return 1 / lambda_max if lambda_max > 0 else 0.0


def _chosen(eta: Any, rule: float, mode: str, why: str) -> float:
    if isinstance(eta, str):
        check_choice("eta", eta, ("auto",))
        if not 0 < rule < float("inf"):
            raise ValueError(f"eta must be a number: 'auto' has no step in mode {mode!r}, as {why}")
        return rule
    return check_number("eta", eta, above=0)


def _descend(
    watch: ConvergenceMonitor,
    parameters: list[torch.nn.Parameter],
    steps: int,
    eta: float,
    gradient: Callable[[], tuple[Tensor | None, tuple[Tensor, ...]]],
) -> Float64[Tensor, " losses"]:
    with watch, torch.enable_grad():
        for _ in range(steps):
            loss, found = gradient()
            watch.step(loss)
            with torch.no_grad():
                for p, g in zip(parameters, found, strict=True):
                    p.sub_(eta * g)
        watch.step()
    curves = watch.record.of_seed(watch.seed).curves("loss")
    return torch.from_numpy(curves.values[0].copy())


def _forecast_mean(watch: ConvergenceMonitor, steps: int, batch: int, eta: float) -> None:
    """The mean loss that the linearised model forecasts, where that is affordable."""
    if watch.local_rate.n > MOMENT_ROWS:
        return
    ahead = forecast(watch.tangent, watch.residual, eta, steps, batch)
    watch.record.extend(watch.seed, "mean_forecast", ahead.tolist(), range(steps + 1))


def _run(watch: ConvergenceMonitor, losses: Tensor, eta: float, headline: str) -> Run:
    return Run(losses, eta, watch.violations, watch.moved, watch.local_rate, watch, headline)
