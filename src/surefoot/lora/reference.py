"""Fed-RAC-LoRA and its rivals on one matrix, in process: arXiv 2410.08305, Algorithm 2, line by line."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.lora._block import recording
from surefoot.lora.client_privacy import (
    METHOD,
    OBJECTION,
    ClientPrivacy,
    clipped,
    noise,
    privacy_facts,
)
from surefoot.lora.sketch import shared_sketch
from surefoot.record import Record

FedMethod = Literal["fed_rac", "fedavg", "ffa_lora", "fedavg_lora"]
Matrix = Float[Tensor, "m n"]
Loss = Callable[[Tensor], Tensor]
REFUSED = {
    "fedavg_lora": "noise on both factors puts noise times noise into the product, (B + E)(A + F), and the "
    "product of clipped factors moves by more than their clip",
    "ffa_lora": "its noised factor is not built here; fed_rac with a sketch a round is",
    "fedavg": "noise on the matrices themselves is what Flower's own wrappers add",
}


@dataclass
class FedResult:
    """What a federation left behind.

    Attributes
    ----------
    weights
        W at the end, adapter included.
    path
        W at the start of every round and at the end.
    aggregation_errors
        Of each round |mean(B_i A_i) - what the server made of it| / |mean(B_i A_i)|.
    uplink_numbers
        What one client sent in a round.
    record
        How it ran; `surefoot.lora.guarantee.certificates(record, ..., law="fed")` holds what is measured
        along `path` against G6. With privacy the facts are the mechanism's, and those of the method are of
        "Fed-RAC-LoRA" (of=).
    """

    weights: Matrix
    path: list[Matrix] = field(default_factory=list)
    aggregation_errors: list[float] = field(default_factory=list)
    uplink_numbers: int = 0
    record: Record = field(default_factory=Record)


@checked
def fed_reference(
    losses: Sequence[Loss],
    W0: Matrix,
    method: FedMethod = "fed_rac",
    rank: int | None = None,
    rounds: int = 1,
    local_steps: int = 1,
    *,
    gamma: float,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    train: Literal["A", "B"] = "B",
    keep_path: bool = False,
    privacy: ClientPrivacy | None = None,
) -> FedResult:
    """Full-gradient local steps on every client, then the server's mean.

    Parameters
    ----------
    losses
        One callable W -> scalar a client.
    method
        "fed_rac": a sketch a round from (seed, round), the other factor from zero, merged by the server.
        "fedavg": W itself. "ffa_lora": one sketch for ever (FFA-LoRA, arXiv 2403.12313). "fedavg_lora":
        both factors train and are averaged one by one.
    W0
        The pretrained matrix.
    rank
        Needed by all but "fedavg". The scaling is 1.
    rounds, local_steps
        Rounds, and steps of every client in each.
    gamma
        Step of the trained factors, or of W.
    weights
        Of the clients; equal by default, normalised to 1.
    seed
        Of the sketches.
    train
        The factor that "fed_rac" and "ffa_lora" train.
    keep_path
        Keep W at the start of every round.
    privacy
        Of "fed_rac": clip each client's factor, add noise to the sum, divide by the number of clients.

    Raises
    ------
    ValueError
        Noise for another method than "fed_rac", or weights beside it. Unknown method, a rank that does
        not fit, no clients, weights that are not positive.
    """
    check_choice("method", method, get_args(FedMethod))
    if not losses or rounds < 1 or local_steps < 1 or not gamma > 0:
        raise ValueError(
            "clients, rounds, local_steps and a positive gamma are needed, got "
            f"{len(losses)}, {rounds}, {local_steps} and {gamma}"
        )
    m, n = W0.shape
    # FedAvg-LoRA's two factors fit together at any rank; a sketch has at most as many rows as columns.
    most = m if train == "A" and method != "fedavg_lora" else n
    if method != "fedavg":
        check_number("rank", rank, least=1, most=most, whole=True)
    w = torch.tensor([1.0] * len(losses) if weights is None else list(weights), dtype=torch.float64)
    if len(w) != len(losses) or not bool((w > 0).all()):
        raise ValueError(f"weights must be {len(losses)} positive numbers, got {w.tolist()}")
    shares = (w / w.sum()).tolist()
    if privacy is not None:
        if method != "fed_rac":
            raise ValueError(f"privacy is for method 'fed_rac', got {method!r}: {REFUSED[method]}")
        if weights is not None:
            raise ValueError(
                "weights must be None with privacy: how many examples a client has would leak"
            )
    r = rank or 1

    def gradient(loss: Loss, W: Tensor) -> Tensor:
        W = W.detach().requires_grad_()
        (found,) = torch.autograd.grad(loss(W), [W])
        return found

    def sketch(block: int) -> Tensor:
        shape = (r, n) if train == "B" else (m, r)
        return shared_sketch(seed, block, "W", shape, dtype=W0.dtype)

    def mean(values: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(values[0])
        for share, value in zip(shares, values, strict=True):
            total = total + share * value
        return total

    def product(trained: Tensor, fixed: Tensor) -> Tensor:
        return trained @ fixed if train == "B" else fixed @ trained

    W, result = W0.clone(), FedResult(W0)
    of = "" if privacy is None else METHOD
    recording.note_federation(
        result.record, seed, [(m, n)], method=method, rank=rank, train=train, gamma=gamma,
        local_steps=local_steps, eta=1.0, clients=len(losses), dtype=W0.dtype, of=of,
    )  # fmt: skip
    result.record.note(seed, of, participation="all", gradients="clients", **recording.PLAIN_STEPS)
    if privacy is not None:
        result.record.note(seed, of, objection=OBJECTION)
        facts = privacy_facts(privacy, len(losses), 1.0, True, secrets.token_hex(8))
        result.record.note(seed, **facts, steps=rounds)
    factors = (torch.zeros(m, r, dtype=W0.dtype), shared_sketch(seed, 0, "W", (r, n), dtype=W0.dtype)
               if method == "fedavg_lora" else torch.zeros(0))  # fmt: skip
    trained = torch.zeros((m, r) if train == "B" else (r, n), dtype=W0.dtype)
    result.uplink_numbers = {"fedavg": m * n, "fedavg_lora": (m + n) * r}.get(
        method, trained.numel()
    )
    for t in range(rounds):
        if keep_path:
            result.path.append(W.clone())
        if method == "fedavg":
            locals_ = []
            for loss in losses:
                own = W.clone()
                for _ in range(local_steps):
                    own = own - gamma * gradient(loss, own)
                locals_.append(own)
            W = mean(locals_)
            result.aggregation_errors.append(0.0)
            continue
        if method == "fedavg_lora":
            pairs = []
            for loss in losses:
                B, A = factors
                for _ in range(local_steps):
                    G = gradient(loss, W0 + B @ A)
                    B, A = B - gamma * G @ A.T, A - gamma * B.T @ G
                pairs.append((B, A))
            truth = mean([B @ A for B, A in pairs])
            factors = mean([B for B, _ in pairs]), mean([A for _, A in pairs])
            made = factors[0] @ factors[1]
            W = W0 + made
        else:
            fixed = sketch(t if method == "fed_rac" else 0)
            start = torch.zeros_like(trained) if method == "fed_rac" else trained
            base = W if method == "fed_rac" else W0
            locals_ = []
            for loss in losses:
                own = start.clone()
                for _ in range(local_steps):
                    G = gradient(loss, base + product(own, fixed))
                    own = own - gamma * (G @ fixed.T if train == "B" else fixed.T @ G)
                locals_.append(own)
            if privacy is None:
                truth = mean([product(own, fixed) for own in locals_])
                trained = mean(locals_)
            else:
                bounded = [clipped({"W": own}, privacy.clip_norm)["W"] for own in locals_]
                noised = [*bounded, noise({"W": trained}, privacy)["W"]]
                wide = fixed.double()
                truth = torch.stack([product(each, wide) for each in noised]).sum(0) / len(losses)
                trained = (sum(noised[1:], noised[0]) / len(losses)).to(W0.dtype)
            made = product(trained, fixed)
            W = base + made
        norm = float(truth.norm())
        result.aggregation_errors.append(float((truth - made).norm()) / norm if norm else 0.0)
    result.weights = W
    if keep_path:
        result.path.append(W.clone())
    return result
