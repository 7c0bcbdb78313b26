"""Accuracy for epsilon: DP-LOZO beside LOZO, DP-SGD and SGD under equal tuning (part private).

The validation split, which is public, chooses each arm's candidate by accuracy; the test split is used once.
Noise and coins of the private arms are the operating system's, so that no run can be repeated to the bit.
What tuning leaks is not accounted.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from surefoot._problems.tuning import EqualTuning
from surefoot.certificate import Certificate
from surefoot.errors import MissingExtraError
from surefoot.record import Record
from surefoot.zeroth_order.experiments import private_arms as arms
from surefoot.zeroth_order.experiments import private_memory as memory
from surefoot.zeroth_order.experiments.private_arms import SETTINGS, TEST
from surefoot.zeroth_order.experiments.private_task import task_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

START, PLAIN, FIRST = "start", "LOZO", "SGD"
MEASURED = {"quick": (memory.DP_LOZO, memory.DP_SGD), "standard": memory.ARMS, "paper": memory.ARMS}


def private_arm(epsilon: float) -> str:
    """DP-LOZO's name."""
    return f"DP-LOZO, epsilon {epsilon:g}"


def dp_sgd_arm(epsilon: float) -> str:
    """DP-SGD's."""
    return f"DP-SGD, epsilon {epsilon:g}"


def run(config: Any, seed: int, record: Record) -> None:
    """All arms, and in the first seed the memory."""
    task, tuning = task_of(config), EqualTuning("higher")
    setting = SETTINGS[config.size]
    record.update(seed, 0, {f"{START}, {TEST}": task.accuracy(task.model(), "test")})
    each = functools.partial(arms.compete, task, record, seed, tuning)
    each(PLAIN, setting.plain, functools.partial(arms.lozo, task, setting, seed))
    each(FIRST, setting.sgd, functools.partial(arms.sgd, task, setting, seed))
    for epsilon, sigma in setting.noise.items():
        private = functools.partial(arms.lozo, task, setting, seed, sigma=sigma)
        each(private_arm(epsilon), setting.private, private)
    try:
        for epsilon, sigma in setting.first_order_noise.items():
            peer = functools.partial(arms.dp_sgd, task, setting, seed, sigma=sigma)
            each(dp_sgd_arm(epsilon), setting.dp_sgd, peer)
    except MissingExtraError as missing:
        record.note(seed, skipped=f"DP-SGD: {missing}")
    if seed == config.seed:
        for arm in MEASURED[config.size]:
            if not (arm in memory.NEEDS_OPACUS and record.fact("skipped").all):
                value = memory.peak(arm, config.size, config.encoder)
                record.update(seed, 0, {f"{arm}, peak MB": value})


def certificates(config: Any, record: Record) -> list[Certificate]:
    """The one list of each private arm."""
    return arms.promised(record, [a for a in competed(record) if a not in (PLAIN, FIRST)])


# -- what is shown ----------------------------------------------------------------------------------------


def competed(record: Record) -> list[str]:
    """The arms that were trained, in the order of the tables."""
    found = [q.removesuffix(f", {TEST}") for q in record.quantities if q.endswith(f", {TEST}")]
    return [a for a in found if a != START]


