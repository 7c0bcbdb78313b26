"""What a private training leaks: epsilon, calibrate, curve, from-opacus, audits."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from surefoot.errors import FileFormatError, SurefootError

if TYPE_CHECKING:
    from surefoot.privacy.audit import AuditResult
    from surefoot.privacy.linear_weights import LinearWeights

VIOLATED = 3


@dataclass(frozen=True)
class Training:
    """How the model is trained, in the accountant's units or in those of a training script."""

    sigma: float
    """Noise multiplier: noise standard deviation over clip norm."""
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

    def rate_and_steps(self) -> tuple[float, int]:
        """q and T, from whichever three of the flags were given."""
        return rate_and_steps(self.q, self.steps, self.dataset_size, self.batch_size, self.epochs)


def rate_and_steps(
    q: float | None,
    steps: int | None,
    dataset_size: int | None,
    batch_size: int | None,
    epochs: int | None,
) -> tuple[float, int]:
    """q and T: as given, or q = batch / n and T = epochs * n // batch.

    Raises
    ------
    SurefootError
        If neither way is complete, or both are used.
    """
    human = (dataset_size, batch_size, epochs)
    if q is not None and steps is not None and human == (None, None, None):
        return q, steps
    if dataset_size is not None and batch_size is not None and epochs is not None:
        if q is not None or steps is not None:
            raise SurefootError("--dataset-size, --batch-size and --epochs replace --q and --steps")
        if not 0 < batch_size <= dataset_size:
            raise SurefootError(
                f"--batch-size must be between 1 and --dataset-size = {dataset_size}, "
                f"got {batch_size}"
            )
        return batch_size / dataset_size, epochs * dataset_size // batch_size
    raise SurefootError("give --q and --steps, or all of --dataset-size, --batch-size and --epochs")


