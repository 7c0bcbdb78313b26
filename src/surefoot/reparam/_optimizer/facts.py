"""What an optimizer is, read off the optimizer itself, whoever made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from surefoot.certificate import Certificate
from surefoot.record import Fact, Known, Record

MULT, SCALES = "grad_mult", "branch_scales"
NUMBERS = ("momentum", "dampening", "weight_decay", "proximal_mu", "eps")
SWITCHES = ("nesterov", "maximize", "amsgrad")
# A setting that moves with a schedule is not a fact of the run: this many values, then the word.
MOST, VARIES = 8, "varies"
NORMALISING = {
    torch.optim.Adam: "adam", torch.optim.AdamW: "adam", torch.optim.NAdam: "adam",
    torch.optim.RAdam: "adam", torch.optim.Adamax: "adam", torch.optim.Adagrad: "normalised",
    torch.optim.Adadelta: "normalised", torch.optim.RMSprop: "normalised",
    torch.optim.Rprop: "normalised",
}  # fmt: skip
Facts = dict[str, tuple[Fact, ...]]


def client_rule(optimizer: torch.optim.Optimizer) -> str:
    """The rule of `equivalence_holds` that an optimizer steps by, or "unknown (its class)".

    Only classes that say so themselves are known: a subclass may step in another way.
    """
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return "sgd"
    if kind in NORMALISING:
        return NORMALISING[kind]
    own = kind.__dict__.get("client_rule")
    return f"unknown ({kind.__name__})" if own is None else str(own.fget(optimizer))


def settings_of(optimizer: torch.optim.Optimizer) -> Facts:
    """Every setting of every group that a theorem may ask for, as facts, the learning rate apart."""
    found: dict[str, list[Fact]] = {
        "optimizer": [getattr(optimizer, "shown_name", type(optimizer).__name__)],
        "client": [client_rule(optimizer)],
    }
    for group in optimizer.param_groups:
        for name, value in group_settings(group).items():
            found.setdefault(name, []).append(value)
        for parameter in group["params"]:
            found.setdefault("parameter_dtype", []).append(
                str(parameter.dtype).removeprefix("torch.")
            )
    if found["client"] == ["sgd"]:  # torch's SGD and ours have each a setting that the other lacks
        found.setdefault("proximal_mu", [0.0])
        found.setdefault("maximize", [False])
    mults = [state[MULT] for state in optimizer.state.values() if MULT in state]
    scaled = sum(SCALES in state for state in optimizer.state.values())
    found["multipliers"] = [len(mults) + scaled]
    if not scaled:
        found["largest_multiplier"] = [_largest(mults, optimizer)]
    return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}


def group_settings(group: Mapping[str, Any]) -> dict[str, Fact]:
    """The settings of one group, numbers as numbers."""
    found: dict[str, Fact] = {n: float(group[n]) for n in NUMBERS if n in group}
    found |= {n: bool(group[n]) for n in SWITCHES if n in group}
    if "betas" in group:
        found["beta1"], found["beta2"] = (float(b) for b in group["betas"])
    if "variant" in group:
        found["variant"] = str(group["variant"])
    return found


def _largest(mults: list[Tensor], optimizer: torch.optim.Optimizer) -> float:
    """max M, where a parameter without a multiplier has 1."""
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    without = [1.0] if count > len(mults) else []
    mults = [m for m in mults if m.numel()]
    if not mults:
        return 1.0
    highest = torch.stack([m.max().to(mults[0].device).double() for m in mults])
    return max([float(highest.max()), *without])


def learning_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rates of all groups that have parameters."""
    return [float(group["lr"]) for group in optimizer.param_groups if group["params"]]


def note_facts(
    record: Record, facts: Mapping[str, Iterable[Fact] | Known], seed: int | None, of: str
) -> None:
    """Note facts that are known elsewhere, several values a name; a setting that keeps moving "varies"."""
    for name, values in facts.items():
        for value in values.all if isinstance(values, Known) else values:
            there = record.fact(name, of).all
            if value not in there and len(there) >= MOST:
                value = VARIES
            record.note(seed, of, **{name: value})


def same_settings(one: torch.optim.Optimizer, two: torch.optim.Optimizer) -> bool:
    """Whether a plain network's optimizer and the branches' are the same rule at the same settings.

    Decay is compared by its largest value: the parameters that are not decayed differ between the two.
    """
    rules = {"rep_adamw": "adam"}
    kinds = [rules.get(k, k) for k in (client_rule(one), client_rule(two))]
    known = not any(k.startswith("unknown") for k in kinds)
    if known and kinds[0] != kinds[1]:
        return False
    if sorted(set(learning_rates(one))) != sorted(set(learning_rates(two))):
        return False
    a, b = settings_of(one), settings_of(two)
    shared = (set(a) & set(b)) & {*NUMBERS, *SWITCHES, "beta1", "beta2"} - {"weight_decay"}
    if any(set(a[name]) != set(b[name]) for name in shared):
        return False
    return max(a.get("weight_decay", (0.0,))) == max(b.get("weight_decay", (0.0,)))


class Watched:
    """Notes what an optimizer does, as it does it: settings when they change, the largest rate a step."""

    def __init__(self, record: Record | None, seed: int) -> None:
        self.record = Record() if record is None else record
        self.seed, self.steps = seed, 0
        self._seen: tuple[Any, ...] | None = None

    def stepped(self, optimizer: torch.optim.Optimizer, step: int | None = None) -> None:
        """One step was made; `step` is its number, by default a count."""
        groups = optimizer.param_groups
        seen = tuple(
            (*group_settings(g).values(), len(g["params"]), *(p.dtype for p in g["params"][:1]))
            for g in groups
        )
        if seen != self._seen:
            note_facts(self.record, settings_of(optimizer), self.seed, "")
            self._seen = seen
        rates = learning_rates(optimizer)
        if rates:
            at = self.steps if step is None else step
            self.record.append(self.seed, at, lr=max(rates))
            if min(rates) != max(rates):
                self.record.note(self.seed, one_lr=False)
        self.steps += 1

    def note(self, **facts: Fact) -> None:
        """Note facts of this run."""
        self.record.note(self.seed, **facts)

    def changed(self) -> None:
        """The state was loaded: look at everything again at the next step."""
        self._seen = None


class Recorded:
    """An optimizer with a record and certificates."""

    _watched: Watched

    @property
    def record(self) -> Record:
        """What it did: settings as facts, "lr" a step, and what a `Shadow` beside it measured."""
        return self._watched.record

    def record_into(self, record: Record | None, seed: int = 0) -> None:
        """Go on in another record, or in a new one."""
        self._watched = Watched(record, seed)

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run in its record, and what was measured."""
        from surefoot.reparam.guarantee import certificates

        return certificates(self.record, confidence=confidence)
