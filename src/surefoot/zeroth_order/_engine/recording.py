"""What an optimizer writes into its record as it goes: facts once, and a few numbers a step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from surefoot._numerics.seeds import hash64
from surefoot.record import Fact, Record
from surefoot.zeroth_order._engine.engine import Engine
from surefoot.zeroth_order._engine.paired.quality import products_of
from surefoot.zeroth_order._engine.parameters import drifting
from surefoot.zeroth_order._engine.private_facts import batch_facts, privacy_facts, squared_norm
from surefoot.zeroth_order._engine.tensors import TrainedTensor

# What a group may change from step to step.
VARYING = ("lr", "eps", "weight_decay")
# How many steps of a private run have let something go, this one included.
RELEASED = "released_steps"
SQUARED_DIRECTION, WEIGHED = "squared_direction", "mean_weighed_gradient"
SQUARED, MEAN_SQUARED = "squared_gradient", "mean_squared_gradient"
LARGEST = 1 << 63


def column(quantity: str, of: str) -> str:
    """The record's name for a quantity of one of several runs."""
    return f"{of}.{quantity}" if of else quantity


def shapes_text(tensors: Iterable[TrainedTensor]) -> str:
    """What moved along low-rank directions, as one word: "768x768 r2 x48, 3072x768 r2 x12"."""
    found = Counter(f"{x.m}x{x.n} r{x.rank}" for x in tensors if not x.dense)
    return ", ".join(f"{shape} x{count}" for shape, count in found.items()) or "none"


def read_shapes(text: str) -> list[tuple[int, int, int]]:
    """(m, n, rank) of each matrix of `shapes_text`."""
    found: list[tuple[int, int, int]] = []
    for each in [] if text == "none" else text.split(", "):
        shape, rank, count = each.split(" ")
        m, n = map(int, shape.split("x"))
        found += [(m, n, int(rank[1:]))] * int(count[1:])
    return found


