"""Layers in float32, which networks are drawn in, whatever torch's default dtype is."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

linear = partial(nn.Linear, dtype=torch.float32)
conv = partial(nn.Conv2d, dtype=torch.float32)
conv_up = partial(nn.ConvTranspose2d, dtype=torch.float32)
