"""A warm start: decode a function's embedding, then L-BFGS; beside random starts of the same shape."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot.architecture._autoencoder import held_out
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.experiments.spaces import S3, trained
from surefoot.architecture.polishing import polish_lbfgs
from surefoot.guarantee import Guarantee, assume_fact
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# CPU seconds of training, unseen networks, outer steps of L-BFGS (4 iterations each), points.
SIZES = {"quick": (1.5, 6, 2), "standard": (40.0, 48, 20), "paper": (1800.0, 96, 20)}
POINTS, LEARNT = 512, 40.0
DECODED, RANDOM = "decoded start", "random start"
HALF = "decoded start within half of the random start after one step"


def fresh_start(like: nn.Module, generator: torch.Generator) -> nn.Module:
    """A network of the same shape with weights N(0, 1/fan_in) and small biases.

    Parameters
    ----------
    like : Module
        A plain network.
    generator : torch.Generator
        Draws the entries.
    """
    net = copy.deepcopy(like)
    with torch.no_grad():
        for linear in net.modules():
            if isinstance(linear, nn.Linear):
                w = torch.randn(linear.weight.shape, generator=generator, dtype=torch.float32)
                linear.weight.copy_(w * linear.in_features**-0.5)
                linear.bias.copy_(
                    0.1 * torch.randn(linear.bias.shape, generator=generator, dtype=torch.float32)
                )
    return net


def head_start(
    model: NetworkAutoencoder, networks: int, outer: int, seed: int
) -> dict[str, Float[np.ndarray, "networks steps"]]:
    """Normalised errors after every outer step, of decoded and of random starts, on points that neither saw.

    Parameters
    ----------
    model : NetworkAutoencoder
        A trained one.
    networks : int
        Unseen networks, of depths 1 to 3.
    outer : int
        Outer steps of L-BFGS.
    seed : int
        Of networks, points and random starts.

    Returns
    -------
    dict
        "decoded start" and "random start": (networks, outer + 1) arrays.
    """
    space, generator = model.space, generator_for("surefoot.architecture warm start", seed)
    x, x_test = (space.sample_inputs(POINTS, generator) for _ in range(2))
    found: dict[str, list[list[float]]] = {DECODED: [], RANDOM: []}
    depths = min(3, space.max_depth)
    for depth in range(1, depths + 1):
        batch = space.sample(-(-networks // depths), depth, generator)
        best = held_out.errors_on(
            [batch], x, model.encode, lambda z, d: model.decode(z, d, hard=True), space.max_depth
        ).argmin(1)
        for i, d in enumerate(best):
            with torch.no_grad():
                y, y_test = batch[i](x)[0], batch[i](x_test)[0]
            start = model.decode(model.encode(batch[i]), int(d) + 1, hard=True).to_sequential(0)
            for name, net in ((DECODED, start), (RANDOM, fresh_start(start, generator))):
                found[name].append(_curve(net, x, y, x_test, y_test, outer))
    return {name: np.array(rows)[:networks] for name, rows in found.items()}


def _curve(
    net: nn.Module, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, outer: int
) -> list[float]:
    scale = float(y_test.var(correction=0)) + 1e-3
    wide, target = x_test.double(), y_test.double()

    def error(m: nn.Module) -> float:
        return float((m(wide) - target).square().mean()) / scale

    values = polish_lbfgs(net, x, y, outer=outer, judge=error)[1]
    # A run that ended early keeps what it had.
    return values + [values[-1]] * (outer + 1 - len(values))


def run(config: Any, seed: int, record: Record) -> None:
    """Median errors after each outer step."""
    seconds, networks, outer = SIZES[config.size]
    record.note(seed, trained_seconds=seconds)
    found = head_start(trained(S3, seconds, seed), networks, outer, seed)
    for name, errors in found.items():
        for step, value in enumerate(np.median(errors, axis=0)):
            record.update(seed, step, {name: float(value)})
    record.append(
        seed, 1,
        **{
            "share better after 1": float((found[DECODED][:, 1] < found[RANDOM][:, 1]).mean()),
        },
    )  # fmt: skip


def guarantees(config: Any) -> list[Guarantee]:
    """What is expected and not proven: the head start after one outer step."""

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        # The gap closes later: nothing is claimed but of the first step.
        found = np.full_like(record[RANDOM], np.inf)
        found[:, 1] = record[RANDOM][:, 1] / 2
        return found

    return [
        Guarantee(
            name=HALF, statement="median error of decoded starts <= 1/2 that of random starts, at step 1",
            source="heuristic: the embedding knows the function", quantity=DECODED, sense="upper",
            axis="median error of the decoded starts",
            holds_in="every run", heuristic=True, bound=bound,
            assumptions=lambda record: (
                assume_fact(
                    record, "trained_seconds", "a decoder that has learnt", f">= {LEARNT:g} CPU-s",
                    lambda s: float(s) >= LEARNT,
                ),
            ),
        )
    ]  # fmt: skip


def tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """The median error by outer step, the mean over seeds."""
    steps = [s for s in (0, 1, 2, 5, 10, 20) if s <= SIZES[config.size][2]]
    rows = [
        {"start": name, **{f"after {s}": float(record[name][:, s].mean()) for s in steps}}
        for name in (DECODED, RANDOM)
    ]
    title = f"median error of {SIZES[config.size][1]} unseen networks after outer steps of L-BFGS"
    return {title: pd.DataFrame(rows)}


def figures(config: Any, record: Record) -> dict[str, Figure]:
    """Both curves on a logarithmic axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in (DECODED, RANDOM):
        curves = record.curves(name)
        figure.add_scatter(x=curves.steps, y=curves.values.mean(0), name=name, mode="lines+markers")
    figure.update_layout(
        xaxis_title="outer steps of L-BFGS", yaxis_title="median error", yaxis_type="log"
    )
    return {"warm start": figure}
