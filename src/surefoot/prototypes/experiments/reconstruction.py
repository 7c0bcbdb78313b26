"""A decoder that turns uploads back into images: what a server that knows the encoder can do.

The analogue of the paper's attack. The decoder is trained on public embeddings, applied to every row of an
upload, and scored against the nearest private image of the row's class. What it finds in a mean looks like
the class, not like a person; a number is reported, and nothing is called unrecoverable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.seeds import generator_for
from surefoot._problems.arms import last
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.image_quality import psnr, ssim
from surefoot.prototypes.experiments.toy import SIDE, D, Toy, toy
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.record import Record

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DELTA = 1e-5
UPLOADS: dict[str, tuple[str, float, float | None]] = {
    "random .3": ("random", 0.3, None), "cluster .3": ("cluster", 0.3, None),
    "cluster .1": ("cluster", 0.1, None), "mean": ("mean", 1.0, None),
    "mean, epsilon 8": ("mean", 1.0, 8.0), "mean, epsilon 1": ("mean", 1.0, 1.0),
}  # fmt: skip
"""Method, ratio, epsilon."""
GUESS = "no upload: the public mean of the class"
# Pixels between two images of a column and of a row, where their names have to stand side by side.
GAP, APART = 1, 6
PITCH, ACROSS = SIDE + GAP, SIDE + APART
STEPS = {"quick": 300, "standard": 3000, "paper": 3000}


def decoder_of(made: Toy, steps: int, seed: int) -> nn.Module:
    """Embeddings to pixels, by least squares on the public digits and their altered copies."""
    z, x = made.public[1], made.public[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = nn.Sequential(nn.Linear(D, 256), nn.ReLU(), nn.Linear(256, SIDE**2), nn.Sigmoid())
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-3)
    generator = generator_for("decoder", seed)
    for _ in range(steps):
        batch = torch.randint(len(z), (64,), generator=generator)
        loss = (decoder(z[batch]) - x[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.requires_grad_(False)


def nearest(
    found: Float[Tensor, "M pixels"],
    labels: Int[Tensor, " M"],
    private: Float[Tensor, "N pixels"],
    classes: Int[Tensor, " N"],
) -> tuple[list[float], list[float], list[int]]:
    """PSNR and SSIM of each image to the private one of its class that is nearest, and which that is."""
    peaks, similar, which = [], [], []
    for image, label in zip(found, labels.tolist(), strict=True):
        rows = torch.nonzero(classes == label).flatten()
        at = int(rows[(private[rows] - image).square().sum(1).argmin()])
        peaks.append(psnr(image, private[at]))
        similar.append(ssim(image.reshape(SIDE, SIDE), private[at].reshape(SIDE, SIDE)))
        which.append(at)
    return peaks, similar, which


def run(config: PrototypesConfig, seed: int, record: Record) -> None:
    """The attack on the upload of the client whose domain the encoder knows, the attacker's best case."""
    made = toy(config.size, seed)
    decoder = decoder_of(made, STEPS[config.size], seed)
    z, y = made.domains[0].train
    private = made.pixels[0]
    for name, (method, ratio, epsilon) in UPLOADS.items():
        release = None if epsilon is None else GaussianRelease(epsilon, DELTA)
        upload = extract_prototypes(z, y, method, ratio, seed=seed, dp=release)
        _score(record, seed, name, decoder(upload.features.float()), upload.labels, (private, y))
    labels = torch.arange(10)
    means = [made.public[0][made.public_labels == c].mean(0) for c in labels.tolist()]
    _score(record, seed, GUESS, torch.stack(means), labels, (private, y))


def _score(
    record: Record,
    seed: int,
    name: str,
    found: Tensor,
    labels: Tensor,
    private: tuple[Tensor, Tensor],
) -> None:
    peaks, similar, which = nearest(found, labels, *private)
    best = max(range(len(peaks)), key=peaks.__getitem__)
    record.append(
        seed, 0,
        **{f"{name}: psnr": sum(peaks) / len(peaks), f"{name}: ssim": sum(similar) / len(similar),
           f"{name}: best": peaks[best]},
    )  # fmt: skip
    record.extend(seed, f"{name}: found", found[best].tolist())
    record.extend(seed, f"{name}: private", private[0][which[best]].tolist())


def tables(config: PrototypesConfig, record: Record) -> dict[str, pd.DataFrame]:
    """Best reconstruction first."""
    rows = [
        {"upload": name, "PSNR in dB": last(record, f"{name}: psnr"),
         "SSIM": last(record, f"{name}: ssim"), "PSNR of the best row": last(record, f"{name}: best")}
        for name in (*UPLOADS, GUESS)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).sort_values("PSNR in dB", ascending=False)
    title = "decoded rows beside the nearest private image of their class (toy of digits)"
    return {title: frame.reset_index(drop=True)}


def figures(config: PrototypesConfig, record: Record) -> dict[str, Figure]:
    """The best reconstruction of each upload, beside the private image that it found: one picture of all."""
    import plotly.graph_objects as go

    names: Sequence[str] = (*UPLOADS, GUESS)
    pixels = np.full((len(names) * PITCH - GAP, 2 * ACROSS - APART), np.nan)
    for row, name in enumerate(names):
        for column, what in enumerate(("found", "private")):
            top, left = row * PITCH, column * ACROSS
            image = record[f"{name}: {what}"][0].reshape(SIDE, SIDE)
            pixels[top : top + SIDE, left : left + SIDE] = image
    figure = go.Figure(
        go.Heatmap(z=pixels, colorscale="Greys", showscale=False, zmin=0, zmax=1, hoverinfo="skip")
    )
    middle = (SIDE - 1) / 2
    figure.update_xaxes(
        tickvals=[middle, middle + ACROSS], ticktext=["decoded", "private"], tickangle=0, showgrid=False,
        side="top", constrain="domain",
    )  # fmt: skip
    # A line for each upload: titles beside one another would have no room on a phone.
    figure.update_yaxes(
        tickvals=[middle + i * PITCH for i in range(len(names))], showgrid=False,
        ticktext=[n.replace(": ", ":<br>") for n in names],
        autorange="reversed", scaleanchor="x", constrain="domain",
    )  # fmt: skip
    figure.update_layout(height=64 * len(names) + 60)
    return {"what a decoder sees": figure}
