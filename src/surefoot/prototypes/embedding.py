"""Embeddings of a frozen encoder: in evaluation mode, without gradients, and the encoder as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number


@runtime_checkable
class Encoder(Protocol):
    """A batch to its embeddings (batch, d)."""

    def __call__(self, batch: Any) -> Tensor:
        """The embeddings."""

    def eval(self) -> Any:
        """Go into evaluation mode."""


@checked
def embed(encoder: Encoder, x: Any, batch_size: int = 256) -> Float[Tensor, "N d"]:
    """Embeddings of all of x, on the CPU, in x's order.

    The encoder is in evaluation mode meanwhile (in training mode the statistics of its batch norms would
    drift from client to client) and afterwards in the modes that its modules had before.

    Parameters
    ----------
    encoder
        Any callable batch -> (B, d) with `eval()`; the helpers `from_...` make one.
    x
        A tensor or array with the records along its first dimension, or a list of texts.
    batch_size
        Records at a time.

    Raises
    ------
    TypeError
        The encoder has no `eval()`.
    ValueError
        There are no records, `eval()` leaves a module in training mode, or the encoder returns another shape
        than (B, d), or numbers that are not finite.
    """
    size = check_number("batch_size", batch_size, least=1, whole=True)
    if not callable(getattr(encoder, "eval", None)):
        raise TypeError(
            f"encoder must have eval(), got {type(encoder).__name__}; wrap a function in a torch Module"
        )
    if not len(x):
        raise ValueError("x must hold at least one record, got none")
    modes = _modes(encoder)
    encoder.eval()
    try:
        if any(module.training for module, _ in modes):
            raise ValueError(
                "encoder must be in evaluation mode after eval(), but a module of it trains"
            )
        with torch.no_grad():
            parts = [_checked(encoder(x[i : i + size]), x, i, size) for i in range(0, len(x), size)]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(parts)


def _modes(encoder: Encoder) -> list[tuple[nn.Module, bool]]:
    model = encoder if isinstance(encoder, nn.Module) else getattr(encoder, "model", None)
    return [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []


def _checked(found: Any, x: Any, start: int, size: int) -> Tensor:
    rows = min(size, len(x) - start)
    z: Tensor = torch.as_tensor(found).detach().cpu()
    if z.ndim != 2 or len(z) != rows:
        raise ValueError(
            f"encoder must return (batch, d) for a batch of {rows}, got {tuple(z.shape)}; "
            "pool its tokens or pixels first"
        )
    if not bool(torch.isfinite(z).all()):
        raise ValueError(
            f"encoder must return finite numbers, got others in records {start} to {start + rows - 1}"
        )
    return z


class _Wrapped:
    """A model together with the call that gives its embeddings."""

    def __init__(self, model: Any, call: str) -> None:
        self.model, self._call = model, call

    def eval(self) -> None:
        self.model.eval()

    def __call__(self, batch: Any) -> Tensor:
        return _first_tensor(getattr(self.model, self._call)(batch))


class _Sentences(_Wrapped):
    def __call__(self, batch: Sequence[str]) -> Tensor:
        texts = [str(text) for text in batch]
        return _first_tensor(
            self.model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        )


class _Pooled(_Wrapped):
    def __call__(self, batch: Any) -> Tensor:
        features = self.model.forward_features(batch)
        return _first_tensor(self.model.forward_head(features, pre_logits=True))


def _first_tensor(found: Any) -> Tensor:
    first: Tensor = found[0] if isinstance(found, tuple) else torch.as_tensor(found)
    return first


@checked
def from_sentence_transformers(model: Any) -> Encoder:
    """An encoder of lists of texts from a SentenceTransformer."""
    return _Sentences(model, "encode")


@checked
def from_timm(model: Any) -> Encoder:
    """An encoder of image batches from a timm model: its features before the classifier."""
    return _Pooled(model, "forward_head")


@checked
def from_open_clip(model: Any) -> Encoder:
    """An encoder of image batches from an OpenCLIP model."""
    return _Wrapped(model, "encode_image")
