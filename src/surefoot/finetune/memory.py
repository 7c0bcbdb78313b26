"""How much memory a process took at most, and how much there is."""

from __future__ import annotations

import os
from pathlib import Path

GIB = 1024**3


def peak() -> int:
    """Bytes that this process held at most: resident memory, of an accelerator its own."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which counts the process that started this one.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(found * (1 if sys.platform == "darwin" else 1024))


def available() -> int | None:
    """Bytes that a process can still take here; None: nobody knows."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    free = [_free(), _left_in_group()]
    known = [v for v in free if v is not None]
    return min(known) if known else None


def _free() -> int | None:
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _left_in_group() -> int | None:
    """What a container may still take."""
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        taken = (group / "memory.current").read_text(encoding="ascii").strip()
        return None if most == "max" else int(most) - int(taken)
    except (OSError, ValueError):
        return None
