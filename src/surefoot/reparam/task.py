"""Image classification across clients with the four arms: FedRepOpt, Fed-CSLA, Fed-Rep-Tr, Fed-Rep-Inf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.sizes import wide
from surefoot.errors import NonFiniteError
from surefoot.federated.guarantee import Theorem
from surefoot.federated.task import State, Visit
from surefoot.reparam._block.facts import network_facts
from surefoot.reparam._optimizer.clipping import clip_csla_norm_
from surefoot.reparam._optimizer.facts import note_facts
from surefoot.reparam._optimizer.parameters import decay_groups
from surefoot.reparam.block import Mode
from surefoot.reparam.guarantee import federated_trajectory
from surefoot.reparam.merging import blocks, convert_to_csla, convert_to_plain
from surefoot.reparam.optimizer import RepSGD
from surefoot.reparam.scales import Scales

Arm = Literal["fedrepopt", "csla", "rep", "inf"]
Build = Callable[[Mode], nn.Module]
MODES: dict[Arm, Mode] = {"fedrepopt": "plain", "inf": "plain", "csla": "csla", "rep": "rep"}


@checked
@dataclass
class RepOptTask:
    """One arm on labelled images that are cut into partitions.

    Parameters
    ----------
    build
        build(mode) -> model, the same architecture and head in every mode.
    images, labels
        The training set.
    parts
        The indices of each partition in it, for instance of `lda_partition`.
    test
        (images, labels) of the server's evaluation; None: it does not evaluate.
    scales
        Of the hyper-search; the "csla" arm loads the same ones. None: the initial scales.
    arm
        "fedrepopt": plain network, RepSGD; "csla": branches, constant scales; "rep": a BatchNorm a
        branch; "inf": plain network, plain SGD.
    epochs, batch_size, lr, momentum, weight_decay, label_smoothing, proximal_mu
        Of a client in a round; the momentum starts afresh each round.
    max_norm
        Where a client's gradients are clipped, by the norm that the branches would have had
        (`clip_csla_norm_`); None: nowhere.
    drop_last
        Whether an incomplete batch is dropped; one of a single example always is, since BatchNorm has no
        variance there. A client without any full batch then trains nothing and has weight 0.
    bn
        "average": running statistics are averaged with the rest; "local": a client keeps its own, they
        are no part of the state (arXiv 2008.07424; gamma and beta are averaged), and the server, which
        has none, evaluates with those of its test batch.
    """

    build: Build
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    parts: list[Int[np.ndarray, " _"]]
    test: tuple[Float[Tensor, "t c h w"], Int[Tensor, " t"]] | None = None
    scales: Scales | None = None
    arm: Arm = "fedrepopt"
    epochs: int = 1
    batch_size: int = 32
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    proximal_mu: float = 0.0
    max_norm: float | None = None
    drop_last: bool = False
    bn: Literal["average", "local"] = "average"

    def __post_init__(self) -> None:
        check_choice("arm", self.arm, get_args(Arm))
        check_choice("bn", self.bn, ("average", "local"))
        for name in ("epochs", "batch_size"):
            setattr(self, name, check_number(name, getattr(self, name), least=1, whole=True))
        check_number("lr", self.lr, above=0)
        check_number("momentum", self.momentum, least=0, below=1)
        for name in ("weight_decay", "proximal_mu"):
            check_number(name, getattr(self, name), least=0)
        if len(self.images) != len(self.labels) or not len(self.labels):
            raise ValueError(
                "images and labels must be as many, and at least one, "
                f"got {len(self.images)} and {len(self.labels)}"
            )
        if not len(self.parts):
            raise ValueError("parts must hold the rows of at least one client, got none")
        check_number("label_smoothing", self.label_smoothing, least=0, most=1)
        if self.max_norm is not None:
            check_number("max_norm", self.max_norm, above=0)

    def theorems(self) -> list[Theorem]:
        """G2 for the arm that it speaks of."""
        if self.arm != "fedrepopt":
            return []
        return [
            (federated_trajectory(), "federate_beside runs the branches too and records the gap")
        ]

    def model(self, seed: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """The arm's initial model and its multipliers; all arms start from the same branch kernels."""
        if self.arm == "rep":
            return self.build("rep"), {}
        csla = self.build("csla")
        if self.arm == "csla":
            return convert_to_csla(csla, self.scales, seed), {}
        if self.arm == "inf":
            # The peer's own structure and initialisation: nothing of the branches.
            return self.build("plain"), {}
        return convert_to_plain(csla, self.scales, seed)

    def initial(self, seed: int) -> State:
        """The global state before round 1."""
        return self._shared(self.model(seed)[0])

    def extra(self, seed: int) -> State:
        """The multipliers, which the server sends to each client once."""
        return self.model(seed)[1]

    def train(self, state: State, visit: Visit) -> tuple[State, int, dict[str, float]]:
        """Local epochs from the global state."""
        model = self.build(MODES[self.arm])
        if self.arm == "fedrepopt" and not visit.extra:
            raise KeyError("the multipliers are missing; the server sends them as extra arrays")
        # A client's first round starts from the statistics of an untrained network.
        model.load_state_dict({**self._own(model), **visit.memory, **state})
        optimizer = RepSGD(
            decay_groups(model, self.weight_decay), self.lr, momentum=self.momentum,
            proximal_mu=self.proximal_mu, grad_mults=visit.extra if self.arm == "fedrepopt" else {},
            record=visit.record,
        )  # fmt: skip
        note_facts(visit.record, network_facts(model), None, "")
        where = {"average": "averaged", "local": "local"}[self.bn]
        visit.record.note(arm=self.arm, statistics=where if _statistics(model) else "none")
        if self.max_norm is None:
            visit.record.note(
                clip="none"
            )  # between this backward pass and this step there is nothing
        index = torch.as_tensor(self.parts[visit.partition])
        generator = torch.Generator().manual_seed(visit.seed)
        total, seen, step = 0.0, 0, 0
        model.train()
        for _ in range(self.epochs):
            order = index[torch.randperm(len(index), generator=generator)]
            for batch in torch.split(order, self.batch_size):
                if len(batch) < 2 or (self.drop_last and len(batch) < self.batch_size):
                    continue
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(
                    model(self.images[batch]),
                    self.labels[batch],
                    label_smoothing=self.label_smoothing,
                )
                value = float(loss.detach())
                if not np.isfinite(value):
                    raise NonFiniteError(f"the loss of partition {visit.partition}", step, value)
                loss.backward()  # type: ignore[no-untyped-call]
                if self.max_norm is not None:
                    clip_csla_norm_(optimizer, self.max_norm)
                optimizer.step()
                total, seen, step = total + value * len(batch), seen + len(batch), step + 1
        visit.memory.update({k: v.detach().clone() for k, v in self._own(model).items()})
        # A client without a full batch has trained nothing, and its state is the global one.
        return (
            self._shared(model),
            len(index) if step else 0,
            {"train-loss": total / seen} if seen else {},
        )

    def _own(self, model: nn.Module) -> State:
        """What of a model's state stays with its client."""
        state = model.state_dict()
        return {k: state[k] for k in _statistics(model)} if self.bn == "local" else {}

    def _shared(self, model: nn.Module) -> State:
        own = self._own(model)
        return {k: v.detach().clone() for k, v in model.state_dict().items() if k not in own}

    @torch.no_grad()
    def evaluate(self, state: State) -> dict[str, float]:
        """Accuracy and loss on the test images."""
        if self.test is None:
            return {}
        return evaluate_on(self, state, *self.test)


