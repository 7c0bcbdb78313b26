"""`surefoot privacy epsilon`, `calibrate`, `curve`, `from-opacus`: numbers before and after a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import tyro

from surefoot._numerics.checks import check_number
from surefoot._numerics.refusing import refuse
from surefoot.errors import ArgumentError
from surefoot.privacy._checks import check_delta, check_noise, check_rate
from surefoot.privacy._commands.output import to_json
from surefoot.privacy._commands.training import Optimizer, Training, check_size, rate_and_steps

# The flags by the names that the library has for them.
NAMES = MappingProxyType({
    "noise_multiplier": "sigma", "sample_rate": "q", "target_epsilon": "epsilon",
})  # fmt: skip


@dataclass(frozen=True)
class Epsilon:
    """Proven, heuristic, envelope and full-batch epsilon of a training."""

    training: tyro.conf.OmitArgPrefixes[Training]
    optimizer: tyro.conf.OmitArgPrefixes[Optimizer]
    delta: float = 1e-5
    """Failure probability of the statement."""
    sampling: Literal["poisson", "shuffled"] = "poisson"
    """How batches are drawn; a Poisson number says nothing about shuffled epochs."""
    releases: Literal["last", "all"] = "last"
    """What leaves: the last model, or all intermediate ones too."""
    public_directions: bool = False
    """Steps along directions of a known seed (zeroth-order training): the heuristic is void."""
    json: bool = False
    """Print JSON."""
    ARGUMENTS = NAMES

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self) -> int:
        from surefoot.privacy import compare

        q, steps = self.training.rate_and_steps(self.sampling)
        optimizer, rates = self.optimizer.made(steps)
        report = compare(
            self.training.sigma,
            q,
            steps,
            self.delta,
            optimizer=optimizer,
            lr_history=rates,
            sampling=self.sampling,
            releases=self.releases,
            public_directions=self.public_directions,
        )
        print(to_json(report.to_dict()) if self.json else report)
        return 0


@dataclass(frozen=True)
class Calibrate:
    """The noise multiplier for a target epsilon; the proven epsilon is always printed first."""

    epsilon: float
    """The target."""
    delta: float = 1e-5
    """Failure probability of the statement."""
    q: float | None = None
    """Sample rate: probability that an example is in a batch."""
    steps: int | None = None
    """Number of updates."""
    dataset_size: int | None = None
    """Number of training examples; with batch size and epochs in place of q and steps."""
    batch_size: int | None = None
    """Expected number of examples in a batch."""
    epochs: int | None = None
    """Passes over the data."""
    drop_last: bool = False
    """The data loader leaves out the last batch of an epoch where it is smaller."""
    by: Literal["standard", "heuristic"] = "standard"
    """What has to meet the target: the guarantee, or the heuristic, which is none."""
    json: bool = False
    """Print JSON."""
    ARGUMENTS = NAMES

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, above=0)
        check_delta(self.delta)
        check_size(self)

    def __call__(self) -> int:
        from surefoot.privacy import calibrate

        q, steps = rate_and_steps(
            self.q, self.steps, self.dataset_size, self.batch_size, self.epochs,
            drop_last=self.drop_last,
        )  # fmt: skip
        found = calibrate(self.epsilon, self.delta, q, steps, by=self.by)
        print(to_json(found.to_dict()) if self.json else found)
        return 0


@dataclass(frozen=True)
class Curve:
    """Epsilon against the number of steps, as a table, JSON or a picture."""

    sigma: float
    """Noise multiplier."""
    q: float
    """Sample rate."""
    steps: str = "1:10000"
    """First and last number of steps, FIRST:LAST."""
    points: int = 25
    """How many numbers of steps, evenly spaced on a logarithmic axis."""
    delta: float = 1e-5
    """Failure probability of the statement."""
    out: Path | None = None
    """Write the picture here: .html (interactive) or .svg."""
    json: bool = False
    """Print JSON."""
    ARGUMENTS = NAMES

    def __post_init__(self) -> None:
        check_noise(self.sigma, "sigma")
        check_rate(self.q, "q")
        _range(self.steps)
        check_number("points", self.points, least=1, whole=True)
        check_delta(self.delta)

    def __call__(self) -> int:
        import numpy as np

        from surefoot.privacy import full_batch, last_iterate, standard
        from surefoot.privacy.result import HONESTY
        from surefoot.report.figures import check_figure_path

        if self.out is not None:
            check_figure_path(self.out)
        first, last = _range(self.steps)
        steps = np.unique(np.round(np.geomspace(first, last, self.points)).astype(int))
        rows = [
            {
                "steps": int(t),
                "standard": standard(self.sigma, self.q, int(t)).epsilon(self.delta).value,
                "heuristic": last_iterate(self.sigma, self.q, int(t)).epsilon(self.delta).value,
                "full_batch": full_batch(self.sigma, self.q, int(t)).epsilon(self.delta).value,
            }
            for t in steps
        ]
        if self.out is not None:
            _draw(self, steps)
        if self.json:
            print(to_json({"delta": self.delta, "note": HONESTY, "rows": rows}))
            return 0
        print(f"{'steps':>12}{'standard (guarantee)':>22}{'heuristic':>12}{'full batch':>12}")
        for row in rows:
            print(
                f"{row['steps']:>12}{row['standard']:>22.5g}"
                f"{row['heuristic']:>12.5g}{row['full_batch']:>12.5g}"
            )
        print(HONESTY)
        return 0


def _range(words: str) -> tuple[int, int]:
    try:
        first, _, last = words.partition(":")
        a = int(float(first))
        b = int(float(last)) if last else a
    except ValueError:
        a, b = 0, 0
    if not 1 <= a <= b:
        said = f"must be FIRST:LAST with 1 <= FIRST <= LAST, got {words!r}"
        refuse(ArgumentError("steps", said))
    return a, b


def _draw(curve: Curve, steps: Any) -> None:
    from surefoot.privacy.figures import steps_figure, write_figure

    assert curve.out is not None
    figure = steps_figure(curve.sigma, curve.q, steps, curve.delta)
    write_figure(figure, curve.out)


@dataclass(frozen=True)
class FromOpacus:
    """What an Opacus checkpoint says was spent."""

    checkpoint: tyro.conf.Positional[Path]
    """A file that PrivacyEngine.save_checkpoint wrote."""
    delta: float = 1e-5
    """Failure probability of the statement."""
    sampling: Literal["poisson", "shuffled"] | None = None
    """How batches were drawn, which Opacus does not write down."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self) -> int:
        from surefoot.privacy import from_opacus

        report = from_opacus(self.checkpoint, self.delta, sampling=self.sampling)
        print(to_json(report.to_dict()) if self.json else report)
        return 0
