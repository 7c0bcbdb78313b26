"""The race: the constant, the linear model, dense networks, searched ones; then one pruning path for all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate, front
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.network import Network
from surefoot.architecture._fit.objective import Rows, mean_loss
from surefoot.architecture._fit.pruning_path import Criterion, PruningStep, pruning_path
from surefoot.architecture._fit.slicing import sliced
from surefoot.architecture._fit.starts import random_network, shapes
from surefoot.architecture._fit.waves import run_waves

DECAYS = (1.0, 10.0, 100.0, 1000.0)
"""Weight decay, in units of `alpha`: how much a table needs is not known endhand."""
SHORT, FIT, PATH, PASSING, POLISH = 50, 150, 600, 20, 40
"""L-BFGS iterations of a first fit, of a second, of a path, between its steps, and where it matters."""
ROWS = 8192
"""Rows that are descended on: a network of hundreds of entries is determined by far fewer."""
LINEAR, PRUNE, FINISH = 0.05, 0.88, 0.95
"""Shares of the budget at whose end linear models without dense ones, pruning and the last polish stop."""


@dataclass(frozen=True)
class Settings:
    """What the race may try.

    Attributes
    ----------
    max_width, max_depth
        Of hidden layers.
    activations
        Names.
    alpha
        The smallest weight decay.
    prune
        Whether there is a pruning path.
    threads
        At once.
    """

    max_width: int
    max_depth: int
    activations: Sequence[str]
    alpha: float
    prune: bool
    threads: int


Search = Callable[[Rows, Rows, np.ndarray, Budget], Iterable[Candidate]]


def race(
    train: Rows,
    validation: Rows,
    inputs: np.ndarray,
    settings: Settings,
    budget: Budget,
    rng: np.random.Generator,
    searches: Sequence[tuple[float, Search]],
    dense: float,
    tell: Callable[[str], None],
) -> list[Candidate]:
    """The front of everything that was tried, on the whole validation set.

    Parameters
    ----------
    train, validation
        Standardised rows.
    inputs
        Columns that vary.
    settings
        What to try.
    budget
        Of the whole fit.
    rng
        Draws the starts and the rows.
    searches
        (share of the budget, search): other sources of candidates, in turn.
    dense
        The share of the dense networks.
    tell
        Hears a line a stage.
    """
    small, judge = _some(train, rng), _some(validation, rng)
    found = [constant(train, judge)]
    if len(inputs):
        budget.share = dense or LINEAR
        found += _linear(small, judge, inputs, settings, budget)
        if dense:
            found += _dense(small, judge, inputs, settings, budget, rng)
        tell(f"{len(found)} dense candidates, best {min(c.val_loss for c in found):.4g}")
        for share, search in searches:
            budget.share = end = budget.share + share
            more = list(search(small, judge, inputs, budget))
            budget.share = end
            found += more
            tell(f"{len(more)} searched candidates, {_best(more)}")
        if settings.prune:
            # Of what is really left: a search may have taken longer than its share.
            used = max(budget.share, budget.used())
            budget.share = used + 0.4 * (PRUNE - used)
            more = _pruned(found, small, judge, settings, budget)
            found += more
            tell(f"{len(more)} pruned candidates, {_best(more)}")
            budget.share = PRUNE
            found = _refined(found, small, judge, settings, budget, rng)
            tell(f"{len(found)} refined candidates, {_best(found)}")
        if small is not train:
            budget.share = FINISH
            found += _polished(front(found, train.task == "squared"), train, judge, budget)
    if judge is not validation:
        found = [_again(c, validation) for c in front(found, train.task == "squared")]
    return front(found, train.task == "squared")


def _best(found: Sequence[Candidate]) -> str:
    return f"best {min(c.val_loss for c in found):.4g}" if found else "none"


def _some(rows: Rows, rng: np.random.Generator) -> Rows:
    if len(rows) <= ROWS:
        return rows
    return rows.take(np.sort(rng.choice(len(rows), ROWS, replace=False)))


def _again(c: Candidate, validation: Rows) -> Candidate:
    return replace(c, val_loss=mean_loss(c.network, validation))


def constant(train: Rows, validation: Rows) -> Candidate:
    """The best prediction that reads no input: the mean, or the logarithms of the class shares."""
    mean = train.y @ train.weight
    if train.task != "squared":
        # Half a row of each class more, so that an unseen class is unlikely and not impossible.
        n = len(train)
        mean = (mean * n + 0.5) / (n + 0.5 * max(2, len(mean)))
        mean = np.log(mean / (1 - mean)) if train.task == "logistic" else np.log(mean)
    network = Network(np.zeros(0, np.int64), (np.zeros((len(mean), 0)),), (mean,), ())
    return Candidate(network, mean_loss(network, validation), "constant", 0.0)


def _linear(
    train: Rows,
    validation: Rows,
    inputs: np.ndarray,
    settings: Settings,
    budget: Budget,
) -> Iterator[Candidate]:
    # Where steps are counted, half of the stage's at most.
    part = budget.part(budget.left() // 2 if budget.steps else 0)
    for factor in DECAYS:
        start = Network(
            inputs,
            (np.zeros((len(train.y), len(inputs))),),
            (np.zeros(len(train.y)),),
            (),
        )
        alpha = settings.alpha * factor
        fitted = fit_network(start, train, validation, alpha, FIT, part, keep_zeros=False)
        budget.spend(fitted.iterations)
        # Where no iteration was any good the start is left, which reads nothing.
        yield Candidate(sliced(fitted.network), fitted.val_loss, "linear", alpha)
        if part.over():
            return


def _dense(
    train: Rows,
    validation: Rows,
    inputs: np.ndarray,
    settings: Settings,
    budget: Budget,
    rng: np.random.Generator,
) -> list[Candidate]:
    """Short fits of many shapes, then longer ones of the best."""
    share = budget.share

    def starts() -> Iterator[Candidate]:
        for factor in itertools.cycle(DECAYS):
            for widths in shapes(settings.max_width, settings.max_depth):
                for name in settings.activations:
                    start = random_network(inputs, len(train.y), widths, name, rng)
                    yield Candidate(start, np.inf, "dense", settings.alpha * factor)

    def fit(c: Candidate, iterations: int, part: Budget) -> Candidate:
        fitted = fit_network(
            c.network, train, validation, c.alpha, iterations, part, keep_zeros=False
        )
        return Candidate(fitted.network, fitted.val_loss, c.source, c.alpha)

    budget.share = budget.used() + 0.6 * (share - budget.used())
    threads = settings.threads
    short = list(run_waves(starts(), partial(fit, iterations=SHORT), budget, threads, SHORT))
    budget.share = share
    best = iter(sorted(short, key=lambda c: c.val_loss))
    return short + list(run_waves(best, partial(fit, iterations=FIT), budget, threads, FIT))


def _pruned(
    found: Sequence[Candidate], train: Rows, validation: Rows, settings: Settings, budget: Budget
) -> list[Candidate]:
    """Whole paths from the most promising candidates, in long steps with short fits between them."""
    worst = max(c.val_loss for c in found if c.source == "constant")

    def path(job: tuple[Candidate, Criterion], part: Budget) -> list[Candidate]:
        start, criterion = job
        steps = pruning_path(
            start.network, train, validation, start.alpha, part, criterion=criterion,
            fraction=0.15, iterations=PASSING, give_up=worst,
        )  # fmt: skip
        return _followed(start, steps)

    criteria: tuple[Criterion, Criterion] = ("curvature", "magnitude")
    jobs = zip(_starts(found), itertools.cycle(criteria), strict=False)
    waves = run_waves(jobs, path, budget, settings.threads, PATH)
    return [c for steps in waves for c in steps]


def _refined(
    found: Sequence[Candidate],
    train: Rows,
    validation: Rows,
    settings: Settings,
    budget: Budget,
    rng: np.random.Generator,
) -> list[Candidate]:
    """From points of the front, drawn again and again: a longer fit, then a few small steps further down."""
    regression = train.task == "squared"
    pool = front(found, regression)

    def jobs() -> Iterator[tuple[Candidate, Criterion, float]]:
        while True:
            criterion: Criterion = "curvature" if rng.random() < 0.5 else "magnitude"
            yield pool[rng.integers(len(pool))], criterion, rng.uniform(0.02, 0.2)

    def refine(job: tuple[Candidate, Criterion, float], part: Budget) -> list[Candidate]:
        c, criterion, fraction = job
        fitted = fit_network(c.network, train, validation, c.alpha, POLISH, part, keep_zeros=True)
        c = replace(c, network=fitted.network, val_loss=fitted.val_loss)
        steps = pruning_path(
            c.network, train, validation, c.alpha, part, criterion=criterion, fraction=fraction,
            iterations=POLISH,
        )  # fmt: skip
        return [c, *_followed(c, islice(steps, 3))]

    for more in run_waves(jobs(), refine, budget, settings.threads, 4 * POLISH):
        pool = front([*pool, *more], regression)
    return pool


def _followed(start: Candidate, steps: Iterable[PruningStep]) -> list[Candidate]:
    each, found = start, list[Candidate]()
    for step in steps:
        each = Candidate(step.network, step.val_loss, each.source, each.alpha, each, step.pruned)
        found.append(each)
    return found


def _starts(found: Sequence[Candidate]) -> list[Candidate]:
    """Where paths begin: the best of each source, the best of all, the best of each shape, the rest."""
    ranked = sorted((c for c in found if c.source != "constant"), key=lambda c: c.val_loss)
    order, seen = list[Candidate](), set[int]()

    def first_of_each(key: Callable[[Candidate], object]) -> None:
        had = set()
        for c in ranked:
            if key(c) not in had:
                had.add(key(c))
                if id(c) not in seen:
                    seen.add(id(c))
                    order.append(c)

    first_of_each(lambda c: c.source)
    # The path of the linear model is short, and nothing else is as small.
    order.sort(key=lambda c: (c.source != "linear", c.val_loss))
    first = {id(c) for c in ranked[:4]}
    first_of_each(lambda c: id(c) if id(c) in first else 0)
    first_of_each(lambda c: (c.network.widths, c.network.activations[:1]))
    first_of_each(id)
    return order


def _polished(
    found: Sequence[Candidate], train: Rows, judge: Rows, budget: Budget
) -> Iterator[Candidate]:
    """The front again on every row, the best first."""
    for c in sorted(found, key=lambda c: c.val_loss):
        if budget.over():
            return
        fitted = fit_network(c.network, train, judge, c.alpha, POLISH, budget, keep_zeros=True)
        yield replace(c, network=fitted.network, val_loss=fitted.val_loss)
