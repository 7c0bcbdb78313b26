"""Looping longer than in training: the loss of each number of loops, and how each prompt converges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.in_context._covariance import powers
from surefoot.in_context._guarantee.conditions import refuse_second_run
from surefoot.in_context.contraction import eigenvalues
from surefoot.in_context.dominance import whitened
from surefoot.in_context.looped import LoopedTransformer
from surefoot.in_context.prompts import LAW, GaussianPrompts, Prompt
from surefoot.record import Record

LOOPING = "looping"


@showing
@checked(nan=True)
@dataclass(frozen=True)
class LoopRun:
    """What more loops did; index L' of a curve is L' loops, the first is none.

    Attributes
    ----------
    mean
        Mean squared error of the prediction over all prompts: it diverges through rare ones where the median
        falls.
    median
        Their median.
    converging
        Share of prompts whose error shrinks in the norm of A^-1; NaN where A is not positive definite.
    record
        The core record.
    """

    mean: Float64[Tensor, " loops"]
    median: Float64[Tensor, " loops"]
    converging: float
    record: Record

    def certificates(self) -> list[Certificate]:
        """G6 and G7 on this run."""
        from surefoot.in_context.guarantee import looping_certificates

        return looping_certificates(self.record)


@checked
def loop_longer(
    model: LoopedTransformer,
    prompts: GaussianPrompts,
    max_loops: int = 14,
    samples: int = 2_000,
    *,
    repeats: int = 10,
    seed: int = 0,
    record: Record | None = None,
) -> LoopRun:
    """Run a tied model with 0, 1, ..., max_loops loops on fresh prompts, of any covariance.

    Parameters
    ----------
    model
        A trained one; its dtype is used.
    prompts
        Fresh ones are drawn.
    max_loops
        The most loops.
    samples
        Prompts a repeat.
    repeats
        Independent batches of prompts, each filed under its own seed: means are judged over them.
    seed
        The first of these.
    record
        Where the numbers go; by default a record of its own.

    Raises
    ------
    ValueError
        An argument is out of range, or the model's layers are not tied.
    """
    if not isinstance(model, LoopedTransformer) or not model.tied:
        raise ValueError(
            "model must be a LoopedTransformer whose layers are tied, to be looped further"
        )
    if not isinstance(prompts, GaussianPrompts) or prompts.d != model.d or not prompts.n:
        raise ValueError(
            f"prompts must be GaussianPrompts with d = {model.d} and n >= 1, got {prompts!r}"
        )
    most = check_number("max_loops", max_loops, least=1, whole=True)
    samples = check_number("samples", samples, least=2, whole=True)
    repeats = check_number("repeats", repeats, least=1, whole=True)
    seed = check_number("seed", seed, least=0, whole=True)
    record = Record() if record is None else record
    for own in range(seed, seed + repeats):
        refuse_second_run(record, own, "loops_loss")
    geometry = _Geometry(model, prompts)
    errors, shares = [], []
    for own in range(seed, seed + repeats):
        drawn = _in(prompts.sample(samples), model.A.dtype)
        with torch.no_grad():
            path = model.weights(drawn.X, drawn.y, loops=most, return_all=True)
            found = torch.stack(
                [model(drawn.X, drawn.y, drawn.xq, loops=t) for t in range(most + 1)], 1
            )
        error = (found.double() - drawn.target.double()[:, None]).square()
        errors.append(error)
        record.extend(own, "loops_loss", error.mean(0).tolist(), range(most + 1))
        record.extend(own, "loops_median", error.median(0).values.tolist(), range(most + 1))
        record.append(own, 0, **geometry.columns)
        if geometry.root is not None:
            shares.append(_contraction(record, own, drawn, path, geometry.root))
        _note(record, own, model, prompts, samples)
    whole = torch.cat(errors)
    converging = sum(shares) / len(shares) if shares else float("nan")
    return LoopRun(whole.mean(0), whole.median(0).values, converging, record)


class _Geometry:
    """How far A is from symmetric and from b S^-1, and its square root where it is positive definite."""

    def __init__(self, model: LoopedTransformer, prompts: GaussianPrompts) -> None:
        A = model.A.detach().double()
        B, _ = whitened(A, prompts.sigma)
        size = float(A.norm())
        unit = torch.eye(len(A), dtype=A.dtype)
        step = float(B.diagonal().mean())
        values = torch.linalg.eigvalsh((A + A.mT) / 2)
        self.columns = {
            "asymmetry": float((A - A.mT).norm()) / size if size else 0.0,
            "least_eigenvalue": float(values[0]),
            "off_scalar": float((B - step * unit).norm()) / float(B.norm()) if size else 0.0,
            "step": step,
        }
        self.root: Tensor | None = None
        if float(values[0]) > 0:
            (self.root,) = powers((A + A.mT) / 2, 0.5)
            S = unit if prompts.sigma is None else prompts.sigma
            self.columns["largest"] = float(torch.linalg.eigvalsh(self.root @ S @ self.root)[-1])
            self.columns["condition"] = float(values[-1] / values[0])


def _contraction(
    record: Record, seed: int, drawn: Prompt, path: Tensor, root: Float64[Tensor, "d d"]
) -> float:
    """Records how far the worst prompt is above rho^L', and the share that diverges; returns the rest's.

    In units of max(1, rho)^L' |w*|, so that the rounding of a prompt that diverges does not drown the others.
    """
    values = eigenvalues(drawn.X.double(), root)
    rho = (1 - values).abs().amax(1)
    inverse = torch.linalg.inv(root)
    start = (drawn.w.double() @ inverse).norm(dim=1)
    error = ((drawn.w[:, None] - path).double() @ inverse).norm(dim=2) / start[:, None]
    loops = torch.arange(path.shape[1])
    most = rho[:, None] ** loops
    excess = ((error - most) / rho.clamp_min(1.0)[:, None] ** loops).amax(0)
    # From the first overflow on, of weights or of rho^L', there is nothing left to compare.
    within = int((error.isfinite() & most.isfinite()).all(0).to(torch.uint8).cumprod(0).sum())
    record.extend(seed, "contraction", (1 + excess[:within]).tolist(), range(within))
    diverging = float((values[:, -1] >= 2).double().mean())
    record.append(seed, 0, diverging=diverging)
    # An eigenvalue of 0, as there is with n < d, rounds to either side of it.
    return float((rho < 1 - 1e-12).double().mean())


def _note(
    record: Record,
    seed: int,
    model: LoopedTransformer,
    prompts: GaussianPrompts,
    samples: int,
) -> None:
    record.note(
        seed, method=LOOPING, d=model.d, n=prompts.n, loops=model.loops, tied=True, samples=samples,
        sigma="identity" if prompts.sigma is None else "given", noise=prompts.noise, law=LAW,
        u="trained" if bool(model.u.detach().any()) else "zero", prompts_seed=prompts.seed,
        dtype=str(model.A.dtype).removeprefix("torch."),
    )  # fmt: skip


def _in(prompt: Prompt, dtype: torch.dtype) -> Prompt:
    return Prompt(
        prompt.X.to(dtype),
        prompt.y.to(dtype),
        prompt.xq.to(dtype),
        prompt.target.to(dtype),
        prompt.w.to(dtype),
    )
