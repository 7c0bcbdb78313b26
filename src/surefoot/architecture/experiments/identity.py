"""Function identity: how far a permuted copy of a network lies from it, against an unrelated network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from surefoot._numerics.seeds import generator_for
from surefoot._problems.arms import keep, last, of_arm
from surefoot.architecture._autoencoder import held_out
from surefoot.architecture._guarantee.embedding import IDENTITY, OF, function_identity
from surefoot.architecture.experiments.spaces import S3, trained
from surefoot.certificate import Certificate, certify
from surefoot.guarantee import Guarantee
from surefoot.record import Record

# CPU seconds of training and networks of each depth.
SIZES = {"quick": (1.0, 40), "standard": (40.0, 200), "paper": (1800.0, 400)}
ENCODERS = ("probe", "matrix", "conv")
CLOSER = "probe: permuted copies closer than the matrix encoder has them"


def run(config: Any, seed: int, record: Record) -> None:
    """The ratio at each depth, of each encoder after the same CPU time."""
    seconds, networks = SIZES[config.size]
    for encoder in ENCODERS:
        decoder = "conv" if encoder == "conv" else "mlp"
        model = trained(S3, seconds, seed, encoder=encoder, decoder=decoder)
        generator = generator_for("surefoot.architecture identity", seed)
        drawn = [S3.sample(networks, d, generator) for d in range(1, S3.max_depth + 1)]
        ratios = held_out.identity_ratios(drawn, model.encode, generator).reshape(len(drawn), -1)
        found = {f"{encoder}, depth {d}": float(np.median(r)) for d, r in enumerate(ratios, 1)}
        record.update(seed, 0, {**found, f"{encoder} ratio": float(np.median(ratios))})
        own = Record()
        own.update(seed, 0, {IDENTITY: float(ratios.max())})
        own.note(seed, OF, encoder=encoder)
        keep(record, seed, encoder, own)


def guarantees(config: Any) -> list[Guarantee]:
    """What is expected and not proven: copies are nearer where the encoder probes."""
    return [
        Guarantee(
            name=CLOSER, statement="ratio of the probe encoder <= ratio of the matrix encoder / 100",
            source="heuristic: a weight-reading encoder does not know that neurons may be exchanged",
            quantity="probe ratio", sense="upper", holds_in="every run", heuristic=True,
            bound=lambda record: record["matrix ratio"] / 100,
        )
    ]  # fmt: skip


def certificates(config: Any, record: Record) -> list[Certificate]:
    """3.2 of the encoder that probes."""
    return [certify(of_arm(record, "probe"), function_identity())]


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The median ratio by encoder and depth of the network."""
    rows = [
        {
            "encoder": encoder,
            **{
                f"depth {d}": last(record, f"{encoder}, depth {d}")
                for d in range(1, S3.max_depth + 1)
            },
        }
        for encoder in ENCODERS
    ]
    title = f"distance of a permuted copy / of two networks, after {SIZES[config.size][0]:g} CPU-s"
    return {title: pd.DataFrame(rows)}
