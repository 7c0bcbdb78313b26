"""Random numbers that nobody can draw again: for the noise and the coins of a private mechanism."""

from __future__ import annotations

import os
import weakref

import numpy as np
import torch

# Where the 624 words of its Mersenne Twister stand in the state of torch's generator on the CPU.
FIRST, WORDS = 24, 624
_OWN: weakref.WeakKeyDictionary[torch.Generator, int] = weakref.WeakKeyDictionary()


def secret_generator() -> torch.Generator:
    """A generator on the CPU whose whole state comes from the operating system.

    Not `seed()` or `manual_seed()`: of their 64 bits torch's Mersenne Twister uses the lower 32, few enough
    to try them all. Like any Mersenne Twister it must not be shown: 624 of its bare outputs give the others.
    """
    generator = torch.Generator()
    tag = int.from_bytes(os.urandom(8), "little")
    generator.manual_seed(tag)
    state = generator.get_state()
    words = np.frombuffer(os.urandom(4 * WORDS), np.uint32).astype(np.uint64)
    state[FIRST : FIRST + 8 * WORDS] = torch.from_numpy(words.view(np.uint8))
    generator.set_state(state)
    _OWN[generator] = generator.initial_seed()
    return generator


def is_secret(generator: torch.Generator) -> bool:
    """Whether a generator is one of `secret_generator`, and nobody has seeded it since."""
    return _OWN.get(generator) == generator.initial_seed()
