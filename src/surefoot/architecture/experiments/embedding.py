"""How well unseen networks are represented, against CPU time: encoders, standardisation, the paper's loss."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from surefoot._numerics.seeds import generator_for
from surefoot._problems.arms import keep, last, of_arm
from surefoot.architecture._autoencoder import held_out
from surefoot.architecture._guarantee.embedding import (
    OF,
    embedding_quality,
    function_identity,
    plain_exactness,
)
from surefoot.architecture._guarantee.measuring import measure
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.experiments.spaces import RAW, S3, S8
from surefoot.architecture.space import MLPSpace
from surefoot.certificate import Certificate, certify
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

QUICK = ("probe", "matrix")
ARMS: dict[str, tuple[MLPSpace, dict[str, Any]]] = {
    "probe": (S3, {}),
    "matrix": (S3, {"encoder": "matrix"}),
    "conv": (S3, {"encoder": "conv", "decoder": "conv"}),
    "raw outputs": (RAW, {}),
    "winner only": (S3, {"winner_weight": 1.0, "all_weight": 0.0}),
    "chunked": (S3, {"decoder": "chunked"}),
    "8 inputs": (S8, {}),
}
# CPU seconds of each arm, networks that are held out at a look, looks, and arms.
SIZES = {
    "quick": (1.5, 60, 2, QUICK),
    "standard": (40.0, 800, 6, tuple(ARMS)),
    "paper": (1800.0, 800, 8, tuple(ARMS)),
}


def run(config: Any, seed: int, record: Record) -> None:
    """Each arm for the same CPU time; held-out errors on the way and at the end."""
    seconds, networks, looks, arms = SIZES[config.size]
    for arm in arms:
        space, settings = ARMS[arm]
        model = NetworkAutoencoder(space, seed=seed, **settings)
        generator = generator_for("surefoot.architecture embedding", seed)
        nets = held_out.draw(space, networks, generator)
        x = space.sample_inputs(held_out.POINTS, generator)
        start, looking, seen = time.process_time(), [0.0], [0]

        def spent(start: float = start, looking: list[float] = looking) -> float:
            # What the looks take is none of the training.
            return time.process_time() - start - looking[0]

        def look(
            step: int, loss: float, arm: str = arm, model: NetworkAutoencoder = model, spent: Any = spent,
            looking: list[float] = looking, seen: list[int] = seen, nets: Any = nets, x: Any = x,
        ) -> None:  # fmt: skip
            # Twice as long between one look and the next.
            if seen[0] < looks and spent() >= seconds * 2.0 ** (seen[0] - looks):
                before = time.process_time()
                seen[0] += 1
                error = np.median(model.errors(nets, x).min(1))
                looking[0] += time.process_time() - before
                record.update(seed, seen[0], {f"{arm}: error": error, f"{arm}: seconds": spent()})

        model.fit(seconds=seconds, seed=seed, callback=look, clock=spent)
        _conclude(record, seed, arm, model, nets, x, looks + 1, spent())


def _conclude(
    record: Record,
    seed: int,
    arm: str,
    model: NetworkAutoencoder,
    nets: Any,
    x: Any,
    step: int,
    seconds: float,
) -> None:
    errors = model.errors(nets, x)
    depth = np.concatenate([np.full(len(b), b.depth) for b in nets])
    found = held_out.summary(errors, depth, 0.95)
    record.update(
        seed, step,
        {
            f"{arm}: error": found["median"], f"{arm}: seconds": seconds,
            f"{arm}: own-depth error": found["own_depth_median"],
            f"{arm}: 0.9 bound": found["q90_bound"], f"{arm}: least winner": float(found["winners"].min()),
            f"{arm}: steps": float(model.record.fact("steps").all[0]),
        },
    )  # fmt: skip
    own = Record()
    measure(
        own, seed, model.space, model.encode, model.errors, n=100, fresh=100, confidence=0.95,
        encoder=model.encoder_kind,
    )  # fmt: skip
    own.note(seed, OF, frozen=True)
    keep(record, seed, arm, own)


def certificates(config: Any, record: Record) -> list[Certificate]:
    """3.1 to 3.3 of every arm; 3.2 is promised of encoders that probe only."""
    claims = (
        embedding_quality(0.5),
        embedding_quality(0.9),
        function_identity(),
        plain_exactness(),
    )
    return [
        dataclasses.replace(found, name=f"{found.name}, {arm}")
        for arm in SIZES[config.size][3]
        for found in (certify(of_arm(record, arm), claim) for claim in claims)
    ]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Error of the best decoder, of the own-depth one, the bound on 90 % of networks, the least winner."""
    rows = [
        {
            "arm": arm,
            "median error": last(record, f"{arm}: error"),
            "own depth": last(record, f"{arm}: own-depth error"),
            "bound on 90 %": last(record, f"{arm}: 0.9 bound"),
            "least winner": last(record, f"{arm}: least winner"),
            "steps": last(record, f"{arm}: steps"),
        }
        for arm in SIZES[config.size][3]
    ]
    title = (
        f"unseen networks after {SIZES[config.size][0]:g} CPU-s (predicting the mean has error 1)"
    )
    return {title: pd.DataFrame(rows)}


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """The median error against the CPU time of the training, both on logarithmic axes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for arm in SIZES[config.size][3]:
        errors, seconds = record.curves(f"{arm}: error"), record.curves(f"{arm}: seconds")
        figure.add_scatter(
            x=seconds.values.mean(0), y=errors.values.mean(0), name=arm, mode="lines+markers"
        )
    figure.update_layout(
        xaxis_title="CPU seconds of training", yaxis_title="median error of unseen networks",
        xaxis_type="log", yaxis_type="log",
    )  # fmt: skip
    return {"error against training time": figure}
