"""Seeds from words: the same number in every process, unlike Python's own hash, and no state to keep.

Two hashes, as each is part of a format: a federation's draws, sketches and initial kernels follow
`seed_for`, the directions of a zeroth-order log `hash64`. New code takes `seed_for`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(*parts: object) -> int:
    """A 63-bit seed from (run, round, partition, ...): the head of SHA-256 over their text."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def hash64(*parts: object) -> int:
    """A 63-bit seed from the parts' text by BLAKE2b, some times faster: one is drawn every step."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator_for(*parts: object) -> torch.Generator:
    """A CPU generator of its own, seeded by `seed_for`; torch's global one is not touched."""
    import torch

    return torch.Generator().manual_seed(seed_for(*parts))
