"""Two points in one tensor: the parameters hold y_n, where the gradient is taken; promises are about x_n."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from surefoot.certificate import Certificate, certify, unmeasured
from surefoot.guarantee import Guarantee
from surefoot.nesterov.guarantee import GAP, strongly_convex_rate
from surefoot.record import Record

F_OF_ITERATE = "f(x_n)"


class LookAhead(torch.optim.Optimizer):
    """An optimizer whose parameters hold y_n and that can show x_n.

    Which of the two is loaded stands in every group as `point`, so that a checkpoint says it.

    `record` says what ran: as facts the optimizer, its hyperparameters as of its first step and whether
    they changed, whether it began from rest, and whether every parameter was stepped; as quantities
    the hyperparameters that a step changed to, and what `measure` was asked for. It is no part of the
    state dictionary: a run that goes on from one says so (`start` = "resumed").
    """

    record: Record

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._begin()
        super().__init__(params, defaults)

    def _begin(self) -> None:
        self.record = Record()
        self._steps = 0
        self._noted: set[int] = set()
        self._resumed = False

    def __getstate__(self) -> dict[str, Any]:
        kept = ("record", "_steps", "_noted", "_resumed")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also how torch loads a state dictionary, which knows nothing of a record.
        if "record" not in state:
            if "record" not in self.__dict__:
                self._begin()
            self._resumed = True
            self._noted = set()
        super().__setstate__(state)

    def _facts_of(self, group: dict[str, Any]) -> dict[str, Any]:
        """What to note of a group before its first step."""
        raise NotImplementedError

    def _note(self, index: int, group: dict[str, Any]) -> None:
        """Write down what is about to run, before the first step of a group."""
        if torch.compiler.is_compiling() or index in self._noted:
            return
        self._noted.add(index)
        moving = any(self.state.get(p) for p in group["params"])
        self.record.note(
            optimizer=type(self).__name__,
            start="resumed" if self._resumed else ("moving" if moving else "rest"),
            all_parameters=all(p.grad is not None for p in group["params"]),
            **self._facts_of(group),
        )
        for dtype in sorted({str(p.dtype) for p in group["params"]}):
            self.record.note(dtype=dtype.removeprefix("torch."))

    def _count(self, skipped: bool) -> None:
        """A step is done; `skipped` says that some parameter had no gradient."""
        if skipped and not torch.compiler.is_compiling():
            self.record.note(all_parameters=False)
        if not torch.compiler.is_compiling():
            self._steps += 1

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Steps and loads in here are a repetition of the run, not the run."""
        kept = {name: getattr(self, name) for name in ("record", "_steps", "_noted", "_resumed")}
        try:
            self._begin()
            yield
        finally:
            self.__dict__.update(kept)

    def measure(self, closure: Callable[[], Any], *, seed: int = 0) -> float:
        """f at the iterate x_n, where n is the number of steps so far; also noted in the record.

        One forward without gradients, and a copy of the parameters while it lasts. It is what
        `certificates` compares with the promise: measure at n = 0, before the first step, and then as
        often as you like.

        Parameters
        ----------
        closure
            Returns the loss over all data at whatever the parameters hold.
        seed
            The seed under which the record keeps it.
        """
        with self.iterate(), torch.no_grad():
            value = float(closure())
        self.record.update(seed, self._steps, {F_OF_ITERATE: value})
        return value

    def _rate(self, **constants: Any) -> Guarantee:
        """The theorem on this optimizer."""
        raise NotImplementedError

    def certificates(
        self,
        *,
        mu: float | None = None,
        L: float | None = None,
        f_star: float | None = None,
        dist0_sq: float | None = None,
        sigma_mult: float | None = None,
        sigma_add: float | None = None,
        how: str | None = None,
        strongly_convex: bool = False,
        confidence: float = 0.99,
    ) -> list[Certificate]:
        """The theorem on this optimizer beside what `measure` saw; hyperparameters come off the record.

        Every argument but the last is a constant of the problem, which a run cannot know; what is left out
        is not assumed. The ledger gives more where it can follow: it needs no mu of the landscape.

        Parameters
        ----------
        mu
            The constant of strong aiming of f.
        L
            Its smoothness.
        f_star
            Its infimum.
        dist0_sq
            The squared distance of x_0 to the minimisers; without it L_0 = 2 (f(x_0) - f*).
        sigma_mult, sigma_add
            The noise of the gradients, E|g - grad f|^2 <= sigma_add^2 + sigma_mult^2 |grad f|^2; both 0 for
            full gradients.
        how
            How these constants were found; without it no condition that rests on them is called true.
        strongly_convex
            f is convex and mu is its strong convexity: the tighter rate of `strongly_convex_rate` is judged
            as well. It is made for full gradients and NAG, and not promised of anything else.
        confidence
            As in `surefoot.certify`.

        Returns
        -------
        list[Certificate]
            One, or with `strongly_convex` two. UNDECIDED, with what to do, where f(x_n), f* or a
            hyperparameter is not on record.
        """
        noisy = bool(sigma_mult or sigma_add) or sigma_mult is None or sigma_add is None
        told: dict[str, Any] = {
            "mu": mu, "L": L, "dist0_sq": dist0_sq, "sigma_mult": sigma_mult, "sigma_add": sigma_add,
            "how": how,
        }  # fmt: skip
        rates = [self._rate(**told, every_run=not noisy)]
        if strongly_convex:
            rates.append(strongly_convex_rate(**told))
        record = Record.concat([self.record])
        todo = ""
        if F_OF_ITERATE not in record:
            todo = "call optimizer.measure(closure) before the first step and then as often as you like"
        elif f_star is None:
            todo = "pass f_star, the infimum of f"
        else:
            for seed in record.seeds:
                curves = record.curves(F_OF_ITERATE)
                if seed in curves.seeds:
                    values = curves.values[list(curves.seeds).index(seed)]
                    record.extend(seed, GAP, values - f_star, curves.steps)
        return [_judged(record, rate, todo, confidence) for rate in rates]

    def _shift(self, sign: int) -> None:
        """Add sign * (x_n - y_n) to the parameters."""
        raise NotImplementedError

    def _rest(self) -> None:
        """Set the velocity to 0."""
        raise NotImplementedError

    @property
    def holds_iterate(self) -> bool:
        """Whether the parameters hold x_n, not y_n."""
        return any(group.get("point") == "x" for group in self.param_groups)

    def _name(self, point: str) -> None:
        for group in self.param_groups:
            group["point"] = point

    def _refuse_iterate(self) -> None:
        if self.holds_iterate:
            raise RuntimeError(
                "step() inside iterate(): the parameters hold x_n; leave the block first, or call "
                "resume() before the next gradient if this state was saved inside one"
            )

    @contextmanager
    def iterate(self) -> Iterator[None]:
        """The parameters temporarily hold the iterate x_n, which the guarantee is about.

        On leaving, y_n is restored bit for bit from a copy. Inside another such block, or where x_n is
        loaded already, nothing moves. A step inside raises RuntimeError. A state saved inside, with
        the model beside it, is taken up again by `resume`.
        """
        if self.holds_iterate:
            yield
            return
        saved = [(p, p.detach().clone()) for g in self.param_groups for p in g["params"]]
        try:
            self._shift(1)
            self._name("x")
            yield
        finally:
            self._name("y")
            with torch.no_grad():
                for p, y in saved:
                    p.copy_(y)

    def finalize(self) -> None:
        """Leave x_n in the parameters and start from rest, as at the end of training."""
        if not self.holds_iterate:
            self._shift(1)
        self._rest()
        self._name("y")
        self._noted = set()  # steps after this one are another run, which does not begin at n = 0

    def resume(self) -> None:
        """Go on from a checkpoint that was written inside `iterate`: y_n takes the place of x_n.

        Load model and optimizer first. y_n is recomputed, so equal to the one that was left up to
        rounding; a checkpoint written outside `iterate` continues bit for bit and needs no `resume`.
        """
        if self.holds_iterate:
            self._shift(-1)
            self._name("y")


def _judged(record: Record, rate: Guarantee, todo: str, confidence: float) -> Certificate:
    if not todo:
        try:
            rate.bound(record)
        except ValueError as error:
            todo = str(error)
    return unmeasured(record, rate, todo) if todo else certify(record, rate, confidence)
