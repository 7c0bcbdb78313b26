"""Reading A and u off the matrices of a linear-attention layer."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.checks import check_choice, check_number


def read_attention(
    W_q: Any, W_k: Any, W_v: Any, W_o: Any, *, residual: str, tol: float
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """A and u of the looped model that has Q = W_k'W_q and P = W_o W_v.

    P's corner p is 1 there: P = p [[0, 0], [u'/p, 1]], and p goes into A, as only products of P and Q count.
    """
    check_choice("residual", residual, ("subtract", "add"))
    tol = check_number("tol", tol, least=0, below=1)
    given = (("W_q", W_q), ("W_k", W_k), ("W_v", W_v))
    query, key, value = (_matrix(k, v) for k, v in given)
    tokens = query.shape[1]
    if tokens < 2:
        raise ValueError(
            f"W_q must act on tokens of d + 1 >= 2 numbers, got shape {tuple(query.shape)}"
        )
    if key.shape != query.shape:
        raise ValueError(
            f"W_k must have the shape {tuple(query.shape)} of W_q, got {tuple(key.shape)}"
        )
    if value.shape[1] != tokens:
        raise ValueError(
            f"W_v must have {tokens} columns as W_q has, got shape {tuple(value.shape)}"
        )
    if W_o is not None:
        out = _matrix("W_o", W_o)
        if out.shape != (tokens, value.shape[0]):
            raise ValueError(
                f"W_o must have shape ({tokens}, {value.shape[0]}), got {tuple(out.shape)}"
            )
        P = out @ value
    elif value.shape[0] != tokens:
        raise ValueError(
            f"W_v must have shape ({tokens}, {tokens}) where W_o is not given, got {tuple(value.shape)}"
        )
    else:
        P = value
    Q = key.mT @ query
    d = tokens - 1
    kept_q, kept_p = Q.clone(), P.clone()
    kept_q[:d, :d] = 0
    kept_p[d] = 0
    for name, outside, whole in (("W_k'W_q", kept_q, Q), ("W_o W_v", kept_p, P)):
        share = float(outside.norm() / whole.norm().clamp_min(torch.finfo(torch.float64).tiny))
        if share > tol:
            raise ValueError(
                f"{name} must be zero outside the block that the looped model has "
                f"({'first d rows and columns' if whole is Q else 'last row'}), got {share:.3g} of its norm "
                f"there (tol = {tol:g}): it is another model, which `probe` can fit"
            )
    corner = P[d, d]
    if float(corner.abs()) <= tol * float(P.norm()):
        raise ValueError(
            "W_v must pass the label on (P's last entry), got 0: no loop would ever read y"
        )
    sign = 1 if residual == "subtract" else -1
    kind = torch.as_tensor(W_q).dtype
    return (sign * corner * Q[:d, :d]).to(kind), (P[d, :d] / corner).to(kind)


def _matrix(name: str, value: Any) -> Tensor:
    if isinstance(value, nn.Module):
        biased = getattr(value, "bias", None) is not None
        raise ValueError(
            f"{name} must be a matrix, got the module {type(value).__name__}; give its .weight"
            + (", and mind its bias: the looped model has none" if biased else "")
        )
    found = torch.as_tensor(value).detach()
    if found.ndim != 2 or not found.is_floating_point():
        raise ValueError(
            f"{name} must be a matrix of real numbers, got {tuple(found.shape)} {found.dtype}"
        )
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    # Products and shares in 16 bits would be those of their rounding.
    return found.double()
