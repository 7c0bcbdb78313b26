"""Promised beside measured at each checkpoint of a run: T1, the forecast, drift, distance, violations."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import lanczos
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import NonFiniteError
from surefoot.guarantee import Verdict
from surefoot.kan import bounds
from surefoot.kan._guarantee.conditions import GD, REPLACED
from surefoot.kan._monitor.rows import Checkpoint, table
from surefoot.kan.guarantee import run_certificates
from surefoot.kan.local_rate import LocalRate, local_rate_of
from surefoot.kan.problem import Normalisation, Problem, as_problem, flat, parameters_of
from surefoot.kan.spectrum import Tangent, tangent_of
from surefoot.record import Record

LARGEST = 3000
"""Rows up to which all eigenvalues are taken at each checkpoint; beyond, Lanczos gives the smallest."""
KRYLOV = 200
SAME_LOSS = 1e-6
SAME_STEP = 1e-6


@dataclass
class _Anchor:
    """A spectrum and the residual in it, carried forward a step at a time."""

    part: Float64[Tensor, " n"]
    shrink: Float64[Tensor, " n"]

    @classmethod
    def at(cls, tangent: Tangent, r: Float64[Tensor, " n"], eta: float | None) -> _Anchor:
        return cls(tangent.eigvecs.T @ r, 1 - (math.nan if eta is None else eta) * tangent.eigvals)

    def advance(self) -> None:
        self.part = self.part * self.shrink

    @property
    def loss(self) -> float:
        return float(self.part @ self.part) / 2


@showing
@checked
class ConvergenceMonitor:
    """Watches a run of a problem; made by `monitor`, and used by `fit_gd` and `fit_sgd`.

    Parameters
    ----------
    problem
        At its start.
    eta
        The step size that the run uses; None: not known, nothing is then promised or forecast.
    every
        Steps between two checkpoints.
    seed
        Under which the numbers are filed.
    record
        Where they go; by default a new one.
    method
        What runs, where the caller is what runs; None: the first two steps and one after each checkpoint are
        compared with -eta grad L, and the method is what they show.
    batch
        Rows drawn with replacement, where the run is stochastic.

    Attributes
    ----------
    record
        The core record.
    rows
        The checkpoints.
    tangent, residual, local_rate
        K, r, and T1 at the start.
    violations
        As in `Checkpoint`.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        eta: float | None = None,
        every: int = 50,
        seed: int = 0,
        record: Record | None = None,
        method: str | None = None,
        batch: int | None = None,
    ) -> None:
        self.problem = problem
        self.eta = None if eta is None else check_number("eta", eta, above=0)
        self.every = check_number("every", every, least=1, whole=True)
        self.seed = check_number("seed", seed, whole=True)
        self.record = Record() if record is None else record
        self.rows: list[Checkpoint] = []
        self.violations = 0
        self.left = False
        if batch is not None:
            check_number("batch", batch, least=1, whole=True)
        self._batch, self._method = batch, method
        self._parameters = parameters_of(problem)
        self._start = flat(self._parameters)
        self.tangent = tangent_of(problem)
        self.local_rate: LocalRate = local_rate_of(problem, self.tangent)
        self.residual = r = self._residual()
        self._anchors = [_Anchor.at(self.tangent, r, self.eta) for _ in range(2)]
        self._floor = float(getattr(problem, "rounding_floor", lambda: 0.0)())
        self._step, self._first, self._before = 0, float(r @ r) / 2, math.nan
        self._last = self._start
        self._eps = max(torch.finfo(p.dtype).eps for p in self._parameters)
        self._expected: tuple[Tensor, Tensor] | None = None
        # The gradients that the caller's loop holds: of use where they were the loss's when it was looked at.
        self._held: tuple[Tensor, Tensor] | None = None
        self._current = False
        self._checked, self._off, self._closed = 0, 0.0, False
        self._note(len(r))
        if self.eta is not None:
            self.use(self.eta)

    def use(self, eta: float) -> None:
        """Say which step size the run uses, before its first step, where it comes of this monitor's spectrum.

        Raises
        ------
        ValueError
            It is no positive number.
        """
        self.eta = check_number("eta", eta, above=0)
        self.record.note(self.seed, eta=self.eta)
        self._anchors = [_Anchor.at(self.tangent, self.residual, self.eta) for _ in range(2)]

    @property
    def step_count(self) -> int:
        """How many steps the run has taken so far."""
        return max(self._step - 1, 0)

    @property
    def moved(self) -> float:
        """|theta_t - theta_0| now."""
        return float((flat(self._parameters) - self._start).norm())

    def step(self, loss: float | Float[Tensor, ""] | None = None) -> None:
        """Note the present parameters; call it once a step, before the parameters change.

        Parameters
        ----------
        loss
            L = |r|^2 / 2 at the present parameters, over all rows; None: it is computed here.

        Raises
        ------
        NonFiniteError
            The loss is NaN or infinite.
        ValueError
            The loss is not that of the present parameters.
        """
        if self._closed:
            raise ValueError("step must be called before the monitor is closed")
        self._observe(loss, self._step % self.every == 0)

    def _observe(self, loss: float | Tensor | None, checkpoint: bool) -> None:
        t, theta = self._step, flat(self._parameters)
        if not t and not torch.equal(theta, self._start):
            raise ValueError(
                "step() must be called before the parameters change, got them moved by "
                f"{float((theta - self._start).norm()):.3g} since the monitor was made: call it before "
                "optimizer.step(), and make the monitor when the start is set"
            )
        if t:
            for anchor in self._anchors:
                anchor.advance()
        self._compare(theta)
        given = None if loss is None else float(loss)
        # The first two steps tell momentum and mini-batches; each checkpoint what came later.
        checks = self._method is None and (t < 2 or checkpoint)
        r = self._residual() if checkpoint or checks or given is None else None
        own = math.nan if r is None else float(r @ r) / 2
        value = own if given is None else given
        self._finite("loss", value)
        if r is not None and given is not None:
            self._same(given, own)
        moved = float((theta - self._start).norm())
        self._finite("moved", moved)
        self._write(t, value, moved)
        if checkpoint:
            self._checkpoint(t, value, moved, self._residual() if r is None else r)
        if checks:
            self._expected = (theta, self._gradient())
        if self._method is None:
            self._hold(theta)
        self._before, self._last, self._step = value, theta, t + 1

    def _write(self, t: int, value: float, moved: float) -> None:
        if t and self.eta is not None and value > self._allowed(self._before):
            self.violations += 1
        row = {"loss": value, "moved": moved}
        if self.eta is not None and self._batch is None:
            row |= {"forecast": self._anchors[0].loss, "reanchored": self._anchors[1].loss}
        if self._batch is not None:
            # Once out it stays out, also where it comes back.
            self.left = self.left or moved > self.local_rate.rho
            row |= {"left": float(self.left), "stopped_loss": 0.0 if self.left else value}
        self.record.update(self.seed, t, row)

    def _allowed(self, before: float) -> float:
        """(1 - eta lambda0 / 2) L_t and what rounding may add."""
        assert self.eta is not None
        F, lambda0 = self._floor, max(self.local_rate.lambda0, 0.0)
        slack = 1e-9 * before + 100 * (math.sqrt(before * F) + F)
        return bounds.contraction_factor(self.eta, lambda0) * before + slack

    def _checkpoint(self, t: int, value: float, moved: float, r: Float64[Tensor, " n"]) -> None:
        ahead = self._anchors[1].loss
        if len(r) <= LARGEST or t == 0:
            now = self.tangent if t == 0 else tangent_of(self.problem)
            least, drift = now.lambda_min, now.drift(self.tangent)
            self._anchors[1] = _Anchor.at(now, r, self.eta)
        else:
            K = self.problem.gram().detach().double().cpu()
            generator = torch.Generator().manual_seed(t)
            least = lanczos(lambda v: K @ v, len(K), KRYLOV, generator=generator)[0].value
            drift = float((K - self.tangent.K).norm() / self.tangent.K.norm())
        shares = getattr(self.problem, "dead", lambda: None)()
        dead = math.nan if shares is None else max(shares)
        promised = math.nan
        if self.eta is not None:
            shrink = bounds.contraction_factor(self.eta, max(self.local_rate.lambda0, 0.0))
            promised = max(shrink, 0.0) ** t * self._first
        plain = self._anchors[0].loss if self._batch is None else math.nan
        self.rows.append(
            Checkpoint(
                t, value, promised, plain, ahead if self._batch is None else math.nan, least, drift,
                moved, dead, self.violations,
            )
        )  # fmt: skip
        self.record.append(self.seed, t, lambda_min=least, drift=drift)
        if shares is not None:
            self.record.append(self.seed, t, dead=dead)

    def _compare(self, theta: Float64[Tensor, " P"]) -> None:
        """How far the step just taken is from -eta grad L, relative to it."""
        exact, held = self._expected, self._held
        self._expected = self._held = None
        known = exact or held
        if self.eta is None or known is None:
            return
        before, gradient = known
        size = self.eta * float(gradient.norm())
        off = float((theta - before + self.eta * gradient).norm())
        # Parameters round: a step below that, where it should be, cannot be told from another one.
        rounding = 4 * self._eps * float(before.norm())
        if max(size, off) <= rounding:
            return
        relative = max(off - rounding, 0.0) / size if size else math.inf
        self.record.append(self.seed, self._step, step_error=relative)
        self._checked, self._off = self._checked + (exact is not None), max(self._off, relative)

    def _hold(self, theta: Float64[Tensor, " P"]) -> None:
        """Keep the gradients of the caller's backward pass, for the steps that are not looked at closely.

        They are trusted as far as they were those of the loss when that was last computed here: a loop may
        call `step` before its backward pass, and then they are of the step before.
        """
        if any(p.grad is None for p in self._parameters):
            return
        gradient = flat([p.grad for p in self._parameters if p.grad is not None])
        if self._expected is not None:
            own = self._expected[1]
            self._current = float((gradient - own).norm()) <= SAME_STEP * float(own.norm())
        elif self._current:
            self._held = (theta, gradient)

    def _same(self, given: float, own: float) -> None:
        same = max(SAME_LOSS, 1e3 * self._eps)
        if abs(given - own) <= same * max(abs(own), abs(given)) + 100 * self._floor:
            return
        raise ValueError(
            f"loss must be |r|^2 / 2 = {own:.9g} of the parameters as they are now, at step "
            f"{self._step}, got {given:.9g}: call step() before optimizer.step(), with the loss of all rows; "
            "normalisation='mean' divides it by n; without a loss it is computed here; a forward pass that "
            "draws (dropout) has no one loss: model.eval()"
        )

    def _finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            self.record.update(self.seed, self._step, {name: value})
            self.record.flush()
            self._closed = True
            permitted = (
                1 / self.local_rate.lambda_max if self.local_rate.lambda_max > 0 else math.inf
            )
            advice = (
                f"lower the step size: the forecast needs at most 1/lambda_max = {permitted:.4g}"
            )
            raise NonFiniteError(name, self._step, value, advice=advice)

    def _residual(self) -> Float64[Tensor, " n"]:
        # A residual may differentiate the model in its inputs: not under no_grad.
        return self.problem.residual().detach().double().cpu()

    def _gradient(self) -> Float64[Tensor, " P"]:
        with torch.enable_grad():
            r = self.problem.residual()
            found = torch.autograd.grad(r @ r / 2, self._parameters, materialize_grads=True)
        return flat(found)

    def _note(self, n: int) -> None:
        c, t = self.local_rate, self.tangent
        dtypes = {str(p.dtype).removeprefix("torch.") for p in self._parameters}
        facts: dict[str, Any] = {"n": n, "pde_order": int(getattr(self.problem, "pde_order", 0))}
        order = getattr(self.problem, "spline_order", None)
        if order is not None:
            facts["spline_order"] = int(order)
        if self._batch is not None:
            facts |= {"batch": self._batch, "sampling": REPLACED}
        for dtype in sorted(dtypes):
            self.record.note(self.seed, dtype=dtype)
        self.record.note(self.seed, **facts)
        self.record.append(
            self.seed, 0, lambda0=t.lambda_min, lambda_max=t.lambda_max, r0=c.r0,
            rounding_floor=self._floor, largest_row=c.largest_row,
        )  # fmt: skip
        if order is not None:  # else Lambda is not known, and no infinity stands for it
            self.record.append(self.seed, 0, Lambda=c.Lambda, rho=c.rho, Lambda_rho=c.Lambda_rho)

    def close(self) -> None:
        """Note the last parameters, and by what method they were reached; a second call does nothing."""
        if self._closed:
            return
        if self._step and not torch.equal(flat(self._parameters), self._last):
            self._observe(None, True)
        elif self._step and self.rows[-1].step < self._step - 1:
            moved = float((self._last - self._start).norm())
            self._checkpoint(self._step - 1, self._before, moved, self._residual())
        self._closed = True
        if self._method is not None:
            self.record.note(self.seed, method=self._method)
        elif self._checked:
            told = f"other: steps are off -eta grad L by {self._off:.1%} of it"
            self.record.note(self.seed, method=GD if self._off <= SAME_STEP else told)
            self.record.note(self.seed, steps_compared=self._checked)
        self.record.flush()

    def __enter__(self) -> ConvergenceMonitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What stopped the run is told, not that the last parameters are NaN as well.
        if kind is None:
            self.close()
        else:
            self._closed = True

    def certificates(self) -> list[Certificate]:
        """T1 and T2 of the run, or T3 where it is stochastic; the method is known once it is closed.

        Raises
        ------
        ValueError
            No step has been noted yet.
        """
        if not self._step:
            raise ValueError("no step was noted: call step() in the loop, before optimizer.step()")
        return run_certificates(self.record)

    def to_dict(self) -> dict[str, Any]:
        """Constants at the start and the rows, as plain numbers."""
        start = {k: v for k, v in asdict(self.local_rate).items() if k != "assumptions"}
        return {
            "eta": self.eta, "start": start, "failing": list(self.local_rate.failing),
            "rows": [asdict(row) for row in self.rows], "violations": self.violations,
        }  # fmt: skip

    def report(self) -> str:
        """The verdicts with the number that decides each, and a table of the checkpoints."""
        lines = [str(self.local_rate)]
        permitted = 1 / self.local_rate.lambda_max if self.local_rate.lambda_max > 0 else math.nan
        used = "not known" if self.eta is None else f"{self.eta:.4g}"
        lines.append(
            f"step size: {used}; the forecast needs at most 1/lambda_max = {permitted:.4g}, T1 at most "
            f"{self.local_rate.step:.4g}"
        )
        said: dict[tuple[str, str], list[str]] = {}
        for c in self.certificates():
            told = "not covered: " if c.verdict is Verdict.NOT_PROMISED else ""
            unknown = ", ".join(a.name for a in c.assumptions if a.holds is None)
            if unknown and not told:
                told = f"by the numbers alone, conditions that nobody measured ({unknown}): "
            said.setdefault((c.label, told + c.reason), []).append(c.name)
        lines += [f"{label}: {', '.join(names)}: {why}" for (label, why), names in said.items()]
        of = f" of {self.step_count} steps" if self.eta is not None else "; eta is not known"
        lines += [f"violations of T1's rate: {self.violations}{of}", table(self.rows)]
        return "\n".join(lines)


