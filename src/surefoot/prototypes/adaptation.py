"""A client's own adapter from the global one: a few shots, and distillation against forgetting."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import generator_for
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes._server.adamw import refuse_diverged
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.head import ZeroShotHead

Reduction = Literal["batchmean", "mean"]


def distillation_loss(
    local_logits: Float[Tensor, "B K"],
    global_logits: Float[Tensor, "B K"],
    reduction: Reduction = "batchmean",
) -> Float[Tensor, ""]:
    """KL(softmax(global) || softmax(local)): the global model is the target.

    Parameters
    ----------
    local_logits, global_logits
        (B, K) each; the gradient goes to the local ones.
    reduction
        "batchmean": the sum over B; "mean": over B K, as the authors' `nn.KLDivLoss()` has it. Their
        weight of 100 with K = 50 classes is 2 here.

    Raises
    ------
    ValueError
        The shapes differ or are not (B, K).
    """
    check_choice("reduction", reduction, get_args(Reduction))
    for name, given in (("local_logits", local_logits), ("global_logits", global_logits)):
        if not isinstance(given, Tensor) or not given.is_floating_point():
            raise ValueError(f"{name} must be a tensor of real numbers, got {given!r:.80}")
        # A graph would be broken by the question.
        if not torch.compiler.is_compiling() and not bool(given.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if local_logits.ndim != 2 or local_logits.shape != global_logits.shape:
        raise ValueError(
            "local_logits and global_logits must be (B, K) of one shape, "
            f"got {tuple(local_logits.shape)} and "
            f"{tuple(global_logits.shape)}"
        )
    return divergence(local_logits, global_logits, reduction)


def divergence(
    local_logits: Float[Tensor, "B K"], global_logits: Float[Tensor, "B K"], reduction: Reduction
) -> Float[Tensor, ""]:
    """The same of what needs no checks."""
    local, target = (x.log_softmax(dim=1) for x in (local_logits, global_logits.detach()))
    found = nn.functional.kl_div(local, target, reduction="batchmean", log_target=True)
    # torch's own "mean" warns that it will become another one.
    return found if reduction == "batchmean" else found / local.shape[1]


@checked
def adapt_locally(
    adapter: ResidualAdapter,
    feats: Any,
    y: Any,
    head: ZeroShotHead,
    kd_weight: float = 1.0,
    epochs: int = 10,
    *,
    shots: int | None = None,
    lr: float = 1e-3,
    batch_size: int = 8,
    reduction: Reduction = "batchmean",
    seed: int = 0,
) -> ResidualAdapter:
    """A new adapter, trained from the global one on own records (arXiv 2410.07738).

    loss = cross-entropy + kd_weight KL(global || local), by AdamW; the global adapter stays as it is.

    Parameters
    ----------
    adapter
        The global one, where training starts and what it is held to.
    feats, y
        (N, d) embeddings and (N,) classes.
    head
        The frozen classifier.
    kd_weight
        lambda, at least 0.
    epochs
        At least 1; the authors take 1.
    shots
        Only the first so many records of each class; None: all.
    lr, batch_size
        Of AdamW.
    reduction
        As in `distillation_loss`; "mean" divides by the number of classes as well.
    seed
        Of the batches.

    Raises
    ------
    ValueError
        Records that are not finite, of another dimension or class, or a number outside its range.
    surefoot.errors.NonFiniteError
        A loss or a weight is not finite.
    """
    weight = check_number("kd_weight", kd_weight, least=0)
    epochs = check_number("epochs", epochs, least=1, whole=True)
    lr = check_number("lr", lr, above=0)
    size = check_number("batch_size", batch_size, least=1, whole=True)
    check_choice("reduction", reduction, get_args(Reduction))
    features, labels = labelled(feats, y, adapter.d, head.classes)
    if shots is not None:
        shots = check_number("shots", shots, least=1, whole=True)
        classes = sorted(set(labels.tolist()))
        first = [torch.nonzero(labels == c).flatten()[:shots] for c in classes]
        chosen = torch.cat(first).sort().values
        features, labels = features[chosen], labels[chosen]
    local = copy.deepcopy(adapter).requires_grad_(True)
    features = features.to(adapter.down.weight.dtype)
    with torch.no_grad():
        target = head(adapter(features))
    optimizer = torch.optim.AdamW(local.parameters(), lr=lr)
    generator = generator_for("local adaptation", seed)
    losses: list[float] = []
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(features), generator=generator), size):
            logits = head(local(features[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            if weight:
                loss = loss + weight * divergence(logits, target[batch], reduction)
            optimizer.zero_grad()
            # torch gives `backward` no types.
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    refuse_diverged(local, losses, lr)
    return local