@dataclass(frozen=True)
class Optimizer:
    """What torch's SGD does with the gradients; it changes what each step counts in the last model."""

    momentum: float = 0.0
    """Momentum of SGD."""
    lr: float = 0.1
    """Learning rate; matters with weight decay only."""
    weight_decay: float = 0.0
    """Weight decay of SGD."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 over the run."""

    def weights(self, steps: int) -> LinearWeights | None:
        """None where all steps count the same."""
        if not self.momentum and not self.weight_decay and self.schedule == "constant":
            return None
        import torch

        from surefoot.privacy.linear_weights import LinearWeights

        optimizer = torch.optim.SGD(
            [torch.nn.Parameter(torch.zeros(1))],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        schedules = torch.optim.lr_scheduler
        scheduler: Any = None
        if self.schedule == "linear":
            scheduler = schedules.LambdaLR(optimizer, lambda t: 1 - t / steps)
        elif self.schedule == "cosine":
            scheduler = schedules.CosineAnnealingLR(optimizer, steps)
        return LinearWeights.from_optimizer(optimizer, steps, scheduler)


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
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.privacy import compare

        q, steps = self.training.rate_and_steps()
        report = compare(
            self.training.sigma,
            q,
            steps,
            self.delta,
            weights=self.optimizer.weights(steps),
            sampling=self.sampling,
            releases=self.releases,
        )
        print(_json(report.to_dict()) if self.json else report)
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
    by: Literal["standard", "heuristic"] = "standard"
    """What has to meet the target: the guarantee, or the heuristic, which is none."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.privacy import calibrate

        q, steps = rate_and_steps(
            self.q, self.steps, self.dataset_size, self.batch_size, self.epochs
        )
        found = calibrate(self.epsilon, self.delta, q, steps, by=self.by)
        print(_json(found.to_dict()) if self.json else found)
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

    def __call__(self) -> int:
        import numpy as np

        from surefoot.privacy import full_batch, last_iterate, standard
        from surefoot.privacy.result import HONESTY

        first, last = _range(self.steps)
        if self.points < 1:
            raise SurefootError(f"--points must be at least 1, got {self.points}")
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
            print(_json({"delta": self.delta, "note": HONESTY, "rows": rows}))
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
        raise SurefootError(f"--steps must be FIRST:LAST with 1 <= FIRST <= LAST, got {words!r}")
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

    def __call__(self) -> int:
        from surefoot.privacy import from_opacus

        report = from_opacus(self.checkpoint, self.delta, sampling=self.sampling)
        print(_json(report.to_dict()) if self.json else report)
        return 0


@dataclass(frozen=True)
class Claim:
    """The training that the audit is held against."""

    sigma: float | None = None
    """Claimed noise multiplier."""
    q: float | None = None
    """Claimed sample rate."""
    steps: int | None = None
    """Claimed number of updates."""

    def claimed(self) -> tuple[float, float, int] | None:
        """(sigma, q, T), or None where nothing is claimed."""
        given = (self.sigma, self.q, self.steps)
        if given == (None, None, None):
            return None
        if self.sigma is None or self.q is None or self.steps is None:
            raise SurefootError("a claim needs all of --sigma, --q and --steps")
        return self.sigma, self.q, self.steps


@dataclass(frozen=True)
class Audit:
    """Audit scores computed elsewhere: a file with columns score and included (0 or 1)."""

    scores: tyro.conf.Positional[Path]
    """A CSV file."""
    claim: tyro.conf.OmitArgPrefixes[Claim]
    delta: float = 1e-5
    """Failure probability of the claim."""
    method: Literal["one_run", "one_run_fdp", "clopper", "gdp"] = "one_run"
    """one_run: no assumption; one_run_fdp: Gaussian-shaped loss; clopper, gdp: one canary, many runs."""
    k: int | None = None
    """Guesses on each side (one run)."""
    threshold: float | None = None
    """Accuse above this score (many runs)."""
    confidence: float = 0.95
    """Confidence of the lower bound."""
    seed: int = 0
    """Breaks ties between scores."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.privacy import audit

        scores, included = _read_scores(self.scores)
        result = audit.from_scores(
            scores,
            included,
            method=self.method,
            delta=self.delta,
            k=self.k,
            threshold=self.threshold,
            confidence=self.confidence,
            seed=self.seed,
            claimed=self.claim.claimed(),
        )
        return _show(result, self.json)


def _read_scores(path: Path) -> tuple[Any, Any]:
    import pandas as pd

    if not path.is_file():
        raise FileFormatError(f"{path} is no file; give a CSV with the columns score and included")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is no CSV file: {error}") from error
    missing = {"score", "included"} - set(table.columns)
    if missing:
        raise FileFormatError(
            f"{path} must have the columns score and included, got {list(table.columns)}"
        )
    included = table["included"].to_numpy()
    if not set(included.tolist()) <= {0, 1}:
        raise FileFormatError(f"{path}: included must be 0 or 1 everywhere")
    return table["score"].to_numpy(dtype=float), included.astype(bool)


@dataclass(frozen=True)
class AuditTrain:
    """Audit your own training function in one run: MODULE:FUNCTION(include, seed) -> scores."""

    function: tyro.conf.Positional[str]
    """Takes a boolean tensor (canary i is in) and a seed, trains, and returns one score per canary."""
    m: int
    """How many canaries it takes."""
    claim: tyro.conf.OmitArgPrefixes[Claim]
    delta: float = 1e-5
    """Failure probability of the claim."""
    k: int | None = None
    """Guesses on each side; fixed before looking."""
    shadow: int = 8
    """Further trainings that calibrate the scores."""
    confidence: float = 0.95
    """Confidence of the lower bound."""
    seed: int = 0
    """Draws the canaries' coins and the seeds of the trainings."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.privacy import audit

        result = audit.one_run(
            _imported(self.function),
            m=self.m,
            k=self.k,
            delta=self.delta,
            confidence=self.confidence,
            shadow=self.shadow,
            seed=self.seed,
            claimed=self.claim.claimed(),
        )
        return _show(result, self.json)


def _imported(words: str) -> Any:
    import sys

    module, _, name = words.partition(":")
    if not module or not name:
        raise SurefootError(f"the training function must be MODULE:FUNCTION, got {words!r}")
    # As `python -m` does: a script beside the user is importable.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SurefootError(f"cannot import {words}: {error}") from error
    if not callable(function):
        raise SurefootError(f"{words} must be callable, got {type(function).__name__}")
    return function


@dataclass(frozen=True)
class Counterexample:
    """A training that leaks more than the heuristic says, audited before your eyes."""

    name: tyro.conf.Positional[Literal["forgetting", "malicious-data", "encoding"]]
    """forgetting: a regulariser keeps only late steps; malicious-data: other examples store the first
    step; encoding: a regulariser stores all steps in the digits of the model."""
    runs: int | None = None
    """Trainings with and trainings without the canary."""
    seed: int = 0
    """Of the simulation."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.privacy.counterexamples import PRESETS

        make = PRESETS[self.name.replace("-", "_")]
        chosen = {} if self.runs is None else {"runs": self.runs}
        return _show(make(seed=self.seed, **chosen).run(), self.json)


def _show(result: AuditResult, as_json: bool) -> int:
    print(_json(result.to_dict()) if as_json else result)
    return result.exit_code


def _json(value: Any) -> str:
    import math

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        # Infinity is no JSON.
        return str(x) if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(value), indent=1)


Command = (
    Annotated[Epsilon, tyro.conf.subcommand("epsilon")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Curve, tyro.conf.subcommand("curve")]
    | Annotated[FromOpacus, tyro.conf.subcommand("from-opacus")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[AuditTrain, tyro.conf.subcommand("audit-train")]
    | Annotated[Counterexample, tyro.conf.subcommand("counterexample")]
)


@dataclass(frozen=True)
class PrivacyCommand:
    """What a private training leaks: epsilon, calibrate, curve, from-opacus, audits.

    Exit code 3: an audit exceeds the proven value, so the implementation is not DP as claimed.
    """

    command: tyro.conf.OmitSubcommandPrefixes[Command]

    def __call__(self) -> int:
        try:
            return self.command()
        except ValueError as error:
            raise SurefootError(str(error)) from error


NAME = "privacy"
COMMAND = PrivacyCommand
