"""How good the scalar c of a step is: as it is computed, beside the same in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from surefoot._numerics.arguments import checked
from surefoot._showing import showing


@showing
@checked(nan=True)
@dataclass(frozen=True)
class Quality:
    """c along some directions as a step computes it, and in float32.

    Attributes
    ----------
    c
        As a step computes it.
    reference
        In float32, at the same weights.
    products
        The dtype of products in a step.
    """

    c: Float[np.ndarray, " directions"]
    reference: Float[np.ndarray, " directions"]
    products: str

    @property
    def error(self) -> float:
        """||c - reference|| / ||reference||."""
        whole = float(np.linalg.norm(self.reference))
        gap = float(np.linalg.norm(self.c - self.reference))
        return gap / whole if whole else (float("inf") if gap else 0.0)

    @property
    def correlation(self) -> float:
        """Pearson's, over the directions; NaN where one of them is constant."""
        if min(self.c.std(), self.reference.std()) == 0:
            return float("nan")
        return float(np.corrcoef(self.c, self.reference)[0, 1])

    def __str__(self) -> str:
        return (
            f"c with products in {self.products}: relative error {self.error:.3g}, correlation "
            f"{self.correlation:.4f} over {len(self.c)} directions"
        )
