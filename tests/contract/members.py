"""The torch optimizers of the package. A new one joins by one line in `MEMBERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.nesterov import AGNES, NAG, DecreasingNAG
from surefoot.reparam import RepAdamW, RepSGD, wrap
from surefoot.zeroth_order import LOZO, MeZO, ZOAdam


@dataclass(frozen=True)
class Refusal:
    """What an optimizer says where it does not do what a check asks for, and why it does not."""

    error: type[Exception]
    says: str
    why: str


@dataclass(frozen=True)
class Member:
    """One optimizer, and what differs from torch's own.

    `make(params, model)` builds it: params are a list of parameters or of groups, of that model.
    `needs` is "gradients", or "losses" where step asks for a closure and `backward` is never called.
    `still` are group entries under which it stands still; None where no group has a step size.
    `other` are entries that a group may have for itself.
    `drift` is what perturbing in place rounds away.
    `torchs` names checks that are the business of torch's optimizer inside, which is not ours to change.
    `shows` are words that its repr must have.
    `refuses` names checks that it answers with an error, `warns` checks under which it warns.
    """

    name: str
    make: Callable[[list[Any], nn.Module], torch.optim.Optimizer]
    needs: str = "gradients"
    still: Mapping[str, float] | None = field(default_factory=lambda: {"lr": 0.0})
    other: Mapping[str, float] = field(default_factory=lambda: {"lr": 0.01})
    drift: float = 0.0
    torchs: tuple[str, ...] = ()
    shows: tuple[str, ...] = ("lr",)
    refuses: Mapping[str, Refusal] = field(default_factory=dict)
    warns: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def parameters_in(given: list[Any]) -> Iterator[Tensor]:
    """The parameters of a list of them or of groups."""
    for item in given:
        if isinstance(item, dict):
            inside = item["params"]
            yield from [inside] if isinstance(inside, Tensor) else inside
        else:
            yield item


def mults(given: list[Any]) -> dict[Tensor, Tensor]:
    """Some multipliers, different ones within each parameter."""
    return {
        p: torch.linspace(0.5, 1.5, p.numel(), dtype=torch.float64).view(p.shape)
        for p in parameters_in(given)
    }


def scales(given: list[Any]) -> dict[Tensor, list[Tensor]]:
    """Two branches for each parameter, one of them with a negative scale."""
    return {p: [m.to(p), (m - 2).to(p)] for p, m in mults(given).items()}


SGD, ADAMW = torch.optim.SGD, torch.optim.AdamW
FACTORED = {"rank": 2, "nu": 3, "scale": "unit", "seed": 3}

GROWS = Refusal(
    ValueError, "add_param_group in mode 'factored' must come with the model: build anew",
    "its hooks are laid when it is built",
)  # fmt: skip
NO_CLOSURE = Refusal(
    ValueError, "step needs a closure that returns the loss", "its step is a difference of losses"
)
REAL = Refusal(
    TypeError,
    "must be of a real floating-point dtype",
    "a direction of a complex matrix is not defined",
)
DRIFTS = Refusal(
    ValueError, "would be perturbed in place, which destroys 16-bit weights by rounding",
    "each perturbation rounds",
)  # fmt: skip
UNSCALED = Refusal(
    AssertionError, "No inf checks were recorded", "torch's own word: there is no gradient to scale"
)
NO_SAMPLES = Refusal(ValueError, "step needs a closure", "there is no gradient to clip")
PAIRS = Refusal(
    TypeError, "RepAdamW takes real parameters", "it normalises by the square of a real gradient"
)
LOSSES: dict[str, Any] = {"needs": "losses"}
WRITES: dict[str, Any] = {"needs": "losses", "drift": 1e-14}
IN_PLACE = {
    "no closure": NO_CLOSURE, "complex": REAL, "bfloat16": DRIFTS, "float16": DRIFTS,
    "GradScaler": UNSCALED, "Opacus": NO_SAMPLES,
}  # fmt: skip
BY_HOOKS = {k: v for k, v in IN_PLACE.items() if v is not DRIFTS} | {"add_param_group": GROWS}
DENSE_SPARSE = "sparse gradient"
DENSE = Refusal(RuntimeError, DENSE_SPARSE, "its step is dense")
DENSE_VALUE = Refusal(ValueError, DENSE_SPARSE, "its step is dense")
OWN_STEP = Refusal(
    RuntimeError, "DecreasingNAG sets its step itself", "its step is a function of n, mu and L"
)
ALONE = {"lr": "alpha moved without"}
PENDING = {"model's state": "state_dict in mid-period lacks what"}

MEMBERS = [
    Member(
        "AGNES",
        lambda p, m: AGNES(p, 0.02, 0.05, 0.9),
        still={"lr": 0.0, "correction": 0.0},
        other={"lr": 0.01, "correction": 0.02, "momentum": 0.8},
        shows=("lr", "correction", "momentum"),
        refuses={"sparse": DENSE},
        warns=ALONE,
    ),
    Member(
        "AGNES, foreach",
        lambda p, m: AGNES(p, 0.02, 0.05, 0.9, weight_decay=0.1, foreach=True),
        still={"lr": 0.0, "correction": 0.0},
        other={"lr": 0.01, "correction": 0.02, "momentum": 0.8},
        shows=("lr", "correction", "momentum"),
        refuses={"sparse": DENSE},
        warns=ALONE,
    ),
    Member(
        "NAG",
        lambda p, m: NAG(p, 0.05, 0.9),
        shows=("lr", "momentum"),
        refuses={"sparse": DENSE},
        warns=ALONE,
    ),
    Member(
        "DecreasingNAG",
        lambda p, m: DecreasingNAG(p, 0.5, 9.0),
        still=None,
        other={"mu": 1.0, "L": 25.0},
        shows=("mu", "L"),
        refuses={"sparse": DENSE, "lr": OWN_STEP, "tensor lr": OWN_STEP},
    ),
    Member(
        "RepSGD",
        lambda p, m: RepSGD(
            p,
            0.05,
            grad_mults=mults(p),
            momentum=0.9,
            weight_decay=0.1,
            nesterov=True,
            proximal_mu=0.1,
        ),
        shows=("lr", "momentum", "nesterov", "proximal_mu"),
        refuses={"sparse": DENSE_VALUE},
    ),
    Member(
        "RepAdamW",
        lambda p, m: RepAdamW(p, 0.02, scales=scales(p), weight_decay=0.1),
        shows=("lr", "betas", "variant"),
        refuses={"sparse": DENSE_VALUE, "complex": PAIRS},
    ),
    Member(
        "wrap(SGD)",
        lambda p, m: wrap(SGD(p, 0.05, momentum=0.9, weight_decay=0.1), mults(p)),
        shows=("SGD", "lr", "momentum"),
        torchs=("settings",),
        refuses={"sparse": Refusal(RuntimeError, "sparse", "torch's own word")},
    ),
    Member(
        "wrap(AdamW)",
        lambda p, m: wrap(ADAMW(p, 0.02), mults(p), force=True),
        shows=("AdamW", "lr", "betas"),
        torchs=("settings", "float16"),
        refuses={"sparse": Refusal(RuntimeError, "does not support sparse", "torch's own word")},
    ),
    Member(
        "LOZO, factored",
        lambda p, m: LOZO(p, 0.05, model=m, **FACTORED),
        **LOSSES,
        shows=("lr", "rank", "nu", "v_dist", "momentum"),
        refuses=BY_HOOKS,
        warns=PENDING,
    ),
    Member(
        "LOZO-M, factored",
        lambda p, m: LOZO(p, 0.05, model=m, momentum=0.9, **FACTORED),
        **LOSSES,
        shows=("lr", "rank", "momentum"),
        refuses=BY_HOOKS,
        warns=PENDING,
    ),
    Member(
        "LOZO, in place",
        lambda p, m: LOZO(p, 0.05, v_dist="orthogonal", **FACTORED),
        **WRITES,
        shows=("lr", "rank", "v_dist"),
        refuses=IN_PLACE,
    ),
    Member(
        "MeZO",
        lambda p, m: MeZO(p, 0.02, momentum=0.5, weight_decay=0.1, seed=3),
        **WRITES,
        shows=("lr", "momentum", "eps"),
        refuses=IN_PLACE,
    ),
    Member(
        "ZOAdam",
        lambda p, m: ZOAdam(p, 0.02, seed=3),
        **WRITES,
        shows=("lr", "betas"),
        refuses=IN_PLACE,
    ),
]
