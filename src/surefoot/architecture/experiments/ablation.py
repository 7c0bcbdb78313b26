"""Every strategy on five real tables at equal CPU time; the test rows are read once, at the very end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from surefoot._problems.paired import Paired, paired
from surefoot.architecture._estimator.searches import LEAST_SECONDS
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.baselines import random_decoder
from surefoot.architecture.experiments.arms import ARMS, LEARNT, METHOD, Given
from surefoot.architecture.experiments.real_tables import (
    CAPS,
    TABLES,
    TEST,
    hypervolume,
    split,
)
from surefoot.architecture.experiments.spaces import trained
from surefoot.architecture.folding import run_module
from surefoot.architecture.pareto import ParetoPoint, choose
from surefoot.architecture.pretraining import DEFAULT_SPACE, pretrained
from surefoot.architecture.searching import search
from surefoot.architecture.space import MLPSpace
from surefoot.errors import MissingExtraError, UnknownNameError
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# CPU seconds of an arm, and the tables.
SIZES = {"quick": (0.15, ("wine",)), "standard": (10.0, TABLES), "paper": (20.0, TABLES)}
VOLUME, ERROR, NONZERO, SPENT = "hypervolume", "relative error", "non-zero", "CPU seconds"


def arms_of(config: Any) -> list[str]:
    """The arms that a configuration runs.

    Parameters
    ----------
    config : ArchitectureConfig
        Its `arms`; all where it names none.

    Raises
    ------
    UnknownNameError
        There is no such arm.
    """
    for name in config.arms:
        if name not in ARMS:
            raise UnknownNameError("arm", name, list(ARMS))
    return list(config.arms or ARMS)


def run(config: Any, seed: int, record: Record) -> None:
    """Every arm on every table: its validation front, scored on the test rows."""
    seconds, tables = SIZES[config.size]
    seconds = seconds if config.seconds is None else config.seconds
    wanted = arms_of(config)
    decoder = random_decoder(DEFAULT_SPACE, seed)
    if set(wanted) & set(LEARNT):
        decoder = _decoder(config, seed)
        record.note(seed, decoder=decoder.digest())
    record.note(seed, seconds=seconds)
    if seconds < LEAST_SECONDS:
        record.note(seed, shortened=f"below {LEAST_SECONDS:g} seconds a portfolio searches nothing")
    arms = []
    for arm in wanted:
        try:
            warm_up(arm, seed, decoder)
            arms.append(arm)
        except MissingExtraError as error:
            record.note(seed, arm, left_out=str(error))
    for step, name in enumerate(tables):
        table = split(name, seed)
        given = Given(table, seconds, seed, decoder)
        for arm in arms:
            start = time.process_time()
            points = ARMS[arm](given)
            spent = time.process_time() - start
            errors = [table.relative_error(run_module(p.module, table.X_test)) for p in points]
            record.update(seed, step, _measured(arm, points, errors, CAPS[name], spent))


def _measured(
    arm: str,
    points: Sequence[ParetoPoint],
    errors: Sequence[float],
    caps: Sequence[int],
    spent: float,
) -> dict[str, float]:
    """Hypervolume, the chosen point, the best within each cap: all chosen by validation loss."""
    one = choose(points, "one_se")
    within = [errors[choose(points, "best", None, cap)] for cap in caps]
    return {
        f"{arm}: {VOLUME}": hypervolume(
            [(p.n_nonzero, e) for p, e in zip(points, errors, strict=True)]
        ),
        f"{arm}: {ERROR}": errors[one],
        f"{arm}: {NONZERO}": float(points[one].n_nonzero),
        f"{arm}: {SPENT}": spent,
        **{f"{arm}: {ERROR} within cap {i}": e for i, e in enumerate(within)},
    }


def _decoder(config: Any, seed: int) -> NetworkAutoencoder:
    """The default space's, from a file, from the cache, or for seconds alone barely trained."""
    if config.decoder is not None:
        return NetworkAutoencoder.load(Path(config.decoder))
    if config.size == "quick":
        return trained(DEFAULT_SPACE, 0.5, seed)
    return pretrained()


def warm_up(arm: str, seed: int, decoder: NetworkAutoencoder) -> None:
    """What an arm imports and builds once in a process is not counted: that is seconds for some of them.

    Parameters
    ----------
    arm : str
        One of `ARMS`.
    seed : int
        Of the split and the starts.
    decoder : NetworkAutoencoder
        That the arm may search in.

    Raises
    ------
    MissingExtraError
        The arm needs what is not installed.
    """
    # Its linear models alone spend a moment, and the first optimizer of torch is then on the arm's clock.
    space, x = MLPSpace(1, 1, 1, 1), np.linspace(-1, 1, 8)[:, None]
    search(space, x, x, task="regression", depth=1, restarts=1, steps=1)
    ARMS[arm](Given(split("wine", seed), 0.01, seed, decoder))


