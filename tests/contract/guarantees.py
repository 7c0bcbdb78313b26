"""The guarantees of the package: for each factory a record on which it must hold, and what spoils it.

A member is data: the columns and the facts that a run which keeps the promise would have written, the columns
of one that broke it, and the facts under which nothing is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from surefoot import Guarantee, Record
from surefoot.federated import guarantee as federated
from surefoot.privacy import guarantee as privacy
from surefoot.record import Fact
from surefoot.reparam import guarantee as reparam

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Promise:
    """One factory, with the constants of its problem.

    `columns` are values at steps 0, 1, ..., or from the step that `starts` says. `facts` are those that its
    conditions need, "arm.name" for one of several arms; `others` change nothing that is assumed. `fault`
    replaces columns so that the promise is broken. `spoils` are single facts that void it. `numbers` names
    the assumptions that columns decide, which therefore hold where no fact is recorded. `why` says why no
    fact can void it, where none can.
    """

    factory: Callable[..., Guarantee | tuple[Guarantee, ...]]
    make: Callable[[], Guarantee]
    columns: Columns
    fault: Columns
    facts: Mapping[str, Fact] = field(default_factory=dict)
    spoils: Sequence[Mapping[str, Fact]] = ()
    others: Mapping[str, Fact] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    seeds: int = 2
    why: str = ""

    def __str__(self) -> str:
        return (
            f"{self.factory.__module__.split('.')[1]}.{self.factory.__name__}: {self.make().name}"
        )

    def record(
        self,
        columns: Columns | None = None,
        without: Sequence[str] = (),
        instead: Mapping[str, Fact] | None = None,
    ) -> Record:
        """What a run would have written: with other columns, without some facts, or with others instead."""
        record = Record()
        for seed in range(self.seeds):
            for name, values in {**self.columns, **(columns or {})}.items():
                first = self.starts.get(name, 0)
                record.extend(seed, name, values, range(first, first + len(values)))
            for key, value in {**self.facts, **self.others, **(instead or {})}.items():
                if key not in without:
                    of, _, name = key.rpartition(".")
                    record.note(seed, of, **{name: value})
        return record


SGD = {
    "client": "sgd", "momentum": 0.0, "weight_decay": 0.0, "proximal_mu": 0.0, "maximize": False,
}  # fmt: skip
NOT_PLAIN = [{"momentum": 0.9}, {"weight_decay": 0.1}, {"client": "adam"}, {"maximize": True}]
RULES = {"client": "sgd", "clip": "none", "norm": "bn"}
CURVATURE = {"curvature": 2.0, "curvature_exact": True}
LOSSES = {"loss": [1.0, 0.5, 0.25]}

REPARAM = [
    Promise(
        reparam.trajectory,
        reparam.trajectory,
        {"one-step defect": [1e-16, 0.0, 2e-16]},
        {"one-step defect": [1e-16, 1e-6, 2e-16]},
        {**RULES, "same_settings": True, "dtype": "float64"},
        [{"client": "adam"}, {"clip": "plain"}, {"norm": "per_branch"}, {"same_settings": False}],
    ),
    Promise(
        reparam.federated_trajectory,
        reparam.federated_trajectory,
        {"free-running gap": [1e-15, 2e-15]},
        {"free-running gap": [1e-15, 1e-3]},
        {**RULES, "server": "fedavg", "multipliers": 4, "dtype": "float64", "activation": "silu"},
        [{"server": "fedadam"}, {"multipliers": 0}, {"dtype": "float32"}, {"activation": "relu"}],
    ),
    Promise(
        reparam.clipped_norm,
        reparam.clipped_norm,
        {"clipping norm error": [1e-15]},
        {"clipping norm error": [1e-3]},
        {"clip": "csla", "norm": "bn", "dtype": "float64"},
        [{"clip": "plain"}, {"norm": "per_branch"}, {"dtype": "bfloat16"}],
    ),
    Promise(
        reparam.descent,
        reparam.descent,
        {"excess over descent bound": [-0.1, -0.2, 0.0], **LOSSES},
        {"excess over descent bound": [-0.1, 0.2, 0.0]},
        {**SGD, "curvature_exact": True},
        NOT_PLAIN,
        others={"curvature": 2.0, "curvature_how": "exact", "parameter_dtype": "float64"},
    ),
    Promise(
        reparam.decreasing,
        reparam.decreasing,
        {"rise": [-0.5, -0.25, -0.1], "step size": [0.5] * 3, **LOSSES},
        {"rise": [-0.5, 0.25, -0.1]},
        {**SGD, **CURVATURE},
        [*NOT_PLAIN, {"curvature": 5.0}],
        others={"curvature_how": "exact", "parameter_dtype": "float64"},
    ),
    Promise(
        reparam.rate,
        lambda: reparam.rate(2.0, 1.0),
        {"least squared step": [3.0, 2.0, 1.0], "step size": [0.5] * 3},
        {"least squared step": [3.0, 2.0, 1.5]},  # at most 2 / (0.5 * 3)
        {**SGD, "largest_multiplier": 1.0, "one_lr": True},
        [*NOT_PLAIN, {"largest_multiplier": 3.0}, {"one_lr": False}],
        starts={"least squared step": 1},
    ),
    Promise(
        reparam.costs_of_plain,
        lambda: reparam.costs_of_plain("bytes: ours", "bytes: plain", unit="bytes"),
        {"bytes: ours": [100.0], "bytes: plain": [100.0]},
        {"bytes: ours": [101.0]},
        {"ours.blocks": "plain", "plain.blocks": "plain"},
        [{"ours.blocks": "csla"}, {"plain.blocks": "csla"}],
    ),
]

TRAINING = {
    "noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 50, "delta": 1e-5,
    "sampling": "poisson", "clipping": "per example", "adjacency": "add/remove",
}  # fmt: skip
HIDDEN = {
    **TRAINING, "releases": "last", "linearity": "OK", "optimizer": "SGD", "lr": 0.1, "momentum": 0.0,
    "weight_decay": 0.0,
}  # fmt: skip
NOT_PRIVATE = [
    {"sampling": "shuffled"}, {"clipping": "none"}, {"adjacency": "replace"}, {"claimed_steps": 10,
     "claimed_noise_multiplier": 1.0, "claimed_sample_rate": 0.1},
]  # fmt: skip
AUDITED = {"audited": [1.0]}, {"audited": [9.0]}  # proven 4.91, heuristic 4.15

PRIVACY = [
    Promise(
        privacy.proven_claim,
        lambda: privacy.proven_claim("audited"),
        *AUDITED,
        # Without delta there is no number to exceed, and the bound is infinite.
        {k: v for k, v in TRAINING.items() if k != "delta"},
        NOT_PRIVATE,
        others={"delta": 1e-5, "confidence": 0.95},
    ),
    Promise(
        privacy.heuristic_claim,
        lambda: privacy.heuristic_claim("audited"),
        *AUDITED,
        {k: v for k, v in HIDDEN.items() if k != "delta"},
        [
            *NOT_PRIVATE,
            {"releases": "all"},
            {"linearity": "violated"},
            {"optimizer": "Adam"},
            {"momentum": 0.9},
        ],
        others={"delta": 1e-5, "confidence": 0.95},
    ),
    Promise(
        privacy.postprocessing_claim,
        lambda: privacy.postprocessing_claim("heuristic", "standard"),
        {"heuristic": [1.0, 2.0], "standard": [1.5, 2.0]},
        {"heuristic": [1.0, 2.1]},
        why="it compares two computed numbers of one setting",
    ),
]

FEDERATED = [
    Promise(
        federated.uplink,
        federated.uplink,
        {"bytes up": [300.0, 200.0], "promised bytes up": [300.0, 200.0]},
        {"bytes up": [300.0, 201.0]},
        why="it is counted, whatever was trained",
    ),
    Promise(
        federated.downlink,
        federated.downlink,
        {"bytes down": [300.0, 200.0], "promised bytes down": [300.0, 250.0]},
        {"bytes down": [300.0, 251.0]},
        why="it is counted, whatever was trained",
    ),
]

PROMISES = [*REPARAM, *PRIVACY, *FEDERATED]
