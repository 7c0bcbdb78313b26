"""A decoder of the default space: trained on this machine when first asked for, then read from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from surefoot import errors
from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.architecture.autoencoder import NetworkAutoencoder
from surefoot.architecture.space import MLPSpace
from surefoot.data.store import cache_dir

# Inputs of variance 1, as standardised columns have.
DEFAULT_SPACE = MLPSpace(8, 1, 8, 3, ("tanh", "relu"), weight_scale=1.5, input_scale=1.73)
# Ten to fourteen minutes of one core.
STEPS = 12_000
# Raised when the training changes, so that old files are not taken for new ones.
RECIPE = 1


@checked
def pretrained_path(
    space: MLPSpace = DEFAULT_SPACE,
    steps: int = STEPS,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Path:
    """Where `pretrained` keeps an autoencoder: its name is a hash of all that its training depends on.

    Parameters
    ----------
    space : MLPSpace
        The networks.
    steps : int
        Of the training.
    seed : int
        Of parameters, networks and inputs.
    folder : str or Path, optional
        By default `architecture` in the cache directory (`SUREFOOT_DATA`).
    """
    steps = check_number("steps", steps, least=1, whole=True)
    seed = check_number("seed", seed, whole=True)
    config = NetworkAutoencoder(space, seed=seed).config()
    text = json.dumps({"recipe": RECIPE, "steps": steps, **config}, sort_keys=True)
    name = f"autoencoder-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    return (cache_dir() / "architecture" if folder is None else Path(folder)) / name


@checked
def pretrained(
    space: MLPSpace = DEFAULT_SPACE,
    steps: int = STEPS,
    seed: int = 0,
    folder: str | Path | None = None,
    callback: Callable[[int, float], object] | None = None,
) -> NetworkAutoencoder:
    """A trained autoencoder: read from the cache, or trained now and kept there.

    Processes that ask for the same one at once train it once. A damaged file is trained anew, with a warning.

    Parameters
    ----------
    space : MLPSpace
        The networks; by default 8 inputs of variance 1, one output, up to 3 layers of 8 tanh or relu neurons.
        `search` adapts it to any number of features and outputs.
    steps : int
        Of the training; the default takes ten to fourteen minutes of one core.
    seed : int
        Of parameters, networks and inputs.
    folder : str or Path, optional
        By default `architecture` in the cache directory (`SUREFOOT_DATA`).
    callback : callable, optional
        As in `NetworkAutoencoder.fit`, while it trains; one that stops the training is refused.

    Raises
    ------
    ValueError
        An argument is not allowed, or the callback stopped the training.

    Warns
    -----
    UserWarning
        The file in the cache is damaged.
    """
    path = pretrained_path(space, steps, seed, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            try:
                found = NetworkAutoencoder.load(path)
                if found.config() == NetworkAutoencoder(space, seed=seed).config():
                    return found
                raise errors.FileFormatError(f"{path} holds another autoencoder than its name says")
            except errors.FileFormatError as error:
                errors.warn(f"{error}; it is trained anew", UserWarning)
        model = NetworkAutoencoder(space, seed=seed).fit(steps=steps, seed=seed, callback=callback)
        if model.record.fact("steps").all != (steps,):
            raise ValueError("callback must not stop the training of an autoencoder that is kept")
        model.save(path)
        return model
