"""Find the smallest network that predicts a column of a table; train the decoder of networks once."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from surefoot._numerics.checks import check_number
from surefoot.architecture._cli.results import (
    plain_numbers,
    print_results,
    said_as_json,
    write_results,
)
from surefoot.architecture._cli.tables import guessed_task, numeric, read_table
from surefoot.errors import SurefootError

NAME = "architecture"
ALSO = ("compact",)


@dataclass(frozen=True)
class Compact:
    """Fit the smallest network that predicts a column of a CSV file; write its front, C code and certificate.

    Into the folder --out: front.html, the network as model.c and model.pt, and certificate.json.
    """

    data: tyro.conf.Positional[Path]
    """A CSV file with a header; all columns but the target are numbers, or True and False, as 1 and 0."""
    target: str
    """The column to predict."""
    max_params: int | None = None
    """Most stored numbers of the network."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto: words, and whole numbers of few values, are classes."""
    time_budget: float = 20.0
    """Seconds for the fit."""
    certify_fraction: float = 0.2
    """Share of the rows kept for limits on the error."""
    confidence: float = 0.95
    """Of these limits."""
    seed: int = 0
    """Of splits and starts."""
    steps: int | None = None
    """Optimiser iterations in place of --time-budget: the result then depends on the seed only."""
    autoencoder: Path | None = None
    """A file of `surefoot architecture pretrain`, to search in as well; from 10 seconds on."""
    out: Path = Path("compact")
    """The folder to write to; it must not exist, or be empty."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.max_params is not None:
            check_number("max_params", self.max_params, least=1, whole=True)
        check_number("time_budget", self.time_budget, above=0)
        check_number("certify_fraction", self.certify_fraction, least=0, below=1)
        check_number("confidence", self.confidence, above=0, below=1)
        if self.steps is not None:
            check_number("steps", self.steps, least=1, whole=True)

    def __call__(self) -> int:
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise SurefootError(f"{self.out} exists already; give another folder as --out")
        x, y, names = read_table(self.data, self.target)
        new = not self.out.exists()
        try:
            # Before the fit, which would be lost.
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SurefootError(f"{self.out} cannot be written to: {error}") from error
        try:
            model, kind = self._fit(x, y)
        except BaseException as error:
            if new:
                self.out.rmdir()
            if isinstance(error, ValueError) and not isinstance(error, SurefootError):
                raise SurefootError(str(error)) from error
            raise
        files = write_results(model, names, self.out)
        if self.json:
            print(jsonlib.dumps(said_as_json(model, kind, files), indent=1))
        else:
            print_results(model, kind, names, files)
        return int(any(c.verdict == "BROKEN" for c in model.certificates()))

    def _fit(self, x: Any, y: Any) -> tuple[Any, str]:
        from surefoot.architecture.estimators import CompactMLPClassifier, CompactMLPRegressor

        kind = self.task if self.task != "auto" else guessed_task(y)
        if kind == "regression" and not numeric(y):
            raise SurefootError(
                f"{self.target} has words, as {y.iloc[0]!r}: a regression needs numbers"
            )
        decoder = None
        if self.autoencoder is not None:
            decoder = _loaded(self.autoencoder)
        estimator = CompactMLPClassifier if kind == "classification" else CompactMLPRegressor
        model = estimator(
            max_params=self.max_params, time_budget=self.time_budget, steps=self.steps,
            certify_fraction=self.certify_fraction, confidence=self.confidence,
            random_state=self.seed, autoencoder=decoder,
        )  # fmt: skip
        return model.fit(x.to_numpy(dtype=float), y.to_numpy()), kind


@dataclass(frozen=True)
class Pretrain:
    """Train the decoder of the default space once and keep it; say where it is, its digest and its error.

    It is kept in the cache, where `pretrained()` finds it; what is there already is only read. --out writes a
    copy, which NetworkAutoencoder.load and compact --autoencoder read.
    """

    steps: int | None = None
    """Of the training; the default takes minutes of one core."""
    seed: int = 0
    """Of parameters, networks and inputs."""
    networks: int = 400
    """Unseen networks that its error is measured on."""
    out: Path | None = None
    """A file to write a copy to."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_number("steps", self.steps, least=1, whole=True)
        check_number("networks", self.networks, least=1, whole=True)

    def __call__(self) -> int:
        from surefoot.architecture.pretraining import (
            DEFAULT_SPACE,
            STEPS,
            pretrained,
            pretrained_path,
        )

        steps = STEPS if self.steps is None else self.steps
        try:
            path = pretrained_path(DEFAULT_SPACE, steps, self.seed)
            known = path.exists()
            model = pretrained(DEFAULT_SPACE, steps, self.seed)
            found = model.certificate(self.networks)
            if self.out is not None:
                model.save(self.out)
        except (ValueError, OSError) as error:
            if isinstance(error, SurefootError):
                raise
            raise SurefootError(str(error)) from error
        said = {
            "file": str(self.out or path), "sha256": model.digest(), "steps": steps, "seed": self.seed,
            "read from the cache": known, "networks": self.networks, "median": found["median"],
            "median_bound": found["median_bound"], "q90_bound": found["q90_bound"],
            "winners": found["winners"].tolist(),
        }  # fmt: skip
        if self.json:
            print(jsonlib.dumps(plain_numbers(said), indent=1))
        else:
            for name, value in said.items():
                print(f"{name}: {value}")
        return 0


def _loaded(path: Path) -> Any:
    from surefoot.architecture.autoencoder import NetworkAutoencoder

    if not path.exists():
        raise SurefootError(
            f"there is no file {path}; surefoot architecture pretrain --out writes one"
        )
    return NetworkAutoencoder.load(path)


COMMAND = {"compact": Compact, "pretrain": Pretrain}
