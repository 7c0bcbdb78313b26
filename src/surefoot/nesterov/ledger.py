"""Record the exact Lyapunov ledger of a run, at most two forwards and one dot product a step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from math import isclose, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.nesterov._ledger.certificate import COLUMNS, LedgerCertificate
from surefoot.nesterov._ledger.landscape import ANCHOR_MISS, FAILS, Circumstances
from surefoot.nesterov._ledger.lyapunov import VALUE_ROUNDING, State, dot, rounding, terms_of
from surefoot.nesterov._ledger.measured import MeasuredLedger, ledger_certificates
from surefoot.nesterov._ledger.velocity import hyperparameters, method, velocity
from surefoot.nesterov._optimizer.lookahead import LookAhead
from surefoot.nesterov.parameters import AgnesParams
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.nesterov.probe import Landscape

Anchor = Literal["final", "project"] | Tensor | Callable[[Tensor], Tensor]
REPLAYED = 1e-6
RESOLVED = 1e-16


class SmoothnessWarning(UserWarning):
    """The step size is larger than the smoothness met on the way allows."""


class LedgerRecord(Record):
    """The core record of a ledger; calling it is `Ledger.observe`, as `ledger.record()` always was.

    Parameters
    ----------
    observe
        What a call does; a copy of the record has none.
    """

    _observe: Callable[..., None] | None = None

    def __init__(self, observe: Callable[..., None] | None = None) -> None:
        super().__init__()
        if observe is not None:
            self._observe = observe

    def __call__(self, loss: float | Tensor | None = None) -> None:
        """Note the state before a step, see `Ledger.observe`."""
        if self._observe is None:
            raise TypeError("this record is a copy, no ledger observes through it")
        self._observe(loss)

    def __getstate__(self) -> dict[str, Any]:
        # A ledger holds a closure and tensors; its record travels without it.
        return {name: value for name, value in self.__dict__.items() if name != "_observe"}


@showing
@checked
class Ledger:
    """The ledger of one run of NAG, AGNES or torch's SGD with nesterov=True.

    ```
    ledger = Ledger(opt, closure, mu=1e-3, eta=1 / L)
    for _ in range(steps):
        opt.zero_grad()
        loss = closure()
        loss.backward()
        ledger.observe()     # immediately before the step: the parameters hold y_n
        opt.step()
    print(ledger.close().summary())
    ```

    Parameters
    ----------
    optimizer
        Its parameters must be float64: the ledger resolves 1e-10 of L_n, which float32 cannot.
    closure
        Returns the loss over all data, with its graph, at whatever the parameters hold; calls
        neither `backward` nor `zero_grad`, and gives the same value for the same parameters.
    mu
        The constant of mu-strong aiming that the promise is made for.
    eta
        The step of size at most 1/L. For AGNES pass `params` as well.
    f_star
        The infimum of f; None: not known, the verdict is then unknown. It is held against f at the
        anchors and at every point of the run: where they differ from it, or lie below it, by more than
        1e-6 (f(x_0) - f*), the verdict is unknown and names it.
    anchor
        The minimisers p_n that distances are taken to. "final": the last iterate, which needs no
        projection and works at any size; `close` replays the run to use it. "project": the closest
        minimiser, by `landscape.project`, also in a replay. A flat tensor, or a callable from the
        flat y to the flat p, where f is evaluated at each p as well.
    every
        Record every so many steps. The bound that holds whatever the landscape is needs 1, or a
        replay, which records every step.
    params
        The AGNES constants; by default those of NAG with this mu and eta.
    landscape
        The `Landscape` whose `project` serves anchor="project".

    Raises
    ------
    ValueError
        An argument out of range, or an optimizer that does not run the method of the theorem.
    RuntimeError
        A non-finite gradient.

    Attributes
    ----------
    record
        The core record: facts of the optimizer and the ledger from the beginning, the terms as
        quantities after closing. Calling it is `observe`.

    Notes
    -----
    Source: in the setting of arXiv 2410.08395; the identity is derived in `_ledger/lyapunov.py`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        closure: Callable[[], Tensor],
        *,
        mu: float,
        eta: float,
        f_star: float | None = 0.0,
        anchor: Anchor = "final",
        every: int = 1,
        params: AgnesParams | None = None,
        landscape: Landscape | None = None,
    ) -> None:
        _check_arguments(mu, eta, every, anchor, landscape)
        s = sqrt(mu * eta)
        self._rule = params or AgnesParams(
            eta=eta, alpha=eta, rho=(1 - s) / (1 + s), s=s, gamma=sqrt(eta), beta=sqrt(eta)
        )
        self._optimizer, self._closure = optimizer, closure
        if f_star is not None:
            check_number("f_star", f_star)
        self._mu, self._f_star, self._every = mu, f_star, every
        self._anchor, self._landscape = anchor, landscape
        self._parameters = [p for g in optimizer.param_groups for p in g["params"]]
        _check_optimizer(optimizer, self._parameters, self._rule)
        self._replays = isinstance(anchor, str)
        self._changed = False
        self.record = LedgerRecord(self.observe)
        self.record.note(**self._facts())
        self._start: tuple[list[Tensor], dict[str, Any]] | None = None
        self._calls = 0
        self._rows: dict[str, list[float]] = {c: [] for c in COLUMNS}
        self._steps: list[int] = []
        self._open: State | None = None
        self._previous: tuple[int, float, float, float, float] | None = None
        self._warned = self._foreign = False
        self._f0: float | None = None
        self._lowest = float("inf")
        self._f_anchor = float("nan")
        if isinstance(anchor, Tensor):
            self._f_anchor = self._check_anchor(anchor)

    def _check_anchor(self, anchor: Float[Tensor, " P"]) -> float:
        size = sum(p.numel() for p in self._parameters)
        if anchor.shape != (size,):
            raise ValueError(f"anchor must have shape ({size},), got {tuple(anchor.shape)}")
        f0, f_anchor = self._forward(), self._f_at(anchor)
        if self._f_star is not None:
            allowed = Circumstances(0.0, self._f_star, f0, f0).tolerance
            if not abs(f_anchor - self._f_star) <= allowed:
                raise ValueError(
                    "anchor is not a minimiser, or f_star is wrong: f(anchor) - f* = "
                    f"{f_anchor - self._f_star:.3g} with f_star = {self._f_star:.6g}, allowed is at "
                    f"most {ANCHOR_MISS:g} (f(start) - f*) = {allowed:.3g}"
                )
        return f_anchor

    def _f_at(self, point: Float[Tensor, " P"]) -> float:
        """f at a flat point; the parameters come back bit for bit."""
        saved = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for p, part in zip(
                self._parameters, torch.split(point, [q.numel() for q in saved]), strict=True
            ):
                p.copy_(part.reshape(p.shape))
            value = float(self._closure())
            for p, kept in zip(self._parameters, saved, strict=True):
                p.copy_(kept)
        return value

    def _f_at_anchor(self, p: Float[Tensor, " P"]) -> float:
        # One anchor for all steps was looked at once: Ledger(anchor="final") pays no forward for it.
        one = isinstance(self._anchor, Tensor) or self._anchor == "final"
        return self._f_anchor if one else self._f_at(p)

    def observe(self, loss: float | Tensor | None = None) -> None:
        """Note the state before a step. `loss`, if given, is f(y_n) and saves one forward."""
        if self._start is None:
            state = copy.deepcopy(self._optimizer.state_dict())
            self._start = ([p.detach().clone() for p in self._parameters], state)
        n = self._calls
        _check_gradients(self._parameters, n)
        self._changed |= _mismatch(self._optimizer, self._rule) is not None
        self._calls += 1
        due = n % self._every == 0
        if not due and self._open is None and self._previous is None:
            return
        f_x = self._f_at_x()
        if self._f0 is None:
            self._f0 = f_x
        self._check_smoothness(n, f_x)
        y, v = self._flat(), self._flat_velocity()
        p = None if self._replays else self._anchor_of(y)
        if self._open is not None and p is not None:
            self._finish(self._open, f_x, v, y, p)
        self._open = None
        if not due:
            return
        f_y = float(loss) if loss is not None else self._forward()
        self._lowest = min(self._lowest, f_x, f_y)
        g = self._flat_gradient()
        gg = dot(g, g)
        self._previous = (n, f_x, f_y, gg, rounding((f_x, f_y), (y,), sqrt(gg)))
        if p is not None:
            self._open = State(y, v, g, p, f_x, f_y, self._f_at_anchor(p))
            self._steps.append(n)

    def close(self, *, judge: int | None = None) -> LedgerCertificate:
        """Finish the ledger and judge it; `judge` limits the judged steps to the first so many.

        With anchor "final" or "project" the run is replayed from its start: one forward-backward
        and one forward a step. Parameters, gradients and optimizer state are left as they were.
        """
        return self.certificates(judge=judge)[0]

    def certificates(self, *, judge: int | None = None) -> list[LedgerCertificate]:
        """What `close` returns, in a list of one; afterwards `record` holds the ledger it rests on."""
        Record.__init__(self.record)  # an earlier closing is not part of this one
        self.measure(judge=judge).write(self.record)
        return ledger_certificates(self.record)

    def measure(self, *, judge: int | None = None) -> MeasuredLedger:
        """Like `close`, but return what was measured."""
        if self._start is None:
            raise RuntimeError("close() without a recorded step: call observe() before each step")
        unknown = None
        final_f = self._f_at_x()
        self._lowest = min(self._lowest, final_f)
        if self._replays:
            if self._anchor == "final":
                self._f_anchor = final_f
            unknown = self._replay(judge)
        elif self._open is not None:
            y = self._flat()
            self._finish(self._open, final_f, self._flat_velocity(), y, self._anchor_of(y))
            self._open = None
        terms = {c: np.array(rows[: judge or None]) for c, rows in self._rows.items()}
        return MeasuredLedger(
            np.array(self._steps[: len(terms["L"])], dtype=np.int64),
            terms,
            Circumstances(
                s=self._rule.s,
                f_star=self._f_star,
                f0=self._f0_value(),
                lowest=self._lowest,
                unknown=unknown,
                diverged=not final_f < self._f0_value(),
                foreign=self._foreign,
            ),
            self._facts(),
        )

    def _facts(self) -> dict[str, Any]:
        anchor = self._anchor if isinstance(self._anchor, str) else "callable"
        group = self._optimizer.param_groups[0]
        return {
            "optimizer": type(self._optimizer).__name__,
            "method": method(self._optimizer),
            **hyperparameters(self._optimizer, group),
            "weight_decay": float(group.get("weight_decay", 0.0)),
            "maximize": bool(group.get("maximize", False)),
            "hyperparameters_changed": self._changed,
            "dtype": "float64",
            "mu": self._mu,
            "anchor": "fixed" if isinstance(self._anchor, Tensor) else anchor,
            "every": self._every,
            "replayed": self._replays,
        }

    def _f0_value(self) -> float:
        assert self._f0 is not None
        return self._f0

    def certify_mu(self) -> float:
        """The largest mu' <= mu for which aiming holds at every recorded step; call it after close.

        A statement about the landscape along this path, not about a run that would use mu'.
        """
        found = np.array(self._rows["mu_aim"])
        found = found[np.isfinite(found)]
        return float(max(0.0, min(self._mu, found.min()))) if len(found) else self._mu

    def _forward(self) -> float:
        with torch.no_grad():
            return float(self._closure())

    def _f_at_x(self) -> float:
        """f at the iterate x_n = y_n - alpha v_n; the parameters come back bit for bit."""
        saved = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for p in self._parameters:
                v = velocity(self._optimizer, p, self._rule)
                if v is not None:
                    p.sub_(v, alpha=self._rule.alpha)
            value = float(self._closure())
            for p, y in zip(self._parameters, saved, strict=True):
                p.copy_(y)
        return value

    def _flat(self) -> Float[Tensor, " P"]:
        return torch.cat([p.detach().reshape(-1) for p in self._parameters])

    def _flat_velocity(self) -> Float[Tensor, " P"]:
        found = [(p, velocity(self._optimizer, p, self._rule)) for p in self._parameters]
        return torch.cat(
            [(torch.zeros_like(p) if v is None else v).detach().reshape(-1) for p, v in found]
        )

    def _flat_gradient(self) -> Float[Tensor, " P"]:
        return torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).detach().reshape(-1)
                for p in self._parameters
            ]
        )

    def _anchor_of(self, y: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        if isinstance(self._anchor, Tensor):
            return self._anchor
        assert callable(self._anchor)
        return self._anchor(y)

    def _finish(
        self,
        now: State,
        f_next: float,
        v_next: Float[Tensor, " P"],
        y_next: Float[Tensor, " P"],
        p_next: Float[Tensor, " P"],
    ) -> None:
        row = terms_of(
            now, f_next, v_next, y_next, p_next, self._rule, self._mu, self._f_star or 0.0
        )
        for name in COLUMNS:
            self._rows[name].append(row[name])

    def _check_smoothness(self, n: int, f_x: float) -> None:
        """Warn at the first step that the step size was too long for; known one step later."""
        if self._previous is None:
            return
        (m, f_x_before, f_y, gg, noise), self._previous = self._previous, None
        eta = self._rule.eta
        excess = f_x - f_y + self._rule.gamma**2 / 2 * gg
        if self._f_star is None:
            gap, resolved = abs(f_x_before), True
        else:
            gap = f_x_before - self._f_star
            resolved = gap > RESOLVED * (self._f0_value() - self._f_star)
        # Far down, the difference of two values of f is rounding and no news about smoothness.
        limit = FAILS * gap + max(noise, VALUE_ROUNDING * abs(f_x))
        if m == n - 1 and not self._warned and resolved and excess > limit and gg > 0:
            self._warned = True
            needed = eta * 2 * (f_x - f_y + eta * gg) / (eta**2 * gg)
            miss = self._gradient_miss()
            self._foreign = not miss <= REPLAYED
            if self._foreign:
                warnings.warn(
                    f"step {m}: f did not fall as a step along its gradient has it fall, and the gradient of "
                    f"step {n} is not that of the closure, but {miss:.3g} (relative) away (minibatches?): "
                    "the ledger is one of full gradients, and says nothing about the step size before",
                    SmoothnessWarning,
                    stacklevel=3,
                )
                return
            warnings.warn(
                f"step {m}: eta * L_needed = {needed:.4g} > 1, the step size eta = {eta:.4g} is too "
                f"long for the smoothness met there; use eta <= {eta / needed:.4g}",
                SmoothnessWarning,
                stacklevel=3,
            )

    def _gradient_miss(self) -> float:
        """How far the gradient that is there is from that of the closure, relative to the latter."""
        with torch.enable_grad():
            found = torch.autograd.grad(self._closure(), self._parameters, allow_unused=True)
        own = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).detach().reshape(-1)
                for p, g in zip(self._parameters, found, strict=True)
            ]
        )
        size = float(own.norm())
        return float((self._flat_gradient() - own).norm()) / size if size else 0.0

    def _replay(self, judge: int | None) -> str | None:
        """Run again from the saved start with the anchors known; return what went wrong, if so."""
        assert self._start is not None
        total = self._calls if judge is None else min(judge, self._calls)
        end = [p.detach().clone() for p in self._parameters]
        gradients = [p.grad for p in self._parameters]
        state = copy.deepcopy(self._optimizer.state_dict())
        y_end, v_end = self._flat(), self._flat_velocity()
        self._rows = {c: [] for c in COLUMNS}
        self._steps = []
        final = y_end - self._rule.alpha * v_end
        problem = None
        optimizer = self._optimizer
        repeat = optimizer._unrecorded() if isinstance(optimizer, LookAhead) else nullcontext()
        with ExitStack() as stack:
            stack.enter_context(repeat)
            stack.callback(self._restore_all, end, state, gradients)
            self._restore(*self._start)
            before: State | None = None
            for n in range(total + 1):
                f_x, y, v = self._f_at_x(), self._flat(), self._flat_velocity()
                if self._anchor == "project":
                    p, problem = self._project(y, end)
                    if problem is not None:
                        return f"{problem} at step {n}"
                else:
                    p = final
                if before is not None:
                    self._finish(before, f_x, v, y, p)
                    self._steps.append(n - 1)
                if n == total:
                    break
                f_y = self._backward()
                before = State(y, v, self._flat_gradient(), p, f_x, f_y, self._f_at_anchor(p))
                self._optimizer.step()
            if total == self._calls:
                problem = _same_end(self._flat(), y_end)
        return problem

    def _restore_all(
        self, values: list[Tensor], state: dict[str, Any], gradients: list[Tensor | None]
    ) -> None:
        self._restore(values, state)
        for p, grad in zip(self._parameters, gradients, strict=True):
            p.grad = grad

    def _backward(self) -> float:
        for p in self._parameters:
            p.grad = None
        with torch.enable_grad():
            loss = self._closure()
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _restore(self, values: list[Tensor], state: dict[str, Any]) -> None:
        with torch.no_grad():
            for p, value in zip(self._parameters, values, strict=True):
                p.copy_(value)
        # An empty state would leave the buffers of the run in place.
        self._optimizer.state.clear()
        self._optimizer.load_state_dict(copy.deepcopy(state))

    def _project(
        self, y: Float[Tensor, " P"], end: list[Tensor]
    ) -> tuple[Float[Tensor, " P"], str | None]:
        assert self._landscape is not None
        here = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for p, value in zip(self._parameters, end, strict=True):
                p.copy_(value)
            try:
                found = self._landscape.project(y)
            finally:
                for p, value in zip(self._parameters, here, strict=True):
                    p.copy_(value)
        if not found.ok:
            return y, (
                f"projection failed (residual {found.residual:.3g}, optimality "
                f"{found.optimality:.3g})"
            )
        return found.point, None


