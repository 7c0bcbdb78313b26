"""How the curvature that a multiplied step sees is measured, and whether steps descend as promised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import Hessian, largest_eigenpair
from surefoot._showing import showing
from surefoot._verdict.rounding import ROUNDINGS
from surefoot.certificate import Certificate, certify
from surefoot.record import Record
from surefoot.reparam._guarantee.columns import EXCESS, LEAST, RISE, STEP_SIZE, column
from surefoot.reparam._optimizer.facts import MULT, learning_rates, note_facts, settings_of

LossFn = Callable[[Tensor, Tensor], Tensor]


def preconditioned_curvature(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    mults: Mapping[str, Float[Tensor, "..."]] | None = None,
    *,
    iterations: int = 20,
    seed: int = 0,
) -> tuple[float, dict[str, Tensor]]:
    """lambda_max(D^1/2 H D^1/2), D = diag(M), and its eigenvector times D^1/2, by parameter name.

    Lanczos with full reorthogonalisation, which converges faster than as many power iterations. The
    eigenvector is that of the largest eigenvalue, not of the largest modulus.

    Parameters
    ----------
    model
        In eval mode meanwhile, so that a BatchNorm is a fixed linear map.
    loss
        loss(model) -> the loss of one batch.
    mults
        As `grad_mults` makes them; 1 for the parameters that have none.
    iterations, seed
        Hessian-vector products, and the seed of the first vector.
    """
    mults = mults or {}
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    root = [mults[n].to(p).sqrt() if n in mults else torch.ones_like(p) for n, p in named]
    training = model.training
    model.eval()
    try:
        hessian = Hessian(loss(model), [p for _, p in named])
        if not hessian.curved:
            return 0.0, {}
        half = torch.cat([r.flatten() for r in root])
        start = torch.randn(
            hessian.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        ).to(half)
        found, vector = largest_eigenpair(
            lambda v: half * hessian(half * v), start, min(iterations, hessian.size)
        )
    finally:
        model.train(training)
    parts = hessian.parts(half * vector)
    return found.value, {named[i][0]: parts[i] for i in hessian.curved}


@checked
def safe_lr(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    mults: Mapping[str, Tensor] | None = None,
    *,
    loss_fn: LossFn = nn.functional.cross_entropy,
    iterations: int = 20,
    seed: int = 0,
) -> float:
    """2 / lambda_max(D^1/2 H D^1/2): below it a full-batch RepSGD step without momentum descends (G4).

    Exactly so on a quadratic; elsewhere the curvature is that of this point.

    Parameters
    ----------
    model
        The plain network; it is in eval mode meanwhile.
    batch
        (inputs, targets).
    mults
        As `grad_mults` makes them; without them it is plain SGD's 2 / lambda_max(H).
    loss_fn
        loss_fn(outputs, targets).
    iterations, seed
        Hessian-vector products of Lanczos, and the seed of its first vector.

    Returns
    -------
    float
        Infinity where there is no positive curvature.
    """
    x, y = batch
    curvature, _ = preconditioned_curvature(
        model, lambda m: loss_fn(m(x), y), mults, iterations=iterations, seed=seed
    )
    return 2 / curvature if curvature > 0 else math.inf


def untrained(mults: Mapping[str, Tensor]) -> dict[str, int]:
    """How many entries of each parameter have M = 0: the loss never trains them (G4)."""
    return {n: int((m == 0).sum()) for n, m in mults.items() if bool((m == 0).any())}


@showing
@checked
@dataclass
class DescentMonitor:
    """Compares full-batch steps with f(W+) <= f(W) - lr (1 - lr lambda/2) <g, D g> (G4; derived here).

    Parameters
    ----------
    model, optimizer
        The optimiser is a RepSGD (or wrapped SGD) without momentum and weight decay.
    closure
        closure(model) -> loss of the full batch; BN in eval mode or absent.
    curvature
        lambda: an upper bound of lambda_max(D^1/2 H D^1/2) on the way; L max(M) is one.
    every
        Checks each k-th step.
    record, seed
        Where to put columns "excess over descent bound", "rise" (f(W+) - f(W)), "loss", "squared step"
        (<g, D g>), "step size" (the largest rate), with every=1 also "least squared step" at T = 1, 2, ...,
        and the facts of what stepped. None: a record of its own, which `record` is.
    steps, violations
        How many steps were made, and how many checked ones broke the bound.
    exact
        Whether lambda bounds the curvature on the whole way (on a quadratic, say). None: it is an estimate.
    how
        How lambda was found.
    of
        The run's name where one record holds several.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    closure: Callable[[nn.Module], Tensor]
    curvature: float
    every: int = 1
    record: Record = None  # type: ignore[assignment]  # a record of its own
    seed: int = 0
    steps: int = 0
    violations: int = 0
    exact: bool | None = None
    how: str = "as given"
    of: str = ""

    def __post_init__(self) -> None:
        check_number("curvature", self.curvature, least=0, finite=False)
        check_number("every", self.every, least=1, whole=True)
        for name in ("steps", "violations"):
            check_number(name, getattr(self, name), least=0, whole=True)
        if self.record is None:
            self.record = Record()  # type: ignore[unreachable]
        self._least = math.inf
        self.record.note(
            self.seed, self.of, curvature=float(self.curvature), curvature_exact=bool(self.exact),
            curvature_how=self.how,
        )  # fmt: skip

    def step(self) -> float:
        """One step; returns the loss before it."""
        self.optimizer.zero_grad()
        loss = self.closure(self.model)
        loss.backward()  # type: ignore[no-untyped-call]
        before, promised, square = float(loss.detach()), 0.0, 0.0
        check = self.steps % self.every == 0
        note_facts(self.record, settings_of(self.optimizer), self.seed, self.of)
        rates = learning_rates(self.optimizer)
        self.record.note(self.seed, self.of, one_lr=min(rates) == max(rates))
        if check:
            for group in self.optimizer.param_groups:
                if group.get("momentum") or group.get("weight_decay"):
                    raise ValueError("the descent bound is for steps without momentum and decay")
                part = sum(self._square(p) for p in group["params"] if p.grad is not None)
                promised += group["lr"] * (1 - group["lr"] * self.curvature / 2) * part
                square += part
        self.optimizer.step()
        values = {STEP_SIZE: max(rates)}
        if check:
            with torch.no_grad():
                after = float(self.closure(self.model))
            excess = after - (before - promised)
            eps = torch.finfo(loss.dtype).eps
            self.violations += excess > 2 * ROUNDINGS * eps * abs(before)
            precision = str(loss.dtype).removeprefix("torch.")
            for quantity in (EXCESS, RISE):
                facts = {f"dtype: {column(quantity, self.of)}": precision}
                self.record.note(self.seed, **facts)
            values |= {EXCESS: excess, RISE: after - before, "loss": before, "squared step": square}
        self.record.update(
            self.seed, self.steps, {column(q, self.of): v for q, v in values.items()}
        )
        self.steps += 1
        if self.every == 1:  # the least of some steps only is no minimum over all
            self._least = min(self._least, square)
            self.record.update(self.seed, self.steps, {column(LEAST, self.of): self._least})
        return before

    def certificates(
        self,
        smooth: float | None = None,
        gap0: float | None = None,
        *,
        how: str = "as given",
        confidence: float = 0.99,
    ) -> list[Certificate]:
        """What is promised of these steps, and what was measured.

        Parameters
        ----------
        smooth, gap0
            L, and f_0 - f*: constants of the problem that no run can know. With both, the rate too.
        how
            How they were found.
        confidence
            As in `certify`.
        """
        from surefoot.reparam.guarantee import certificates, rate

        found = certificates(self.record, of=self.of, confidence=confidence)
        if smooth is None or gap0 is None:
            return found
        return [*found, certify(self.record, rate(smooth, gap0, how=how, of=self.of), confidence)]

    def _square(self, parameter: Tensor) -> float:
        # Looked up without making a state, which torch's SGD takes for that of a later step.
        state = self.optimizer.state
        mult = state[parameter].get(MULT) if parameter in state else None
        assert parameter.grad is not None
        square = parameter.grad.double().square()
        return float((square if mult is None else square * mult.to(square)).sum())
