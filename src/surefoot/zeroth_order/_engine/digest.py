"""A digest of the weights that a run starts from."""

from __future__ import annotations

from surefoot._numerics.digest import tensors_digest
from surefoot.zeroth_order._engine.numberless import parts
from surefoot.zeroth_order._engine.tensors import TrainedTensor


def digest_of(tensors: list[TrainedTensor]) -> bytes:
    """SHA-256 over names, shapes, dtypes and bytes of the trainable tensors, or of what stands for them."""
    each = (part for x in tensors for part in parts(x))
    return tensors_digest(each, "{name}{shape}{dtype}")