def _same_end(replayed: Float[Tensor, " P"], run: Float[Tensor, " P"]) -> str | None:
    if torch.equal(replayed, run):
        return None
    gap = float((replayed - run).norm() / run.norm())
    if gap <= REPLAYED:
        return None
    return (
        f"the replay did not end where the run did, but {gap:.3g} (relative) away: its gradients were "
        "not those of the closure (minibatches?)"
    )


def _check_arguments(
    mu: float, eta: float, every: int, anchor: Anchor, landscape: Landscape | None
) -> None:
    check_number("mu", mu, above=0)
    check_number("eta", eta, above=0)
    if mu * eta > 1:
        raise ValueError(f"mu * eta must be <= 1, got {mu} * {eta} = {mu * eta}")
    check_number("every", every, least=1, whole=True)
    known = anchor in ("final", "project") if isinstance(anchor, str) else False
    if not known and not isinstance(anchor, Tensor) and not callable(anchor):
        raise ValueError(
            f'anchor must be "final", "project", a flat tensor or a callable, got {anchor!r}'
        )
    if isinstance(anchor, str) and anchor == "project" and landscape is None:
        raise ValueError('anchor="project" needs landscape=Landscape(model, loss_fn, data)')


def _check_optimizer(
    optimizer: torch.optim.Optimizer, parameters: list[Tensor], rule: AgnesParams
) -> None:
    for i, p in enumerate(parameters):
        if p.dtype != torch.float64:
            raise ValueError(
                f"parameter {i} is {p.dtype}; the ledger needs float64 (use model.double()), as it "
                "resolves 1e-10 of the Lyapunov function"
            )
    other = _mismatch(optimizer, rule)
    if other is not None:
        raise ValueError(other)
    for i, group in enumerate(optimizer.param_groups):
        if group.get("weight_decay"):
            raise ValueError(
                f"weight_decay must be 0 in parameter group {i}, got {group['weight_decay']}; put "
                "the penalty into the closure"
            )
        if group.get("maximize"):
            raise ValueError("maximize must be False: the ledger bounds a minimisation")


def _mismatch(optimizer: torch.optim.Optimizer, rule: AgnesParams) -> str | None:
    for i, group in enumerate(optimizer.param_groups):
        found = hyperparameters(optimizer, group)
        for name, value in (("eta", rule.eta), ("alpha", rule.alpha), ("rho", rule.rho)):
            if not isclose(found[name], value, rel_tol=1e-9, abs_tol=1e-15):
                s = (1 - found["rho"]) / (1 + found["rho"])
                return (
                    f"parameter group {i} has {name} = {found[name]:.6g}, the ledger was given mu and "
                    f"eta that ask for {value:.6g}; its rho belongs to mu = {s * s / rule.eta:.6g}"
                )
    return None


def _check_gradients(parameters: list[Tensor], n: int) -> None:
    for i, p in enumerate(parameters):
        if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
            raise RuntimeError(f"the gradient of parameter {i} is not finite at step {n}")
