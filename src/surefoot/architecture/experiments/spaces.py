"""The spaces of the study, and autoencoders of them that are trained for a CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.pretraining import DEFAULT_SPACE
from surefoot.architecture.space import MLPSpace

# 3 inputs, one output, up to 4 layers of 7 tanh neurons; and 8 inputs, tanh or relu neurons.
S3 = MLPSpace(3, 1, 7, 4)
S8 = DEFAULT_SPACE
RAW = MLPSpace(3, 1, 7, 4, standardise=False)


def trained(
    space: MLPSpace,
    seconds: float,
    seed: int,
    callback: Callable[[int, float], object] | None = None,
    **settings: Any,
) -> NetworkAutoencoder:
    """An autoencoder after a CPU time of one thread, so that what is compared had the same.

    Parameters
    ----------
    space : MLPSpace
        Of the networks.
    seconds : float
        Of `time.process_time`.
    seed : int
        Of parameters, networks and inputs.
    callback : callable, optional
        As `NetworkAutoencoder.fit` takes it.
    **settings
        Of `NetworkAutoencoder`.
    """
    model = NetworkAutoencoder(space, seed=seed, **settings)
    return model.fit(seconds=seconds, seed=seed, callback=callback, clock=time.process_time)
