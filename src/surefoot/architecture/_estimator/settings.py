"""The parameters of the estimators, checked by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surefoot._numerics.checks import check_choice, check_number
from surefoot.architecture.activations import ACTIVATIONS
from surefoot.architecture.autoencoder import NetworkAutoencoder

STRATEGIES = ("portfolio", "direct", "autoencoder", "dense")


@dataclass(frozen=True)
class Checked:
    """What `fit` works with."""

    strategy: str
    max_width: int
    max_depth: int
    activations: tuple[str, ...]
    size_penalties: tuple[float, ...]
    prune: bool
    restarts: int
    seconds: float | None
    steps: int | None
    max_params: int | None
    select: str | int
    tol: float
    validation_fraction: float
    certify_fraction: float
    confidence: float
    alpha: float
    autoencoder: Any
    n_jobs: int | None
    verbose: int


def checked(estimator: Any) -> Checked:
    """The parameters of an estimator.

    Raises
    ------
    ValueError
        One is not allowed; the message names it.
    """
    e = estimator
    strategy = check_choice("strategy", e.strategy, STRATEGIES)
    if strategy == "autoencoder" and e.autoencoder is None:
        raise ValueError(
            'strategy="autoencoder" needs autoencoder, a trained NetworkAutoencoder; got None'
        )
    if e.autoencoder is not None and not isinstance(e.autoencoder, NetworkAutoencoder):
        raise ValueError(f"autoencoder must be a NetworkAutoencoder or None, got {e.autoencoder!r}")
    names = _listed("activations", e.activations)
    if len(set(names)) < len(names):
        raise ValueError(f"activations must be distinct, got {names}")
    penalties = _listed("size_penalties", e.size_penalties)
    steps = None if e.steps is None else check_number("steps", e.steps, least=1, whole=True)
    budget = check_number("time_budget", e.time_budget, above=0)
    found = Checked(
        strategy=strategy,
        max_width=check_number("max_width", e.max_width, least=1, whole=True),
        max_depth=check_number("max_depth", e.max_depth, least=1, whole=True),
        activations=tuple(check_choice("activations", n, ACTIVATIONS) for n in names),
        size_penalties=tuple(check_number("size_penalties", p, least=0) for p in penalties),
        prune=check_choice("prune", e.prune, (True, False)),
        restarts=check_number("restarts", e.restarts, least=1, whole=True),
        seconds=None if steps is not None else budget,
        steps=steps,
        max_params=cap("max_params", e.max_params),
        select=_selection(e.select),
        tol=check_number("tol", e.tol, least=0),
        validation_fraction=check_number(
            "validation_fraction", e.validation_fraction, above=0, below=1
        ),
        certify_fraction=check_number("certify_fraction", e.certify_fraction, least=0, below=1),
        confidence=check_number("confidence", e.confidence, above=0, below=1),
        alpha=check_number("alpha", e.alpha, least=0),
        autoencoder=e.autoencoder,
        n_jobs=_threads(e.n_jobs),
        verbose=check_number("verbose", e.verbose, least=0, whole=True),
    )
    if found.autoencoder is not None and strategy in ("portfolio", "autoencoder"):
        _fitting(found)
    return found


def _fitting(how: Checked) -> None:
    """Whatever an autoencoder decodes must be allowed; of its depths only those that are are searched."""
    space = how.autoencoder.space
    if space.max_width > how.max_width:
        raise ValueError(
            f"max_width must be at least the {space.max_width} neurons that autoencoder decodes, "
            f"got {how.max_width}"
        )
    more = [name for name in space.activations if name not in how.activations]
    if more:
        raise ValueError(
            f"activations must have those that autoencoder decodes: {', '.join(more)}, "
            f"got {how.activations}"
        )


def _threads(value: Any) -> int | None:
    """As joblib counts them: negative ones leave so many cores free."""
    found = None if value is None else check_number("n_jobs", value, whole=True)
    if found == 0:
        raise ValueError("n_jobs must be a whole number other than 0, or None, got 0")
    return found


def cap(name: str, value: Any) -> int | None:
    """A largest number of entries, or None."""
    return None if value is None else check_number(name, value, least=1, whole=True)


def _listed(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{name} must be a list or tuple of at least one, got {value!r}")
    return value


def _selection(value: Any) -> str | int:
    if isinstance(value, str):
        return check_choice("select", value, ("one_se", "best"))
    try:
        return check_number("select", value, least=1, whole=True)
    except ValueError:
        raise ValueError(
            f'select must be "one_se", "best" or the most parameters allowed, got {value!r}'
        ) from None