@torch.no_grad()
def evaluate_on(task: RepOptTask, state: State, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and loss of a state on given images.

    Where statistics are local the state holds none; each batch of 500 is normalised by its own then, and
    the names say so.
    """
    model = task.build(MODES[task.arm])
    local = task.bn == "local"
    model.load_state_dict(state, strict=not local)
    model.train(local)
    logits = torch.cat([model(x) for x in torch.split(images, 500)])
    kind = "batch-statistics " if local else ""
    return {
        f"{kind}accuracy": float((logits.argmax(1) == labels).double().mean()),
        f"{kind}loss": float(nn.functional.cross_entropy(logits.double(), labels)),
    }


def _statistics(model: nn.Module) -> list[str]:
    names = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            names += [f"{name}.{k}" for k, _ in module.named_buffers()]
    return names


def effective_lr(model: nn.Module, lr: float, mults: dict[str, Tensor]) -> float:
    """lr mean(M) / |W_o|^2, W_o the kernel of one output channel, averaged over channels and blocks.

    BatchNorm after the sum makes W scale-invariant: what a step turns the weights by grows with this, not
    with lr, so tune lr for each arm. In mode "csla" W and M are those of the merged network; in mode
    "rep" W is the largest branch alone, since each branch has a BatchNorm of its own.
    """
    if any(block.mode == "csla" for _, block in blocks(model)):
        model, mults = convert_to_plain(model, seed=None)
    found = []
    for name, block in blocks(model):
        weight = (
            block.conv.weight.detach() if block.mode == "plain" else block.kernels["kxk"].detach()
        )
        mult = mults.get(f"{name}.conv.weight".removeprefix("."))
        scale = 1.0 if mult is None else float(wide(mult).mean())
        found.append(lr * scale / float(wide(weight).square().mean()) / weight[0].numel())
    return sum(found) / len(found)
