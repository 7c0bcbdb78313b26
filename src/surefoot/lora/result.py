"""What a chain reports of each block."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.lora.config import Side


@dataclass(frozen=True)
class BlockReport:
    """One block of a chain.

    Parameters
    ----------
    block, steps
        Its number from 0, and its optimizer steps.
    trained
        The factor that was trained ("A", "B"), or None where both or the weights were.
    projected_grad_norm2
        ||G H||_F^2 (right sketch) or ||H G||_F^2 at the start of the block, summed over the layers,
        from the first gradient; None where none was seen.
    grad_norm2
        The unbiased estimate of ||G||_F^2 made of it (G7); None likewise.
    update_norm
        ||s B A||_F over all layers: how far the block moved the weights.
    """

    block: int
    steps: int
    trained: Side | None
    projected_grad_norm2: float | None
    grad_norm2: float | None
    update_norm: float
