"""How alike two small grey images are."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

WINDOW, K1, K2 = 7, 0.01, 0.03


def psnr(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> float:
    """Peak signal-to-noise ratio in dB of brightness in [0, 1]; infinite where they are the same."""
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: Float[Tensor, "h w"], b: Float[Tensor, "h w"]) -> float:
    """Structural similarity of brightness in [0, 1]: the mean over windows of 7 x 7 pixels.

    Wang et al. (2004), with uniform windows and sample covariances as in scikit-image.
    """
    x, y = (
        nn.functional.unfold(v.double()[None, None], WINDOW)[0] for v in (a, b)
    )  # (window pixels, windows)
    means = x.mean(0), y.mean(0)
    variances = x.var(0) + y.var(0)
    covariance = ((x - means[0]) * (y - means[1])).sum(0) / (len(x) - 1)
    c1, c2 = K1**2, K2**2
    above = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    below = (means[0].square() + means[1].square() + c1) * (variances + c2)
    found: Tensor = torch.mean(above / below)
    return float(found)