def ran(record: Record) -> list[str]:
    """The arms of a record, in their order."""
    return [arm for arm in ARMS if f"{arm}: {VOLUME}" in record]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Hypervolumes; differences with corrected intervals; scores within caps; what is chosen."""
    names, arms = SIZES[config.size][1], ran(record)
    seconds = float(record.fact("seconds").all[0])
    found = {
        f"hypervolume of the validation front on test rows, {seconds:g} CPU-s": _means(
            record, arms, names, VOLUME
        )
    }
    if METHOD in arms and len(arms) > 1:
        found[f"hypervolume: {METHOD} minus the arm, 95 % intervals of re-splits"] = _differences(
            record, arms, names
        )
        found[f"hypervolume: mean over seeds of {METHOD} / arm"] = _ratios(record, arms, names)
    found["R2 or accuracy of the best point within so many non-zero numbers"] = _within(
        record, arms, names
    )
    found["non-zero numbers of the chosen point"] = _means(record, arms, names, NONZERO)
    found["relative test error of the chosen point"] = _means(record, arms, names, ERROR)
    found["CPU seconds that were spent"] = _means(record, arms, names, SPENT)
    return found


def _means(record: Record, arms: list[str], names: Sequence[str], what: str) -> pd.DataFrame:
    rows = []
    for arm in arms:
        values = record[f"{arm}: {what}"]
        row: dict[str, object] = {"arm": arm}
        for i, name in enumerate(names):
            row[name] = _spread(values[:, i])
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(values: np.ndarray) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) < 2:
        return f"{values.mean():.4g}"
    return f"{values.mean():.4g} ({values.std(ddof=1):.2g})"


def test_share(name: str) -> float:
    """n_test / n_train by which re-splits of one table overlap; friedman1 is drawn anew.

    Parameters
    ----------
    name : str
        A table.
    """
    return 0.0 if name == "friedman1" else TEST / (1 - TEST)


def _differences(record: Record, arms: list[str], names: Sequence[str]) -> pd.DataFrame:
    ours = record[f"{METHOD}: {VOLUME}"]
    rows = []
    for arm in arms:
        if arm == METHOD:
            continue
        d = ours - record[f"{arm}: {VOLUME}"]
        row: dict[str, object] = {"arm": arm}
        for i, name in enumerate(names):
            p = paired(d[:, i], test_share(name))
            row[name] = _said(p)
        p = paired(d.mean(axis=1), TEST / (1 - TEST))
        row["mean over tables"] = _said(p)
        rows.append(row)
    return pd.DataFrame(rows)


def _said(difference: Paired) -> str:
    """A mean difference with its half-width, which one split has not."""
    wide = "" if math.isnan(difference.corrected) else f" +- {difference.corrected:.4f}"
    return f"{difference.mean:+.4f}{wide}"


def _ratios(record: Record, arms: list[str], names: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of ours / theirs, which the acceptance check asks for."""
    ours = record[f"{METHOD}: {VOLUME}"]
    return pd.DataFrame(
        [
            {
                "arm": arm,
                **{
                    name: float((ours / record[f"{arm}: {VOLUME}"])[:, i].mean())
                    for i, name in enumerate(names)
                },
            }
            for arm in arms
            if arm != METHOD
        ]
    )


def _within(record: Record, arms: list[str], names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for i, name in enumerate(names):
        for j, cap in enumerate(CAPS[name]):
            row: dict[str, object] = {"table": name, "at most": cap}
            for arm in arms:
                errors = record[f"{arm}: {ERROR} within cap {j}"][:, i]
                scores = [
                    split(name, int(s)).score(float(e))
                    for s, e in zip(record.seeds, errors, strict=True)
                ]
                row[arm] = float(np.mean(scores))
            rows.append(row)
    return pd.DataFrame(rows)


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """The difference of each arm to the method, averaged over tables, a dot a seed."""
    import plotly.graph_objects as go

    arms = [a for a in ran(record) if a != METHOD]
    if METHOD not in ran(record) or not arms:
        return {}
    ours = record[f"{METHOD}: {VOLUME}"]
    figure = go.Figure()
    for arm in reversed(arms):
        d = (record[f"{arm}: {VOLUME}"] - ours).mean(axis=1)
        figure.add_scatter(
            x=d, y=[arm] * len(d), mode="markers", name=arm, showlegend=False,
            marker={"size": 8, "opacity": 0.7, "color": "#1098ad"},
        )  # fmt: skip
    figure.add_vline(x=0, line_dash="dot")
    figure.update_layout(
        xaxis_title=f"hypervolume minus that of the {METHOD}, mean over tables; a dot a seed",
        height=120 + 26 * len(arms),
    )
    return {"every strategy beside the portfolio": figure}