def row_of(record: Record, arm: str, base: str) -> dict[str, Any]:
    """One arm of the table: accuracy over seeds, and its difference to another arm, seed by seed."""
    accuracy = record.constant(f"{arm}, {TEST}")
    apart = accuracy - record.constant(f"{base}, {TEST}")
    spread = float(accuracy.std(ddof=1)) if len(accuracy) > 1 else math.nan
    chosen = sorted({str(v) for v in record.fact("chosen", arm).all})
    return {
        "arm": arm, "epsilon": arms.epsilon_of(record, arm), TEST: float(accuracy.mean()),
        "sd over seeds": spread, f"minus {base}": float(apart.mean()),
        "steps": int(record.constant(f"{arm}, {arms.STEPS}")[0]),
        arms.SECONDS: float(record.constant(f"{arm}, {arms.SECONDS}").mean()),
        "chosen by validation": "; ".join(chosen),
    }  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Accuracy and epsilon; memory; what the bars of the method ask beside what was measured."""
    found = {}
    if why := sorted({str(v) for v in record.fact("skipped").all}):
        found["skipped"] = pd.DataFrame({"why": why})
    start = record.constant(f"{START}, {TEST}")
    rows = [row_of(record, arm, PLAIN) for arm in competed(record)]
    title = f"accuracy for epsilon at delta {arms.DELTA:g}, {len(start)} seeds, start {start.mean():.3f}"
    found[title] = pd.DataFrame(rows)
    peaks = {a: peak_of(record, a) for a in memory.ARMS if f"{a}, peak MB" in record}
    frame = [{"arm": a, "MB above the loaded model": mb} for a, mb in peaks.items()]
    found[f"memory of three steps at batch {memory.BATCH}, a process each"] = pd.DataFrame(frame)
    found["beside the bars"] = pd.DataFrame(bars(record, peaks))
    return found


def peak_of(record: Record, arm: str) -> float:
    """The one measurement of an arm, in MB."""
    return float(pd.Series(record.frame(f"{arm}, peak MB")[f"{arm}, peak MB"]).dropna().iloc[-1])


def bars(record: Record, peaks: dict[str, float]) -> list[dict[str, Any]]:
    """What is asked of the method, and whether it was reached."""
    found = []

    def asked(what: str, bar: str, value: float, reached: bool) -> None:
        found.append({"what": what, "bar": bar, "measured": value, "reached": reached})

    there = competed(record)
    accuracy = {a: record.constant(f"{a}, {TEST}") for a in there}
    if private_arm(1) in there:
        gap = float((accuracy[private_arm(1)] - accuracy[PLAIN]).mean())
        asked("accuracy at epsilon 1 minus LOZO without privacy", ">= -0.015", gap, gap >= -0.015)
    for arm in there:
        peer = arm.replace("DP-LOZO", "DP-SGD")
        if arm.startswith("DP-LOZO") and peer in there:
            gap = float((accuracy[arm] - accuracy[peer]).mean())
            asked(f"accuracy of {arm} minus DP-SGD's", ">= -0.03", gap, gap >= -0.03)
    for peer in memory.NEEDS_OPACUS:
        if peer in peaks:
            ratio = peaks[memory.DP_LOZO] / peaks[peer]
            asked(f"peak memory over that of {peer}", "<= 0.125", ratio, ratio <= 0.125)
    return found


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Accuracy against epsilon, and the memory of a step."""
    import plotly.graph_objects as go

    accuracy = go.Figure()
    for name, symbol in (("DP-LOZO", "circle"), ("DP-SGD", "square")):
        own = [a for a in competed(record) if a.startswith(f"{name},")]
        points = sorted(
            (arms.epsilon_of(record, a), float(record.constant(f"{a}, {TEST}").mean())) for a in own
        )
        accuracy.add_scatter(
            x=[e for e, _ in points], y=[v for _, v in points], name=name, mode="lines+markers",
            marker={"symbol": symbol},
        )  # fmt: skip
    for arm, dash in ((PLAIN, "dot"), (FIRST, "dash"), (START, "dashdot")):
        value = float(record.constant(f"{arm}, {TEST}").mean())
        accuracy.add_hline(y=value, line={"dash": dash}, annotation_text=f"{arm}, no privacy")
    accuracy.update_layout(
        xaxis_title=f"epsilon at delta {arms.DELTA:g}", xaxis_type="log",
        yaxis_title="test accuracy (share of the test split)",
    )  # fmt: skip
    peaks = {a: peak_of(record, a) for a in memory.ARMS if f"{a}, peak MB" in record}
    peak = go.Figure()
    peak.add_bar(x=list(peaks), y=list(peaks.values()), name="peak")
    peak.update_layout(
        xaxis_title="arm", yaxis_title="peak above the loaded model (MB of 2^20 bytes)"
    )
    return {"accuracy against epsilon": accuracy, "memory of a step": peak}
