"""Measurements of an autoencoder for its guarantees, from networks drawn afresh for every seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.seeds import generator_for
from surefoot.architecture._autoencoder import held_out
from surefoot.architecture._guarantee.embedding import (
    DEVIATION,
    HARD,
    IDENTITY,
    IID,
    OF,
    TERMS,
    ZERO_ONE,
    share_above,
)
from surefoot.architecture._quantile import upper_bound
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace
from surefoot.record import Record

PLAIN = 5
Errors = Callable[[list[NetBatch], Tensor], Float[np.ndarray, "n L"]]


@torch.no_grad()
def plain_deviations(
    nets: NetBatch, x: Float[Tensor, "P D"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """How far each plain network is from the batch, and how large the terms of its outputs are.

    Parameters
    ----------
    nets : NetBatch
        Hard networks, no layer of which is empty.
    x : (P, D) tensor
        Inputs.

    Returns
    -------
    two (B,) arrays
        max_x |plain - gated| / max(1, |gated|), and max_x (sum |h w| + |b|) / max(1, |gated|).
    """
    x = x.to(nets.biases[0].dtype)
    gated = nets(x)
    plain = torch.stack([nets.to_sequential(i)(x) for i in range(len(nets))])
    size = gated.abs().clamp(min=1)
    terms = torch.baddbmm(
        nets.biases[-1].abs()[:, None], nets.hidden(x).abs(), nets.weights[-1].abs()
    )
    return (
        ((plain - gated).abs() / size).amax((1, 2)).double().numpy(),
        (terms / size).amax((1, 2)).double().numpy(),
    )


def measure(
    record: Record,
    seed: int,
    space: MLPSpace,
    embed: held_out.Embed,
    errors: Errors,
    *,
    n: int,
    fresh: int,
    confidence: float,
    encoder: str,
) -> None:
    """One seed: bounds from n networks, held against fresh ones; permuted copies; plain networks.

    Parameters
    ----------
    record : Record
        Gets columns and facts.
    seed : int
        Of all networks and inputs.
    space : MLPSpace
        From which they are drawn.
    embed, errors : callable
        The autoencoder's `encode` and `errors`.
    n, fresh : int
        Networks for the bounds, and to hold against them.
    confidence : float
        Of the bounds.
    encoder : str
        What the embedding reads.
    """
    generator = generator_for("surefoot.architecture guarantees", seed)
    nets, others = held_out.draw(space, n, generator), held_out.draw(space, fresh, generator)
    x = space.sample_inputs(held_out.POINTS, generator)
    known, unseen = errors(nets, x).min(1), errors(others, x).min(1)
    shares = {
        share_above(q): float((unseen > upper_bound(known, q, confidence)).mean())
        for q in (0.5, 0.9)
    }
    plain = [plain_deviations(batch[:PLAIN], x) for batch in nets]
    record.update(
        seed, 0,
        {
            **shares, IDENTITY: float(held_out.identity_ratios(nets, embed, generator).max()),
            DEVIATION: max(float(d.max()) for d, _ in plain), TERMS: max(float(t.max()) for _, t in plain),
        },
    )  # fmt: skip
    record.note(
        seed, OF, networks=IID, decoding=HARD, n=n, fresh=fresh, confidence=confidence, encoder=encoder,
        gates=ZERO_ONE, dtype="float32",
    )  # fmt: skip
