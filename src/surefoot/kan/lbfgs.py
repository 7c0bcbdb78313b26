"""The practical run: L-BFGS on the loss of a problem. No theorem here speaks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate, certify
from surefoot.errors import NonFiniteError
from surefoot.kan.guarantee import linear_rate
from surefoot.kan.physics import PIKAN
from surefoot.kan.problem import Problem, parameters_of
from surefoot.record import Record

METHOD = "L-BFGS"


@showing
@checked(nan=True)
@dataclass(frozen=True)
class LBFGSRun:
    """What a fit did.

    Attributes
    ----------
    losses
        L at the start and after every `every` iterations.
    iterations
        At which these were taken.
    evaluations
        How often the loss and its gradient were computed.
    record
        The core record: the losses, and the facts of what ran.
    """

    losses: Float64[Tensor, " rows"]
    iterations: tuple[int, ...]
    evaluations: int
    record: Record

    def certificates(self) -> list[Certificate]:
        """T1's rate, which is about gradient descent: NOT_PROMISED."""
        return [certify(self.record, linear_rate())]


@checked(leave=("problem",))
def fit_lbfgs(
    problem: Problem,
    iterations: int = 150,
    *,
    every: int = 10,
    history: int = 50,
    seed: int = 0,
    record: Record | None = None,
) -> LBFGSRun:
    """L-BFGS with strong Wolfe line searches on L = |r|^2 / 2, in place.

    Parameters
    ----------
    problem
        A `PIKAN` or `Regression`.
    iterations
        How many, each with the evaluations that its line search takes.
    every
        Iterations between two rows of the record.
    history
        Pairs of steps and gradients that are kept.
    seed, record
        Where the numbers are filed; nothing here is random.

    Raises
    ------
    ValueError
        An argument out of range, or a problem with nothing to train.
    NonFiniteError
        The loss became NaN or infinite: after which iterations.
    """
    if not isinstance(problem, Problem):
        raise ValueError(
            "problem must be a PIKAN, or Regression(model, X, y) of a model and data, got "
            f"{type(problem).__name__}"
        )
    iterations = check_number("iterations", iterations, least=1, whole=True)
    every = check_number("every", every, least=1, whole=True)
    history = check_number("history", history, least=1, whole=True)
    parameters = parameters_of(problem)
    if not parameters:
        raise ValueError("problem must have parameters that require a gradient, got none")
    record = Record() if record is None else record
    record.note(seed, method=METHOD, dtype=str(parameters[0].dtype).removeprefix("torch."))
    if isinstance(problem, PIKAN):
        problem.note(record, seed)
    # Tolerances of 0: the same number of iterations for every model that is compared.
    optimizer = torch.optim.LBFGS(
        parameters, history_size=history, tolerance_grad=0.0, tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        r = problem.residual()
        value: Tensor = r @ r / 2
        torch.autograd.backward(value)
        return value

    losses, done = [], [0]
    while True:
        with torch.no_grad():
            r = problem.residual().double()
        losses.append(float(r @ r) / 2)
        if not math.isfinite(losses[-1]):
            raise NonFiniteError("loss", done[-1], losses[-1])
        record.append(seed, done[-1], loss=losses[-1])
        if done[-1] == iterations:
            break
        some = min(every, iterations - done[-1])
        group = optimizer.param_groups[0]
        group["max_iter"], group["max_eval"] = some, 25 * some
        # torch gives a step with a closure no types.
        optimizer.step(loss)  # type: ignore[no-untyped-call]
        done.append(done[-1] + some)
    optimizer.zero_grad()
    evaluations = int(optimizer.state[parameters[0]]["func_evals"])
    return LBFGSRun(torch.tensor(losses, dtype=torch.float64), tuple(done), evaluations, record)