@checked
def monitor(
    model: Any,
    X: Any = None,
    y: Any = None,
    *,
    eta: float | None = None,
    every: int = 50,
    seed: int = 0,
    record: Record | None = None,
    normalisation: Normalisation = "sum",
) -> ConvergenceMonitor:
    """Watch a loop of one's own.

    ```
    with monitor(model, X, y, eta=eta) as m:
        for _ in range(500):
            loss = 0.5 * ((model(X) - y) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            m.step(loss)        # before the parameters change
            optimizer.step()
    print(m.report())
    ```

    Parameters
    ----------
    model
        Any torch module, or a problem (`PIKAN`), at its start.
    X, y
        Points (n, d) and targets (n,) of a regression; of a problem None.
    eta
        The step size, against which steps are checked; None: the spectrum is shown, nothing is promised.
    every
        Steps between two checkpoints, each of which takes K and its eigenvalues: n^2 m C + n^3.
    seed, record
        Where the numbers go; by default a record of its own.
    normalisation
        "sum": L = sum r_i^2 / 2; "mean": that divided by n.

    Raises
    ------
    ValueError
        As `certificate`, or eta or every is no positive number.
    """
    problem = as_problem(model, X, y, normalisation)
    return ConvergenceMonitor(problem, eta=eta, every=every, seed=seed, record=record)
