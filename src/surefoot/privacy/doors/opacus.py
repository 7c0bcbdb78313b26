"""What Opacus wrote down about a training, turned into a report.

Opacus keeps runs of (noise multiplier, sample rate, steps) and nothing else: neither the learning rate, nor
the clip norm, nor whether the batches were Poisson samples at all. What it does not say has to be given,
or is recorded by the accountant of `register_opacus`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.errors import FileFormatError, MissingExtraError
from surefoot.privacy._checks import check_noise, check_rate, check_steps
from surefoot.privacy.comparison import Report, compare
from surefoot.privacy.heuristic import PerStep, Sampling

if TYPE_CHECKING:
    from surefoot.privacy.linear_weights import LinearWeights

KEY = "privacy_accountant_state_dict"
UNKNOWN = (
    "Opacus does not record how batches were drawn: Poisson sampling is taken on trust; "
    "pass data_loader or sampling to have it checked or said"
)
CONSTANT = (
    "every batch had exactly {size} examples: Poisson batches vary in size, so these were not; "
    "pass sampling='shuffled', or sampling='poisson' if you know better"
)


def register_opacus() -> str:
    """Make PrivacyEngine(accountant="prv+last_iterate") known to Opacus, and return that name.

    Its `get_epsilon` is Opacus' own proven value; `heuristic(delta)` is the last-iterate heuristic. It also
    records what Opacus forgets: learning rates, clip norms, momentum and batch sizes.

    Raises
    ------
    MissingExtraError
        If Opacus is not installed.
    """
    try:
        from surefoot.privacy.doors import opacus_accountant
    except ImportError as error:
        raise MissingExtraError("register_opacus", "opacus", "privacy") from error
    return opacus_accountant.register()


def history_of(source: Any) -> list[tuple[float, float, int]]:
    """The runs (noise multiplier, sample rate, steps) of an engine, accountant, state dict or checkpoint.

    Raises
    ------
    ValueError
        If the source has no history, an empty one, or one with impossible numbers.
    FileFormatError
        If a path is no checkpoint with an accountant's state.
    """
    state = _state_of(source)
    history = state.get("history")
    if history is None:
        raise ValueError(f"source must hold a history, got {sorted(map(str, state))}")
    if not history:
        raise ValueError("history must hold at least one step, got []: nothing was trained yet")
    runs = []
    for run in history:
        if not isinstance(run, Sequence) or len(run) != 3:
            raise ValueError(
                f"history must hold (noise_multiplier, sample_rate, steps), got {run!r}"
            )
        sigma, q, steps = run
        runs.append((check_noise(sigma), check_rate(q), check_steps(steps)))
    return runs


def _state_of(source: Any) -> Mapping[str, Any]:
    if isinstance(source, (str, os.PathLike)):
        source = _load(Path(source))
    if isinstance(source, Mapping):
        inner = source.get(KEY, source)
        if not isinstance(inner, Mapping):
            raise ValueError(f"{KEY} must be a state dict, got {type(inner).__name__}")
        return inner
    accountant = getattr(source, "accountant", source)
    if hasattr(accountant, "history"):
        return {"history": accountant.history, **_extras(accountant)}
    raise ValueError(
        "source must be an Opacus engine, an accountant, a state dict or the path of a checkpoint, "
        f"got {type(source).__name__}"
    )


def _extras(accountant: Any) -> dict[str, Any]:
    return {"observed": o} if (o := getattr(accountant, "observed", None)) is not None else {}


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise FileFormatError(f"{path} is no file; give the checkpoint that Opacus saved")
    try:
        # Weights only: a checkpoint from somewhere else must not run code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileFormatError(f"{path} is no checkpoint that torch can read: {error}") from error


def from_opacus(
    source: Any,
    delta: float,
    *,
    optimizer: Any = None,
    lr_history: Sequence[float] | None = None,
    data_loader: Any = None,
    sampling: Sampling | None = None,
) -> Report:
    """Proven and heuristic epsilon of what an Opacus training has done so far.

    Parameters
    ----------
    source
        A PrivacyEngine, an accountant, its state dict, a checkpoint's dict, or the path of a checkpoint.
    optimizer
        The optimiser of the training (Opacus' wrapper or torch's), of which only the settings are taken:
        momentum and weight decay then enter the heuristic.
    lr_history
        The learning rate of each step, where it changed.
    data_loader
        The loader of the training: whether it is Opacus' Poisson loader decides the sampling.
    sampling
        "poisson" or "shuffled", where no loader can be shown. With "shuffled" no Poisson value is reported.

    Raises
    ------
    ValueError
        If there is no history, or what is given contradicts it.
    FileFormatError
        If a path is no checkpoint.
    """
    state = _state_of(source)
    runs = history_of(source)
    steps = sum(count for _, _, count in runs)
    observed = state.get("observed")
    how, notes = _sampling(sampling, data_loader, observed, steps)
    weights, more = _weights(optimizer, lr_history, observed, steps)
    sigma = _per_step([s for s, _, _ in runs], runs)
    q = _per_step([rate for _, rate, _ in runs], runs)
    if how == "shuffled":
        # Shuffled epochs have one closed form, for equal steps.
        if weights is not None:
            more.append(
                "learning rates are left out: for shuffled batches only equal steps are known"
            )
        weights = None
    report = compare(sigma, q, steps, delta, weights=weights, sampling=how)
    return Report(
        report.noise_multiplier, report.sample_rate, report.steps, report.delta, report.rows,
        None, (*report.notes, *notes, *more), how,
    )  # fmt: skip


def _per_step(values: list[float], runs: list[tuple[float, float, int]]) -> PerStep:
    if len(set(values)) == 1:
        return values[0]
    return np.repeat(values, [count for _, _, count in runs])


def _sampling(
    given: Sampling | None, loader: Any, observed: Mapping[str, Any] | None, steps: int
) -> tuple[Sampling, list[str]]:
    seen: Sampling | None = None
    if loader is not None:
        seen = "poisson" if _is_poisson(loader) else "shuffled"
    if given is not None and seen is not None and given != seen:
        raise ValueError(f"sampling must agree with data_loader, which is {seen}, got {given!r}")
    how = given or seen
    if how is not None:
        return how, []
    sizes = [] if observed is None else [s for s in observed["batch_sizes"] if s is not None]
    if len(sizes) >= 10 and len(sizes) == steps and len(set(sizes)) == 1:
        raise ValueError(CONSTANT.format(size=sizes[0]))
    return "poisson", [UNKNOWN]


def _is_poisson(loader: Any) -> bool:
    names = {c.__name__ for c in type(getattr(loader, "batch_sampler", None)).__mro__}
    return bool(
        names & {"UniformWithReplacementSampler", "DistributedUniformWithReplacementSampler"}
    )


def _weights(
    optimizer: Any,
    lr_history: Sequence[float] | None,
    observed: Mapping[str, Any] | None,
    steps: int,
) -> tuple[LinearWeights | None, list[str]]:
    from surefoot.privacy.linear_weights import LinearWeights

    if lr_history is None and observed is not None and len(observed["lrs"]) == steps:
        lr_history = observed["lrs"]
    clips = None
    if observed is not None and len(observed["clips"]) == steps:
        clips = observed["clips"]
    varies = [v for v in (lr_history, clips) if v is not None and len(set(map(float, v))) > 1]
    momentum = 0.0 if observed is None else max(observed["momenta"], default=0.0)
    if optimizer is None:
        if momentum:
            return None, [
                f"momentum {momentum:g} was used: pass optimizer= to have it in the heuristic"
            ]
        if not varies:
            return None, []
        each = np.ones(steps)
        for factor in varies:
            each = each * np.asarray(factor, dtype=float)
        return LinearWeights(each, "learning rates and clip norms of the history"), []
    weights = LinearWeights.from_optimizer(optimizer, steps, lr_history=lr_history, used=True)
    return (weights if clips is None or len(set(clips)) == 1 else weights.scaled(clips)), []
