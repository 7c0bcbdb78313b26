"""A digest of the weights that a run starts from."""

from __future__ import annotations

from surefoot._numerics.digest import tensors_digest
from surefoot.zeroth_order._engine.tensors import TrainedTensor


def digest_of(tensors: list[TrainedTensor]) -> bytes:
    """SHA-256 over names, shapes, dtypes and bytes of the trainable tensors."""
    return tensors_digest(((x.name, x.param) for x in tensors), "{name}{shape}{dtype}")
