"""One of several processes that torchrun started: who it is, and who writes."""

from __future__ import annotations

import os


def rank() -> int:
    """Which process this is; 0: the one that writes."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait() -> None:
    """Until all have come here, where they have met before."""
    if processes() > 1:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.barrier()
