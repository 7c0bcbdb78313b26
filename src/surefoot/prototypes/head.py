"""The frozen classifier: directions of class names, as a text encoder gives them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers
from surefoot._numerics.sizes import wide


@checked
class ZeroShotHead(nn.Module):
    """logits = scale * row_c . u / |u|, the zero-shot head of CLIP; nothing in it is trained.

    Parameters
    ----------
    rows
        (classes, d), or (classes, templates, d): embeddings of each class in several templates, of which each
        is normalised, then their mean is. Several domains' heads are merged by giving all their templates.
    scale
        The multiplier itself; CLIP's is exp(logit_scale).
    normalize
        False: u is not divided by its norm.

    Attributes
    ----------
    weight
        (classes, d), rows of norm `scale`.

    Raises
    ------
    ValueError
        The rows are no finite numbers, of another shape or of norm 0, or the scale is not positive.
    """

    weight: Tensor

    def __init__(self, rows: Any, scale: float = 30.0, normalize: bool = True) -> None:
        super().__init__()
        found = torch.as_tensor(check_numbers("rows", rows))
        if found.ndim not in (2, 3) or not found.numel():
            raise ValueError(
                f"rows must be (classes, d) or (classes, templates, d), got {tuple(found.shape)}"
            )
        self.scale = check_number("scale", scale, above=0)
        self.normalize = bool(normalize)
        if found.ndim == 3:
            found = _unit(found).mean(dim=1)
        dtype = getattr(rows, "dtype", None)
        kept = dtype if dtype in (torch.float32, torch.float64) else torch.get_default_dtype()
        self.register_buffer("weight", (_unit(found) * self.scale).to(kept))

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.weight)

    @property
    def d(self) -> int:
        """Dimension of the embeddings."""
        return self.weight.shape[1]

    def forward(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch classes"]:
        """Logits of adapted embeddings; an embedding of norm 0 has logits 0."""
        if self.normalize:
            u = nn.functional.normalize(wide(u), dim=-1)
        logits: Tensor = u @ self.weight.to(u.dtype).T
        return logits


def _unit(rows: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    sizes = torch.linalg.vector_norm(rows.double(), dim=-1, keepdim=True)
    if bool((sizes == 0).any()):
        raise ValueError("rows must not have norm 0: such a class has no direction; embed its name")
    unit: Tensor = rows / sizes
    return unit
