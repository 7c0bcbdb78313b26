"""How every zeroth-order optimiser steps: a torch optimizer around an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.checks import check_number
from surefoot.record import Record
from surefoot.zeroth_order import state
from surefoot.zeroth_order._engine import hooks, numberless, parameters
from surefoot.zeroth_order._engine.checks import check_paired
from surefoot.zeroth_order._engine.distributed import Reducer
from surefoot.zeroth_order._engine.engine import Engine
from surefoot.zeroth_order._engine.leaving import PendingFactors
from surefoot.zeroth_order._engine.private_checks import (
    check_estimate,
    check_private,
    scalars_given,
)
from surefoot.zeroth_order._engine.private_estimate import estimate_each
from surefoot.zeroth_order._engine.private_sum import PrivateSum
from surefoot.zeroth_order._engine.recording import Recording
from surefoot.zeroth_order._engine.rules import Rule
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.private import Privacy


class Stepping(torch.optim.Optimizer):
    """What of `ZerothOrder` makes its steps; its arguments are the same."""

    method = "zo"
    # What accounts for privacy asks this of any optimizer: its final weights give every c back.
    forward_only = True

    def __init__(
        self,
        params_or_model: nn.Module | Iterable[Any],
        lr: float,
        *,
        settings: Settings,
        rule: Rule,
        rank: int = 0,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        freeze_embeddings: bool = False,
        self_check: bool | None = None,
        process_group: Any = None,
        log: StepLog | str | bool | None = None,
        allow_drift: bool = False,
        model: nn.Module | None = None,
        record: Record | None = None,
        precision: str = "auto",
        copies_at_once: int | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        model = parameters.model_of(params_or_model, model)
        settings = settings.resolved(model is not None, weight_decay)
        reducer = Reducer(process_group)
        look = privacy is None if self_check is None else self_check
        if privacy is not None:
            check_private(settings, look, reducer.size)
        frozen = parameters.embeddings(model) if freeze_embeddings else set()
        self.model = model
        self._names = {} if model is None else {id(p): n for n, p in model.named_parameters()}
        self._tensors: list[TrainedTensor] = []
        self._engine: Engine | None = None
        self._pending: PendingFactors | None = None
        defaults = {
            "lr": check_number("lr", lr, least=0),
            "rank": rank,
            "eps": check_number("eps", eps, above=0),
            "weight_decay": check_number("weight_decay", weight_decay, least=0),
        }
        super().__init__(parameters.groups_of(params_or_model, frozen), defaults)
        if settings.mode == "factored":
            assert model is not None
            self._pending = hooks.install(model, self._tensors)
        parameters.check_drift(self._tensors, allow_drift)
        numberless.check_numberless(self._tensors, settings, self.param_groups)
        self._engine = Engine(
            self.method, settings, rule, self._tensors, self.param_groups,
            reducer=reducer, log=StepLog.open(log), self_check=look and model is not None, model=model,
            precision=precision, copies_at_once=copies_at_once, privacy=privacy,
        )  # fmt: skip
        self._recording = Recording(type(self).__name__, record, settings.seed)

    @classmethod
    def from_settings(cls, groups: Any, settings: dict[str, Any], model: nn.Module) -> Self:
        """As a log's header describes it, for a replay.

        Parameters
        ----------
        groups
            Parameter groups of the model.
        settings
            The header's settings.
        model
            The base model.
        """
        return cls(groups, 0.0, model=model, allow_drift=True, self_check=False, **settings)

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The parts that make a step: directions, evaluation, rule, log."""
        assert self._engine is not None
        return self._engine

    @property
    def tensors(self) -> list[TrainedTensor]:
        """The trained tensors, in the order that keys their random numbers."""
        return self.engine.tensors

    @property
    def t(self) -> int:
        """Steps taken."""
        return self.engine.directions.t

    @property
    def settings(self) -> Settings:
        """What was set for the whole run; lr, rank, eps and weight_decay are in `param_groups`."""
        return self.engine.settings

    @property
    def mode(self) -> str:
        """ "factored" or "inplace"."""
        return self.settings.mode

    @property
    def nu(self) -> int:
        """How many steps a V is kept."""
        return self.settings.nu

    @property
    def privacy(self) -> Privacy | None:
        """The mechanism through which scalars leave; None: as they are."""
        return self.engine.privacy

    @property
    def last(self) -> dict[str, Any]:
        """Of the last step: loss_plus, loss_minus, c, skipped, fd_error; with privacy c alone."""
        return self.engine.last

    @property
    def skipped(self) -> int:
        """Steps that were skipped so far: no finite loss, or nothing to count; the weights stood still."""
        return self.engine.skipped

    @property
    def log(self) -> StepLog | None:
        """Where the scalars of the steps are written."""
        return self.engine.log

    def __repr__(self) -> str:
        shown = self.engine.all_settings()
        lines = "".join(f"    {k}: {v}\n" for k, v in shown.items())
        return f"{super().__repr__()[:-1]}Settings\n{lines})"

    def __getstate__(self) -> dict[str, Any]:
        own = ("model", "_names", "_tensors", "_engine", "_pending", "_recording")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.model is not None:
            # Names are found by identity, which a copy does not share.
            self._names = {id(p): n for n, p in self.model.named_parameters()}

    # -- groups -------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; rank 0 makes them dense.

        Raises
        ------
        TypeError
            For a parameter that is integer, complex, quantised or sharded.
        ValueError
            For a setting out of range, or in factored mode after the first parameters.
        """
        engine = self._engine
        if engine is not None and engine.settings.mode == "factored":
            raise ValueError(
                "add_param_group in mode 'factored' must come with the model: build anew"
            )
        group = {
            **self.defaults,
            **param_group,
            "params": parameters.trainable(param_group["params"]),
        }
        # Looked at before it is there: a group that is refused leaves the optimizer as it was.
        parameters.check_group(group)
        at, added = len(self.param_groups), []
        for index, p in enumerate(group["params"], start=len(self._tensors)):
            name = self._names.get(id(p), str(index))
            added.append(parameters.trained_tensor(index, name, p, at, group["rank"]))
        super().add_param_group(group)
        self._tensors.extend(added)
        if engine is not None:
            engine.decay.append(1.0)

    # -- the public halves --------------------------------------------------------------------------------

    @torch.no_grad()
    def estimate(
        self,
        closure: Callable[..., Any],
        batch: Any = None,
        *,
        weight: float | None = None,
        paired: bool | Literal["auto"] = "auto",
    ) -> float | None:
        """Add c of one micro-batch to the running mean of this step, all along the same direction.

        Parameters
        ----------
        closure
            Returns the loss of the micro-batch, a tensor of one number or a float; it may be any function of
            the model, differentiable or not, and must give the same value for the same weights. Random
            numbers (dropout, noise) are drawn once an estimate and drawn again in its other evaluations,
            from the global generators and from those that the closure or a module holds; running
            statistics count one forward.
        batch
            What the closure is called with: a tensor, or a dict, tuple or list of tensors. Given it, all
            copies of a step can share one forward: `closure(batch)` is then called once with every tensor
            whose leading dimension is the batch's B rows repeated copy after copy, and its loss is taken
            apart by itself where it comes from `torch.nn.functional` (as in `model(**batch).loss`); any
            other closure returns one loss a row.
        weight
            Samples in the micro-batch, where they differ; given for all or for none. At 0 the closure is not
            called; a step of zeros only is skipped.
        paired
            True: one forward, or an error that says why not. False: a forward each. "auto": one forward
            where that is possible and was timed to be no slower; `last["how"]` says which, and a warning why
            not. The way chosen changes c in its last digits.

        Raises
        ------
        ValueError
            If the closure does not return one number, or with paired=True where that is impossible.

        Notes
        -----
        With privacy the closure returns one loss an example, b of them and possibly none; a batch without
        rows is not evaluated; nothing is returned, as c of a micro-batch is no release.
        """
        check_paired(paired, batch)
        if self.privacy is not None:
            check_estimate(weight, paired)
            self.engine.estimate_each(closure, batch, restore=True)
            return None
        return self.engine.estimate(closure, weight, restore=True, batch=batch, paired=paired)

    @torch.no_grad()
    def per_example(
        self, closure: Callable[..., Any], batch: Any = None
    ) -> Float[Tensor, "examples directions"]:
        """c of each example along the coming step's directions, neither clipped nor noised.

        For the choice of a clip on public data: it is a query that no noise covers, and so a run with noise
        refuses it. The optimizer is left as it was.

        Parameters
        ----------
        closure, batch
            As in `step`: one loss an example.

        Raises
        ------
        ValueError
            Without privacy, with noise, or between estimate() and apply().
        """
        engine = self.engine
        if self.privacy is None or self.privacy.noise_multiplier:
            raise ValueError(
                "per_example needs Privacy with noise_multiplier 0: look for a clip on public data, in an "
                "optimizer of its own"
            )
        if engine.mean.sums is not None:
            raise ValueError("per_example must not come between estimate() and apply()")
        found = estimate_each(engine, closure, batch)
        engine.abandon()
        return found

    @torch.no_grad()
    def contribution(self, *, noise: bool = True) -> Float[Tensor, " directions"]:
        """What `estimate` has gathered for this step, in double, for whoever sums over several sites.

        With privacy: s, the sum of the clipped c of its examples, with the mechanism's noise. Without: the
        sum of weight times c over its micro-batches. The step is not made: `apply` goes on from here.

        Parameters
        ----------
        noise
            False leaves the noise to somebody who is trusted with the exact sum.

        Raises
        ------
        ValueError
            Without an estimate before it.
        """
        mean = self.engine.mean
        if mean.sums is None:
            raise ValueError("contribution needs an estimate before it: call estimate(closure)")
        found = mean.sum(noise=noise) if isinstance(mean, PrivateSum) else mean.sums
        return torch.from_numpy(np.array(found, dtype=np.float64))

    @torch.no_grad()
    def apply(self, scalars: Any = None) -> None:
        """Average c over processes, update, and go on to the next step.

        Parameters
        ----------
        scalars
            c of each direction, from a server or a log, rounded to float32: the step is made with them, as a
            replay makes it, and what was estimated here is dropped. None: with what was estimated here.

        Raises
        ------
        ValueError
            Without scalars and without an estimate before it, or for scalars that are not finite or not one
            a direction.
        """
        engine = self.engine
        given = None if scalars is None else scalars_given(scalars, self.settings.num_directions)
        if given is None and engine.mean.sums is None:
            raise ValueError(
                "apply needs an estimate before it: call estimate(closure) or step(closure)"
            )
        if given is not None:
            engine.abandon()
            engine.begin_step()
            engine.last = {}
        self._recording.before(engine)
        engine.apply(given)
        if self._pending is not None:
            self._pending.covered = False
        self._recording.after(self.engine)

    @torch.no_grad()
    def step(
        self,
        closure: Callable[..., Any] | None = None,
        batch: Any = None,
        *,
        weight: float | None = None,
        paired: bool | Literal["auto"] = "auto",
    ) -> Any:
        """One step: two forwards (per direction), one scalar, one update. Returns the mean of F+ and F-.

        Without a closure it applies what `estimate` has gathered. With privacy it returns None: a loss is a
        query of the data that no noise covers.

        Parameters
        ----------
        closure, batch, weight, paired
            As in `estimate`.

        Raises
        ------
        ValueError
            Without a closure and without an estimate, if the closure does not return one number, or with
            paired=True where that is impossible.
        """
        check_paired(paired, batch)
        if closure is None:
            if self.engine.mean.sums is None:
                raise ValueError(
                    "step needs a closure that returns the loss, or estimate() before it"
                )
            self.apply()
            return None
        if self.privacy is not None:
            check_estimate(weight, paired)
            self.engine.estimate_each(closure, batch, restore=False)
            self.apply()
            return None
        self.engine.estimate(closure, weight, restore=False, batch=batch, paired=paired)
        mean = (self.last["loss_plus"] + self.last["loss_minus"]) / 2
        self.apply()
        return torch.tensor(mean, dtype=torch.float64)

    @torch.no_grad()
    def flush(self) -> None:
        """Fold what is factored into the weights: at the end, before an export, never for a checkpoint.

        Off the end of a period this changes the rounding, so the log notes it.

        Raises
        ------
        ValueError
            If weights stay quantised: nothing can be folded into them.
        """
        numberless.refuse(
            self.tensors, "factors cannot be folded into it; export_adapter or adapter() holds them"
        )
        self.engine.flush()

    @contextmanager
    def rewriting(self, params: Iterable[Tensor], *, forget: bool = True) -> Iterator[None]:
        """A context in which somebody else writes into trained parameters, as a merge does.

        Factors are folded before it, so that the parameters hold the iterate; what they hold after it is
        the iterate from then on.

        Parameters
        ----------
        params
            The parameters that are written.
        forget
            Drop the momenta that were gathered along their old values.

        Raises
        ------
        ValueError
            With `fold=False`, which never writes weights, or a log, which cannot tell a replay of this.
        """
        if not self.settings.fold:
            raise ValueError(
                "fold=False keeps factors apart from the weights, which are about to be merged and written "
                "anew: make the optimizer with fold=True"
            )
        if self.log is not None:
            raise ValueError(
                "weights are about to be written by something else than this optimizer, which the log cannot "
                "tell a replay: go on without log="
            )
        written = {id(p) for p in params}
        self.flush()
        yield
        self.engine.pairing.forget()
        for tensor in self.tensors:
            if id(tensor.param) in written:
                tensor.reread(forget=forget)

    # -- checkpoints --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """t, factors, dense copies and momenta; V is not in it, nor are weights or the record.

        Save the model's state_dict beside it, after it: in factored mode that is the weights of the period's
        start, of which the model warns where this was not called.

        Raises
        ------
        ValueError
            Between estimate() and apply().
        """
        found = state.state_of(self.engine)
        if self._pending is not None:
            self._pending.covered = True
        return found

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a state was taken; the model must hold the weights saved beside it.

        Raises
        ------
        ValueError
            If the state is of another method, other settings or other parameters.
        """
        state.load_state(self.engine, state_dict)

    def adapter(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """The (B, V) pairs of a fold=False run by parameter name: W + sum B V^T is the trained weight."""
        return {
            x.name: [(b.clone(), v.clone()) for b, v in x.pairs()]
            for x in self.tensors
            if not x.dense
        }
