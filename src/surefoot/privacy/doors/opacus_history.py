"""What Opacus wrote down about a training, turned into a report and into facts. Needs no Opacus.

Opacus keeps runs of (noise multiplier, sample rate, steps) and nothing else: neither the learning rate, nor
the clip norm, nor whether the batches were Poisson samples at all. What it does not say has to be given,
or is recorded by the accountant of `register_opacus`. Only what Opacus, its optimiser or its loader show
becomes a fact of what ran; what a caller says of the sampling stays a claim.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot._numerics.arguments import checked
from surefoot.errors import FileFormatError
from surefoot.privacy._checks import check_delta, check_noise, check_rate, check_rates, check_steps
from surefoot.privacy.comparison import Report, check_audit, made_report
from surefoot.privacy.doors.opacus_weights import weigh_training
from surefoot.privacy.facts import merged, setting_facts
from surefoot.privacy.heuristic import PerStep, Sampling
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.privacy.audit import AuditResult

KEY = "privacy_accountant_state_dict"
OPTIMIZER_KEY = "optimizer_state_dict"
UNKNOWN = (
    "Opacus does not record how batches were drawn: Poisson sampling is taken on trust; "
    "pass data_loader or sampling to have it checked or said"
)
CONSTANT = (
    "every batch had exactly {size} examples: Poisson batches vary in size, so these were not; "
    "pass sampling='shuffled', or sampling='poisson' if you know better"
)


def history_of(source: Any) -> list[tuple[float, float, int]]:
    """The runs (noise multiplier, sample rate, steps) of an engine, accountant, state dict or checkpoint.

    Raises
    ------
    ValueError
        If the source has no history, an empty one, or one with impossible numbers.
    FileFormatError
        If a path is no checkpoint with an accountant's state.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _history_in(_state_of(source))
    try:
        return _history_in(_state_of(source))
    except FileFormatError:
        raise
    except ValueError as error:
        raise FileFormatError(
            f"{source} is no checkpoint with an accountant's state: {error}"
        ) from error


def _history_in(state: Mapping[str, Any]) -> list[tuple[float, float, int]]:
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
        beside = source.get(OPTIMIZER_KEY)
        return {**inner, OPTIMIZER_KEY: beside} if isinstance(beside, Mapping) else inner
    accountant = getattr(source, "accountant", source)
    if hasattr(accountant, "history"):
        return {
            "history": accountant.history, "mechanism": accountant.mechanism(), **_extras(accountant)
        }  # fmt: skip
    raise ValueError(
        "source must be an Opacus engine, an accountant, a state dict or the path of a checkpoint, "
        f"got {type(source).__name__}"
    )


def _extras(accountant: Any) -> dict[str, Any]:
    observed = getattr(accountant, "observed", None)
    if observed is None:
        return {}
    return {"observed": observed, "kinds": getattr(accountant, "kinds", {})}


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise FileFormatError(f"{path} is no file; source must be the checkpoint that Opacus saved")
    try:
        _check_sums(path)
        # Weights only: a checkpoint from somewhere else must not run code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileFormatError(f"{path} is no checkpoint that torch can read: {error}") from error


def _check_sums(path: Path) -> None:
    """Compare what holds the numbers with the checksum that torch wrote and does not look at."""
    if not zipfile.is_zipfile(path):
        # The format of torch before 1.6 has none.
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                archive.read(name)


@checked
def from_opacus(
    source: Any,
    delta: float,
    *,
    optimizer: Any = None,
    lr_history: Sequence[float] | None = None,
    data_loader: Any = None,
    sampling: Sampling | None = None,
    audit: AuditResult | None = None,
) -> Report:
    """Proven and heuristic epsilon of what an Opacus training has done so far.

    Parameters
    ----------
    source
        A PrivacyEngine, an accountant, its state dict, a checkpoint's dict, or the path of a checkpoint.
    delta
        Failure probability of the statement.
    optimizer
        The optimiser of the training (Opacus' wrapper or torch's), of which only the settings are taken:
        momentum and weight decay then enter the heuristic, which is refused for what it does not cover.
        The accountant of `register_opacus` and a checkpoint with the optimiser's state need none.
    lr_history
        The learning rate of each step, where it changed.
    data_loader
        The loader of the training: whether it is Opacus' Poisson loader decides the sampling.
    sampling
        "poisson" or "shuffled", where no loader can be shown. With "shuffled" no Poisson value is reported.
    audit
        The result of an audit of this training: the report's certificates hold it against the history.

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
    if lr_history is not None:
        check_rates(lr_history, steps)
    how, notes = _sampling(sampling, data_loader, observed, steps)
    weighing = weigh_training(optimizer, lr_history, state, steps)
    sigma = _per_step([s for s, _, _ in runs], runs)
    q = _per_step([rate for _, rate, _ in runs], runs)
    if audit is not None:
        check_audit(audit, sigma, q, steps, check_delta(delta))
    report = made_report(sigma, q, steps, check_delta(delta), weighing, sampling=how, audit=audit)
    seed = report.record.seeds[0]
    note_training(report.record, seed, source, optimizer=optimizer, data_loader=data_loader)
    if lr_history is not None:
        report.record.note(seed, lr=float(min(lr_history)))
        report.record.note(seed, lr=float(max(lr_history)))
    return dataclasses.replace(report, notes=(*report.notes, *notes, *weighing.notes))


@checked
def note_training(
    record: Record,
    seed: int | None,
    source: Any,
    *,
    optimizer: Any = None,
    data_loader: Any = None,
) -> None:
    """Note what an Opacus training was, as far as Opacus, its optimiser and its loader show it.

    Parameters
    ----------
    record, seed
        Where to.
    source, optimizer, data_loader
        As in `from_opacus`.
    """
    state = _state_of(source)
    record.note(seed, **setting_facts(merged(history_of(source))))
    if (mechanism := state.get("mechanism")) is not None:
        record.note(seed, accountant=str(mechanism))
    if data_loader is not None:
        record.note(seed, sampling="poisson" if _is_poisson(data_loader) else "shuffled")
    if optimizer is not None:
        _note_optimizer(record, seed, optimizer)
    if (observed := state.get("observed")) is not None:
        _note_observed(record, seed, observed)


def _note_optimizer(record: Record, seed: int | None, optimizer: Any) -> None:
    clip = getattr(optimizer, "max_grad_norm", None)
    if isinstance(clip, (int, float)) and hasattr(optimizer, "clip_and_accumulate"):
        record.note(seed, clipping="per example", clip_norm=float(clip))
    plain = getattr(optimizer, "original_optimizer", optimizer)
    record.note(seed, optimizer=type(plain).__name__)
    for group in plain.param_groups:
        for name in ("momentum", "weight_decay"):
            record.note(seed, **{name: float(group.get(name, 0.0))})


def _note_observed(record: Record, seed: int | None, observed: Mapping[str, Any]) -> None:
    columns = {
        "lr": "lrs", "clip_norm": "clips", "momentum": "momenta", "weight_decay": "weight_decays",
    }  # fmt: skip
    for fact, column in columns.items():
        values = observed.get(column, ())
        # Where it changed, both ends: two values say that it did.
        for value in (min(values), max(values)) if values else ():
            record.note(seed, **{fact: float(value)})
    if observed["clips"]:
        record.note(seed, clipping="per example")
    for name in observed.get("optimizers", ()):
        record.note(seed, optimizer=str(name))


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
