"""Jobs of a fit, in threads where asked for: which there are depends on the seed, not on the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from joblib import Parallel, delayed

from surefoot.architecture._fit.budget import Budget

Job = TypeVar("Job")
Result = TypeVar("Result")
AT_ONCE = 6
"""Jobs that share the steps that are left, where steps are counted."""


def run_waves(
    jobs: Iterator[Job],
    do: Callable[..., Result],
    budget: Budget,
    threads: int,
    steps_a_job: int,
) -> Iterator[Result]:
    """Take jobs and do them until the stage's share of the budget is spent.

    On a clock as many at once as there are threads. Where steps are counted, each gets `steps_a_job`, or
    what is left, beforehand.

    Parameters
    ----------
    jobs
        May go on without end.
    do
        One job; its argument `part` is what it may spend.
    budget
        Of the stage.
    threads
        How many at once.
    steps_a_job
        The most steps of one.
    """
    while not budget.over():
        size, each = threads, 0
        if budget.steps is not None:
            left = budget.left()
            each = min(steps_a_job, left)
            size = max(1, min(AT_ONCE, left // max(each, 1)))
            if not left:
                return
        wave = list(islice(jobs, size))
        if not wave:
            return
        parts = [budget.part(each) for _ in wave]
        if threads == 1:
            yield from (do(job, part=part) for job, part in zip(wave, parts, strict=True))
        else:
            yield from Parallel(threads, backend="threading")(
                delayed(do)(job, part=part) for job, part in zip(wave, parts, strict=True)
            )
        # At least one each: jobs that find nothing to do would go on without end.
        budget.spend(sum(max(p.spent, 1) for p in parts))
