"""What one optimiser step adds to the memory of the loaded SmolLM2-135M, each arm in a process of its own.

The whole model is trained, at the batch of the study. The peak is the kernel's own count of resident
memory, from after loading on; it needs Linux.
"""

from __future__ import annotations

import ctypes
import gc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ARMS = ("forward", "LOZO", "LOZO-M", "MeZO", "MeZO-M", "SGD", "AdamW", "LoRA")
BATCH, LENGTH, STEPS = 8, 64, 3


def peak(arm: str, language_model: Path | None = None) -> float:
    """Peak resident megabytes (2^20 bytes) above the loaded model over three steps; NaN off Linux.

    Raises
    ------
    RuntimeError
        If the process of the measurement fails, with what it said.
    """
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    done = subprocess.run(
        [sys.executable, "-m", __name__, arm, *([str(language_model)] if language_model else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {arm} failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def restart() -> float:
    """Give back what is free, count the peak anew, and say what the process takes now, in MB."""
    gc.collect()
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def highest() -> float:
    """The peak since `restart`, in MB; NaN off Linux."""
    return _resident("VmHWM") if Path("/proc/self/clear_refs").exists() else float("nan")


def _resident(which: str) -> float:
    found = re.search(which + r":\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def _steps(arm: str, model: Any, closure: Any) -> None:
    import torch

    from surefoot.zeroth_order.lozo import LOZO
    from surefoot.zeroth_order.mezo import MeZO

    momentum = 0.9 if arm.endswith("-M") else 0.0
    optimizer: Any
    if arm == "forward":
        with torch.no_grad():
            for _ in range(STEPS):
                closure()
        return
    if arm.startswith(("LOZO", "MeZO")):
        zeroth = LOZO if arm.startswith("LOZO") else MeZO
        optimizer = zeroth(model, 1e-6, momentum=momentum)
        for _ in range(STEPS):
            optimizer.step(closure)
        optimizer.flush()
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = (torch.optim.SGD if arm == "SGD" else torch.optim.AdamW)(trained, lr=1e-6)
    for _ in range(STEPS):
        optimizer.zero_grad()
        closure().backward()
        optimizer.step()


def _measure(arm: str, language_model: str | None = None) -> float:
    import torch

    from surefoot import data

    torch.set_num_threads(1)
    model, _ = data.load("smollm2", language_model).open()
    if arm == "LoRA":
        from surefoot.zeroth_order.doors.peft import with_lora

        targets = ["q_proj", "v_proj"]
        model = with_lora(model, r=2, target_modules=targets, task_type="CAUSAL_LM")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40000, (BATCH, LENGTH), generator=generator)

    def closure() -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1, :2]
        return torch.nn.functional.cross_entropy(
            logits.float(), torch.zeros(BATCH, dtype=torch.long)
        )

    # What loading left behind is given back, and the peak is counted from here.
    loaded = restart()
    _steps(arm, model, closure)
    return highest() - loaded


if __name__ == "__main__":
    print(f"{_measure(*sys.argv[1:]):.1f}")