class Recording:
    """Facts and numbers of one optimizer in one record.

    A setting of a group that changes is noted once more, so that both values stand; later changes are in
    the numbers of the steps only. A schedule would else fill the facts.

    Parameters
    ----------
    optimizer
        Its name.
    record
        Where to write; None: a record of its own.
    seed
        The run's seed in that record.
    """

    def __init__(self, optimizer: str, record: Record | None, seed: int) -> None:
        self.optimizer, self.seed, self.of = optimizer, _fitting(seed), ""
        self.record = Record() if record is None else record
        self._forget()

    def _forget(self) -> None:
        self._groups: tuple[Any, ...] | None = None
        self._ranks: tuple[int, ...] | None = None
        self._noted: dict[str, list[float]] = {name: [] for name in VARYING}
        self._skipped = False
        self._products: set[str] = set()
        self._mean: tuple[int, float] | None = None
        self._weighed: tuple[int, float] | None = None

    def move(self, record: Record, seed: int | None, of: str) -> None:
        """Go on in another record."""
        self.record, self.of = record, of
        self.seed = self.seed if seed is None else _fitting(seed)
        self._forget()

    def note(self, **facts: Fact) -> None:
        """Note facts of this run."""
        self.record.note(self.seed, self.of, **facts)

    def measured(self, step: int, **values: float) -> None:
        """Numbers at a step."""
        self.record.update(self.seed, step, {column(k, self.of): v for k, v in values.items()})

    # -- a step -------------------------------------------------------------------------------------------

    def before(self, engine: Engine) -> None:
        """Before an update: the settings that it is made with."""
        t = engine.directions.t
        if self._groups is None:
            self.note(unrecorded_steps=self._missing(t))
            if self._leaks(engine):
                self.note(released="losses of a run without privacy in the same record")
        self.settings(engine)
        self._lr = float(engine.groups[0]["lr"])
        if engine.privacy is not None:
            self._squared = squared_norm(engine.directions)
            self._batch = batch_facts(engine)

    def settings(self, engine: Engine) -> None:
        """Note what has not been noted yet."""
        if self._groups is None:
            self.note(**self._fixed(engine))
        products = str(products_of(engine.pairing)).removeprefix("torch.")
        if products not in self._products:
            self._products.add(products)
            self.note(products=products)
        groups = tuple(tuple(float(g[name]) for name in VARYING) for g in engine.groups)
        if groups != self._groups:
            self._groups = groups
            self._note_groups(groups)
        ranks = tuple(-1 if x.frozen else x.rank for x in engine.tensors)
        if ranks != self._ranks:
            self._ranks = ranks
            moving = [x for x in engine.tensors if not x.frozen]
            self.note(**_shapes(moving, engine.settings.v_dist))

    def after(self, engine: Engine) -> None:
        """After an update: its numbers."""
        last = engine.last
        if last["skipped"] and not self._skipped:
            self._skipped = True
            self.note(skipped_steps=True)
        losses = {k: last[k] for k in ("loss_plus", "loss_minus") if k in last}
        t = engine.directions.t - 1
        self.measured(t, lr=self._lr, c=last["c"], **losses)
        if engine.privacy is not None:
            self._released(engine, t)

    def _released(self, engine: Engine, t: int) -> None:
        """What a step of a private run let go, and how its batch was drawn."""
        self.measured(t, **{RELEASED: t + 1.0})
        if self._squared is not None:
            self.measured(t, **{SQUARED_DIRECTION: self._squared})
        self.note(**self._batch)

    def _fixed(self, engine: Engine) -> dict[str, Fact]:
        clip = engine.settings.c_clip
        found: dict[str, Fact] = {
            k: v
            for k, v in engine.settings.to_dict().items()
            if k not in ("seed", "v_dist", "c_clip")
        }
        return found | {
            "optimizer": self.optimizer,
            "method": engine.method,
            "forward_only": True,
            "c_clip": "none" if clip is None else clip,
            "drifts": bool(drifting(engine.tensors)),
            "skipped_steps": False,
            "processes": engine.reducer.size,
            **privacy_facts(engine),
        }

    def _note_groups(self, groups: tuple[tuple[float, ...], ...]) -> None:
        for i, name in enumerate(VARYING):
            noted = self._noted[name]
            for value in dict.fromkeys(group[i] for group in groups):
                # Two values say all that a theorem asks: it was not constant.
                if value not in noted and len(noted) < 2:
                    noted.append(value)
                    self.note(**{name: value})

    def _leaks(self, engine: Engine) -> bool:
        """Whether one of the runs of this seed is private, and another tells its losses."""
        if engine.privacy is None:
            return bool(self.record.fact("mechanism", self.of).values.get(self.seed))
        name = column("loss_plus", self.of)
        return name in self.record and self.seed in self.record.last(name)

    def _missing(self, t: int) -> int:
        """Steps before this one that the record does not have."""
        return 0 if not t or self._at("lr", t - 1) is not None else t

    def _at(self, quantity: str, step: int) -> float | None:
        """What the record holds of a quantity at a step of this run."""
        name = column(quantity, self.of)
        if name not in self.record:
            return None
        found = self.record.frame(name)[name].get((self.seed, step), math.nan)
        return None if math.isnan(found) else float(found)

    # -- what is measured ---------------------------------------------------------------------------------

    def gradient(self, t: int, nu: int, squared: float) -> None:
        """||grad f||^2 at a period's start, and the mean over all of them.

        Raises
        ------
        ValueError
            If the start before was left out.
        """
        k, before = t // nu, 0.0
        if k:
            here = self._mean is not None and self._mean[0] == t - nu
            found = self._mean[1] if self._mean and here else self._at(MEAN_SQUARED, t - nu)
            if found is None:
                raise ValueError(
                    "the gradient must be measured at the start of every period: "
                    f"none is recorded at t = {t - nu}"
                )
            before = found
        mean = before + (squared - before) / (k + 1)
        self._mean = (t, mean)
        self.measured(t, **{SQUARED: squared, MEAN_SQUARED: mean})

    def weighed(self, t: int, value: float) -> None:
        """G^T S_V Gbar before step t, as the mean over the steps so far; its column is private.

        Raises
        ------
        ValueError
            If the step before was left out.
        """
        before = 0.0
        if t:
            here = self._weighed is not None and self._weighed[0] == t - 1
            found = self._weighed[1] if self._weighed and here else self._at(WEIGHED, t - 1)
            if found is None:
                raise ValueError(
                    f"the descent must be measured before every step: none is recorded at t = {t - 1}"
                )
            before = found
        mean = before + (value - before) / (t + 1)
        self._weighed = (t, mean)
        self.record.private(column(WEIGHED, self.of))
        self.measured(t, **{WEIGHED: mean})

    def copy_facts(self, record: Record, seed: int | None, of: str) -> None:
        """Note the facts of this run in another record."""
        seed = self.seed if seed is None else seed
        prefix = column("", self.of)
        for name, known in self.record.facts.items():
            if name.startswith(prefix):
                for value in known.values.get(self.seed, ()):
                    record.note(seed, of, **{name.removeprefix(prefix): value})


def _shapes(tensors: list[TrainedTensor], v_dist: str) -> dict[str, Fact]:
    shapes = shapes_text(tensors)
    return {
        "low_rank_shapes": shapes,
        "dense_entries": sum(x.param.numel() for x in tensors if x.dense),
        "v_dist": "none" if shapes == "none" else v_dist,
    }


def settings_in(engine: Engine, optimizer: str) -> Record:
    """A record of the settings alone, as the coming step would note them."""
    recording = Recording(optimizer, None, 0)
    recording.note(unrecorded_steps=0)
    recording.settings(engine)
    return recording.record


def _fitting(seed: int) -> int:
    """A seed that a record can hold."""
    return seed if -LARGEST <= seed < LARGEST else hash64(seed)
