"""One zeroth-order step from its parts: directions, evaluation, running mean, rule, log."""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine import evaluation as evaluations
from surefoot.zeroth_order._engine.digest import digest_of
from surefoot.zeroth_order._engine.directions import Directions
from surefoot.zeroth_order._engine.distributed import Reducer
from surefoot.zeroth_order._engine.evaluation import Closure, Difference, Evaluation, Losses
from surefoot.zeroth_order._engine.paired.pairing import Pairing
from surefoot.zeroth_order._engine.paired.quality import measured
from surefoot.zeroth_order._engine.prefix_once import PrefixOnce
from surefoot.zeroth_order._engine.private_estimate import estimate_each
from surefoot.zeroth_order._engine.private_sum import PrivateSum
from surefoot.zeroth_order._engine.resolution import FlatLosses, warn_of_rounding, warn_of_skipped
from surefoot.zeroth_order._engine.rules import Rule
from surefoot.zeroth_order._engine.scalars import RunningMean
from surefoot.zeroth_order._engine.self_check import SelfCheck
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.private import Privacy


class Engine:
    """What every zeroth-order optimizer does, apart from being a `torch.optim.Optimizer`.

    Parameters
    ----------
    method
        The name that logs and states carry.
    settings, rule
        What was set, and how c U becomes a step.
    tensors, groups
        The trained tensors, and the optimizer's own list of parameter groups.
    reducer, log
        The mean over processes; where scalars are written, or None.
    self_check
        Look on the first step whether hooks see every use of the weights.
    model
        The module, where it is known.
    precision, copies_at_once
        Of forwards that hold several copies.
    privacy
        The mechanism that a step releases its scalars through; None: they leave as they are.

    Attributes
    ----------
    last
        Of the last step: loss_plus, loss_minus, c, skipped, fd_error.
    skipped
        How many steps were skipped: c was not finite, or there was nothing to count.
    decay
        For each group the product of (1 - lr * weight_decay) since the period began.
    """

    def __init__(
        self,
        method: str,
        settings: Settings,
        rule: Rule,
        tensors: list[TrainedTensor],
        groups: list[dict[str, Any]],
        *,
        reducer: Reducer,
        log: StepLog | None = None,
        self_check: bool = True,
        model: nn.Module | None = None,
        precision: str = "auto",
        copies_at_once: int | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        self.privacy = privacy
        # Tells a private run from others in its record; goes on with its state.
        self.run_id = "" if privacy is None else secrets.token_hex(8)
        self.method, self.settings, self.rule = method, settings, rule
        self.tensors, self.groups = tensors, groups
        self.directions = Directions(tensors, groups, settings)
        value = checks.loss_value if privacy is None else checks.losses_of_examples
        self.losses = Losses(self.abandon, model, PrefixOnce(model, tensors), value)
        self.mean: RunningMean = RunningMean()
        if privacy is not None:
            self.mean = PrivateSum(privacy, settings.num_directions)
        self.reducer, self.log = reducer, log
        self.self_check = SelfCheck(settings.seed) if self_check else None
        self.pairing = Pairing(model, self.directions, self.losses, precision, copies_at_once)
        self.flat = FlatLosses()
        self.last: dict[str, Any] = {}
        self.decay = [1.0] * len(groups)
        # How often fd_error has perturbed the weights since the last step: in place, a replay repeats it.
        self.fd_errors = self.skipped = 0
        self._looked = False

    # -- evaluating ---------------------------------------------------------------------------------------

    @property
    def evaluation(self) -> Evaluation:
        """How the losses of a step are evaluated."""
        if self.settings.one_sided:
            return evaluations.one_sided
        return evaluations.leave_one_out if self.settings.leave_one_out else evaluations.two_sided

    def estimate(
        self,
        closure: Callable[..., Any],
        weight: float | None,
        *,
        restore: bool,
        evaluation: Evaluation | None = None,
        batch: Any = None,
        paired: bool | str = "auto",
    ) -> float:
        """Add c of one micro-batch to the running mean of this step.

        Parameters
        ----------
        closure
            Returns the loss of the micro-batch.
        weight
            Of the micro-batch, or None.
        restore
            Bring the iterate back; else that and the update are one pass over the weights.
        evaluation
            How to evaluate; by default as the settings say.
        batch
            What the closure is called with; None: nothing.
        paired
            Whether one forward may hold all copies of the batch.
        """
        once = closure if batch is None else functools.partial(self.pairing.once, closure, batch)
        eps = evaluations.eps_of(self.directions)
        self.mean.check(weight)
        if weight == 0:
            return self._nothing()
        with self.losses.together(once):
            self.losses.prefix.look(lambda: self.losses.raw(once))
            # At a zero before it the step has begun, but nothing was looked at.
            if self.mean.sums is None or self.self_check is not None:
                self.begin_step(once, None if batch is None else paired)
            if batch is None:
                found = self._apart(once, evaluation)
            else:
                found = self.pairing(closure, batch, paired, self._apart)
        if self.settings.normalize:
            found = evaluations.normalized(found, eps)
        if restore or len(found) > 1:
            self.directions.release()
        c = self.mean.add([f.c for f in found], weight)
        plus, minus = (float(np.mean([f[j] for f in found])) for j in (0, 1))
        self.last = {"loss_plus": plus, "loss_minus": minus, "fd_error": None}
        if batch is not None:
            self.last["how"] = self.pairing.how
        self.flat.look(found)
        return c

    def estimate_each(self, closure: Callable[..., Any], batch: Any, *, restore: bool) -> None:
        """Add the clipped c of each example of a micro-batch to the private sum of this step.

        Parameters
        ----------
        closure, batch
            Returns one loss an example; what it is called with, or None.
        restore
            Bring the iterate back; else that and the update are one pass over the weights.
        """
        assert isinstance(self.mean, PrivateSum)
        found = estimate_each(self, closure, batch)
        if restore or self.settings.num_directions > 1:
            self.directions.release()
        self.mean.include(found)
        self.last = {}

    def _apart(self, closure: Closure, evaluation: Evaluation | None = None) -> list[Difference]:
        """A forward for each loss."""
        return (evaluation or self.evaluation)(lambda: self.losses(closure), self.directions)

    def _nothing(self) -> float:
        """A micro-batch without anything to count: its loss may be 0 / 0 and is not asked for."""
        if self.mean.sums is None:
            self.begin_step()
        self.mean.add([0.0] * self.settings.num_directions, 0.0)
        if not self.mean.micro_batches:
            self.last = {"loss_plus": math.nan, "loss_minus": math.nan, "fd_error": None}
        return 0.0

    def begin_step(self, closure: Closure | None = None, paired: bool | str | None = None) -> None:
        """Draw V where a period starts, and look once at what training starts from.

        Parameters
        ----------
        closure
            Of the loss, to look with.
        paired
            What the log's header says of it; None: no batch was given.
        """
        self._check_log()
        self.directions.begin_period(self.rule.renewed)
        if self.log is not None and not self.log.header:
            self.directions.release()
            self.log.begin(self.method, self.all_settings(), self.groups, self.tensors)
            if paired is not None:
                self.log.header |= {"paired": paired, "precision": self.pairing.precision}
            if self.privacy is not None:
                self.log.header["privacy"] = self.privacy.to_dict()
        if self.directions.t == 0 and not self._looked:
            self._looked = True
            warn_of_rounding(self.directions)
            if self.reducer.size > 1:
                self.reducer.expect(digest_of(self.tensors))
        if closure is not None and self.self_check is not None:
            done = self.self_check.run(self.tensors, lambda: self.losses(closure))
            self.pairing.autocast = self.self_check.autocast
            self.self_check = None if done else self.self_check

    def _check_log(self) -> None:
        frozen = [x.name for x in self.tensors if x.frozen]
        if self.log is not None and frozen:
            raise ValueError(
                f"{frozen[0]} was frozen after the optimizer was made, which the log cannot tell a replay: "
                "freeze it before, or go on without log="
            )

    def abandon(self) -> None:
        """Back to the iterate and to before this step's first estimate."""
        self.directions.release()
        self.mean.clear()

    def all_settings(self) -> dict[str, Any]:
        """As a log's header and a state hold them."""
        return self.settings.to_dict() | self.rule.settings()

    # -- moving on ----------------------------------------------------------------------------------------

    def released(self) -> Float[np.ndarray, " q"]:
        """c of this step: the mean over micro-batches and processes, or what the mechanism lets go."""
        if isinstance(self.mean, PrivateSum):
            return self.mean.sum(noise=True) / self.mean.privacy.divisor
        assert self.mean.sums is not None
        with np.errstate(invalid="ignore"):  # 0 / 0 where there was nothing to count
            return self.reducer.mean(self.mean.sums, self.mean.total, bool(self.mean.weighted))

    def apply(self, given: Float[np.ndarray, " q"] | None = None) -> list[float]:
        """Average c over processes, log it, move on; returns the rates that were used, one a group.

        Parameters
        ----------
        given
            c from elsewhere, in place of what was estimated here.
        """
        # What is used is what the log can hold; else a replay would not be exact.
        scalars = (self.released() if given is None else given).astype(np.float32)
        if self.settings.c_clip is not None:
            bound = self.settings.c_clip
            scalars = np.clip(scalars, -bound, bound).astype(np.float32)
        rates = [float(np.float32(g["lr"])) for g in self.groups]
        if not np.isfinite(scalars).all():
            self._skip()
        if self.log is not None:
            fused = self.mean.micro_batches == 1 and self.directions.at != 0
            how = (self.mean.micro_batches, fused, self.fd_errors)
            if self.privacy is not None:
                # The same at every step: how many micro-batches there were tells of the data.
                how = (1, False, 0)
            self.log.add(scalars, rates, how, [[g["rank"], g["weight_decay"]] for g in self.groups])
        self.advance(scalars, rates)
        if self.log is not None:
            self.log.write_now_and_then()
        return rates

    def _skip(self) -> None:
        self.skipped += 1
        if self.skipped == 1:
            warn_of_skipped(self.directions.t, self.last, counted=self.mean.total > 0)

    def advance(self, scalars: np.ndarray, rates: list[float]) -> None:
        """Use the scalars of this step: shared with the replay of a log."""
        skipped = not np.isfinite(scalars).all()
        self.last |= {"c": float(scalars.mean()), "skipped": skipped}
        if skipped:
            self.directions.release()
        else:
            self.update(scalars, rates)
        for i, group in enumerate(self.groups):
            self.decay[i] *= 1 - rates[i] * group["weight_decay"]
        self.directions.t += 1
        self.fd_errors = 0
        self.mean.clear()
        self.directions.forget()
        if self.directions.t % self.settings.nu == 0:
            self._end_period()

    def update(self, scalars: np.ndarray, rates: list[float]) -> None:
        """X <- X - lr * step, and the model sees the iterate."""
        directions = self.directions
        single = len(scalars) == 1
        for tensor in self.tensors:
            if tensor.frozen:
                continue
            perturb, update = directions.scale_of(tensor)
            rate = rates[tensor.group]
            if self.rule.stateless:
                # Restoring and updating are one pass over the weights.
                if single:
                    held = directions.held(tensor, 0)
                    tensor.restore_and_update(held, -rate * float(scalars[0]), perturb, update)
                else:
                    step = self._combined(tensor, scalars)
                    tensor.restore_and_update(step, -rate, perturb, update)
                continue
            mean = self._mean_direction(tensor, scalars, perturb)
            tensor.update(self.rule.step(tensor, mean), -rate, update)
            tensor.position = 0.0

    def _mean_direction(self, tensor: TrainedTensor, scalars: np.ndarray, perturb: float) -> Tensor:
        if len(scalars) > 1:
            return self._combined(tensor, scalars)
        held = self.directions.held(tensor, 0)
        if tensor.position:
            tensor.place(held, 0.0, perturb)
        return held * float(scalars[0])

    def _combined(self, tensor: TrainedTensor, scalars: np.ndarray) -> Tensor:
        """mean_i c_i U_i."""
        total: Tensor | None = None
        for i, c in enumerate(scalars):
            part = self.directions.draw(tensor, i) * (float(c) / len(scalars))
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _end_period(self) -> None:
        period = self.directions.t // self.settings.nu - 1
        for tensor in self.tensors:
            if tensor.storage != "inplace" and not tensor.dense and tensor.b is not None:
                if self.settings.fold:
                    tensor.fold()
                else:
                    error = tensor.keep(period, self.settings.rank_cap)
                    if error is not None:
                        self.last.setdefault("rank_error", {})[tensor.name] = error
            if not tensor.frozen:
                tensor.decay(self.decay[tensor.group])
        self.decay = [1.0] * len(self.groups)

    def flush(self) -> None:
        """Fold what is factored into the weights, and write the log."""
        self.directions.release()
        self.pairing.forget()
        moved = [x for x in self.tensors if x.b is not None and bool(x.b.any())]
        if self.settings.fold and moved:
            for tensor in moved:
                tensor.fold()
            if self.log is not None:
                self.log.folded(self.directions.t)
        if self.log is not None:
            if self.settings.fold:
                self.log.end(self.tensors)
            self.log.write()

    def fd_error(self, closure: Closure) -> float:
        """|c(eps) - c(eps/2)| / |c(eps)| at the direction of the coming step."""
        self.begin_step()
        self.fd_errors += 1

        def loss() -> float:
            return float(self.losses(closure))

        with self.losses.together(closure) as same:
            whole = evaluations.central(loss, self.directions, 0).c
            half = evaluations.central(loss, self.directions, 0, 0.5).c
            self.directions.release()
            same.undo()
        error = abs(whole - half) / abs(whole) if whole else float("inf")
        self.last["fd_error"] = error
        return float(error)

    def quality(
        self, closure: Callable[[Any], Any], batch: Any, directions: int
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """c as a step computes it, c in float32, and how a step computes it."""
        return measured(self.pairing, closure, batch, directions, self.begin_step)
