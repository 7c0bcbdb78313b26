"""Adapt a pretrained classifier with every method on the same data, budget and optimizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot.lora.chain import ChainOfLora
from surefoot.lora.config import Method, RacConfig
from surefoot.lora.doors.peft import with_lora

METHODS: tuple[Method, ...] = ("lora", "asymm_lora", "cola", "rac_lora", "fpft")


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one split."""

    x: Float[Tensor, "N d"]
    y: Int[Tensor, " N"]


@dataclass(frozen=True)
class Task:
    """Train, validation and test split of one classification task."""

    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Budget:
    """What every method gets: epochs, batch, blocks, rank, learning rate."""

    epochs: int = 100
    batch: int = 32
    blocks: int = 50
    r: int = 1
    alpha: int = 1
    lr: float = 3e-3
    dropout: float = 0.1
    reset: bool = True


@dataclass(frozen=True)
class Outcome:
    """Accuracies, the final training loss, and how many numbers were trained."""

    val: float
    test: float
    train_loss: float
    trainable: int


def mlp(inputs: int, seed: int) -> nn.Sequential:
    """The network of the paper's Table 3: inputs-64-64-5 with ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
        )


def pretrain(model: nn.Module, data: Split, epochs: int, batch: int, seed: int) -> None:
    """AdamW at 1e-3 on shuffled batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(data.y), generator=generator), batch):
            loss = nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def accuracy(model: nn.Module, data: Split) -> float:
    """Share of correct labels, in evaluation mode."""
    was = model.training
    model.eval()
    with torch.no_grad():
        right = float((model(data.x).argmax(1) == data.y).float().mean())
    model.train(was)
    return right


def wrap(model: nn.Module, targets: list[str], budget: Budget) -> nn.Module:
    """An ordinary PeftModel."""
    found: nn.Module = with_lora(
        model, budget.r, targets, alpha=budget.alpha, dropout=budget.dropout
    )
    return found


def adapt(
    model: nn.Module, task: Task, method: Method, train: str, budget: Budget, seed: int
) -> Outcome:
    """Train the three weights of a copy of the network; the seed is that of sketches and batches."""
    steps = budget.epochs * -(-len(task.train.y) // budget.batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from the global generator
        peft_model = wrap(model, ["0", "2", "4"], budget)
        chain = ChainOfLora(
            peft_model,
            RacConfig(
                method=method, train=train, sketch="gaussian", seed=seed, blocks=budget.blocks,
                steps_per_block=max(1, steps // budget.blocks), reset_optimizer=budget.reset,
                keep_history="none",
            ),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=budget.lr)
        generator = torch.Generator().manual_seed(seed)
        peft_model.train()
        for _ in range(budget.epochs):
            for rows in torch.split(
                torch.randperm(len(task.train.y), generator=generator), budget.batch
            ):
                out = peft_model(task.train.x[rows])
                nn.functional.cross_entropy(out, task.train.y[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                if chain.block < budget.blocks:
                    chain.step(optimizer)
        chain.finish()
    peft_model.eval()
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(peft_model(task.train.x), task.train.y))
    return Outcome(
        accuracy(peft_model, task.val), accuracy(peft_model, task.test), loss,
        sum(p.numel() for p in chain.trainable_parameters()),
    )  # fmt: skip
