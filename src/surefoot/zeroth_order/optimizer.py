"""What all zeroth-order optimisers share on the outside: their steps, and what a run says of itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot.certificate import Certificate
from surefoot.record import Record
from surefoot.zeroth_order._engine import numberless
from surefoot.zeroth_order._engine.evaluation import Closure
from surefoot.zeroth_order._engine.private_checks import no_privacy
from surefoot.zeroth_order._engine.self_check import SelfCheck
from surefoot.zeroth_order._engine.weighed import weighed_gradient
from surefoot.zeroth_order.quality import Quality
from surefoot.zeroth_order.stepping import Stepping


class ZerothOrder(Stepping):
    """Base of LOZO, MeZO and ZOAdam: a `torch.optim.Optimizer` that needs forward passes only.

    `step(closure)` evaluates the loss at the iterate plus and minus eps times a random direction and
    moves along it. `estimate(closure)` and `apply()` are its two halves, for gradient accumulation.

    Parameters
    ----------
    params_or_model, model
        A module, or what any torch optimiser takes, with the module beside it.
    lr, rank, eps, weight_decay
        What a group may set for itself.
    settings, rule
        What all groups share, and how an estimate becomes a step.
    freeze_embeddings, self_check, process_group, log, allow_drift, record, precision, copies_at_once, privacy
        As in `LOZO`.
    """

    @property
    def record(self) -> Record:
        """What it did: settings as facts; lr, c, loss_plus and loss_minus a step; what was measured."""
        return self._recording.record

    def record_into(self, record: Record, seed: int | None = None, of: str = "") -> None:
        """Write what happens from now on into another record.

        Parameters
        ----------
        record
            The record.
        seed
            The run's seed there; by default the optimizer's own.
        of
            Where that record holds several runs of one seed: the name of this one.
        """
        self._recording.move(record, seed, of)

    def note_facts(self, record: Record, seed: int | None = None, of: str = "") -> None:
        """Note in another record what is a fact of this run: settings, rates, and what went wrong.

        Parameters
        ----------
        record, seed, of
            As in `record_into`.
        """
        self._recording.copy_facts(record, seed, of)

    @torch.no_grad()
    def check_hooks(self, closure: Callable[..., Any], batch: Any = None) -> None:
        """Look whether hooks see every use of the weights, at a batch that is made up: for private runs.

        Other runs look at their first batch by themselves. Weights that are read elsewhere too are written
        before each forward from now on, of which a warning tells.

        Parameters
        ----------
        closure, batch
            As in `step`, of examples that are nobody's.

        Raises
        ------
        ValueError
            After the first step, or between estimate() and apply().
        """
        engine = self.engine
        if self.t or engine.mean.sums is not None:
            raise ValueError(f"check_hooks must come before the first step, got t = {self.t}")
        once = closure if batch is None else functools.partial(closure, batch)

        def loss() -> float:
            found = engine.losses(once)
            return float(found.mean()) if isinstance(found, Tensor) else float(found)

        engine.directions.begin_period(engine.rule.renewed)
        with engine.losses.together(once):
            SelfCheck(self.settings.seed).run(self.tensors, loss)
        engine.self_check = None

    @torch.no_grad()
    def fd_error(self, closure: Closure) -> float:
        """|c(eps) - c(eps/2)| / |c(eps)| at the direction of the coming step: two pairs of forwards.

        Guarantees need it far below 1: the loss is then linear over the perturbation. It is recorded.

        Raises
        ------
        ValueError
            Between estimate() and apply(), or with privacy.
        """
        no_privacy(self.privacy, "fd_error")
        if self.engine.mean.sums is not None:
            raise ValueError("fd_error must not come between estimate() and apply()")
        found = self.engine.fd_error(closure)
        self._recording.measured(self.t, fd_error=found)
        return found

    @torch.no_grad()
    def quality(self, closure: Callable[[Any], Any], batch: Any, *, directions: int = 8) -> Quality:
        """c as a step would compute it beside c in float32, at the present weights; recorded as c_error.

        A 16-bit model, or products in 16 bits, give c with an error that no theorem knows of: the certificate
        needs it below 1/20.

        Parameters
        ----------
        closure, batch
            As in `step`.
        directions
            How many are looked at: two to four forwards each. Where copies cannot share a forward, a 16-bit
            model is held in float32 meanwhile, twice its memory more.

        Raises
        ------
        ValueError
            In mode "inplace", between estimate() and apply(), with privacy, or for fewer than two directions.
        """
        no_privacy(self.privacy, "quality")
        directions = check_number("directions", directions, least=2, whole=True)
        if self.mode != "factored":
            raise ValueError("quality needs mode 'factored': in place, 16-bit weights drift")
        if self.engine.mean.sums is not None:
            raise ValueError("quality must not come between estimate() and apply()")
        found = Quality(*self.engine.quality(closure, batch, directions))
        self._recording.measured(self.t, c_error=found.error, c_correlation=found.correlation)
        return found

    def measure_descent(self, losses: Callable[[], Tensor] | float) -> float:
        """G^T S_V Gbar before a step of a private run, recorded with its mean over all steps so far.

        The quantity of the descent theorem, "mean_weighed_gradient" in the record: call this before every
        step. It costs a gradient of every example, and is a query of the data without noise: its column is
        private, and a record that publishes it promises no privacy.

        Parameters
        ----------
        losses
            One loss an example, over all data; or the number itself where it is known.

        Raises
        ------
        ValueError
            Without privacy, or if an earlier step was left out.
        """
        if self.privacy is None:
            raise ValueError("measure_descent needs privacy=; measure_gradient is for other runs")
        directions = self.engine.directions
        directions.begin_period(self.engine.rule.renewed)
        directions.release()
        found = (
            float(losses)
            if not callable(losses)
            else weighed_gradient(directions, losses, self.privacy.clip)
        )
        self._recording.weighed(self.t, found)
        return found

    def measure_gradient(self, loss: Callable[[], Tensor] | float) -> float:
        """||grad f||^2 at the start of a period, recorded with its mean over all of them so far.

        The quantity of the gradient theorem, "mean_squared_gradient" in the record: call this before the
        first step and wherever t is a multiple of nu.

        Parameters
        ----------
        loss
            f over all data, by whose gradient it is measured (autograd must fit), or ||grad f||^2 itself
            where it is known.

        Raises
        ------
        ValueError
            Within a period, if an earlier start was left out, or with privacy.
        """
        no_privacy(self.privacy, "measure_gradient")
        if self.t % self.nu:
            raise ValueError(
                f"the gradient is measured where a period of nu = {self.nu} steps starts, got t = {self.t}"
            )
        if callable(loss):
            numberless.refuse(self.tensors, "it has no gradient; give ||grad f||^2 itself")
            with torch.enable_grad():
                found = torch.autograd.grad(
                    loss(), [x.param for x in self.tensors], allow_unused=True
                )
            squared = sum(float(g.double().square().sum()) for g in found if g is not None)
        else:
            squared = float(loss)
        self._recording.gradient(self.t, self.nu, squared)
        return squared

    def certificates(
        self,
        *,
        L: float | None = None,
        sigma2: float | None = None,
        delta0: float | None = None,
        how: str = "given by the caller",
        confidence: float = 0.99,
    ) -> list[Certificate]:
        """What is promised of this run and of the others in its record, and what was measured.

        Settings are read off the record. Constants of the problem are not in it:

        Parameters
        ----------
        L, sigma2, delta0
            Smoothness, variance of the minibatch gradient, f(X_0) - f*; None: unknown.
        how
            How they were found.
        confidence
            As in `surefoot.certify`.
        """
        from surefoot.zeroth_order.guarantee import certificates
        from surefoot.zeroth_order.private_guarantee import descent_certificates

        of = self._recording.of
        private = descent_certificates(
            self.record, L=L, delta0=delta0, how=how, of=of, confidence=confidence
        )
        return private + certificates(
            self.record, L=L, sigma2=sigma2, delta0=delta0, how=how, confidence=confidence, of=of
        )
