"""Low-rank adaptation that gets there: RAC-LoRA chains beside LoRA, COLA, AsymmLoRA, full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.lora.experiments import counterexample, digits_net, regression
from surefoot.study import Part, Study, StudyConfig


@dataclass(frozen=True)
class LoraConfig(StudyConfig):
    """The study of low-rank chains."""

    mnist: Path | None = None
    """A folder or file with MNIST for part MNIST; by default it comes from a package."""
    encoder: Path | None = None
    """A model directory for part encoder; by default MiniLM comes from a package."""
    texts: Path | None = None
    """Rated texts for part encoder; by default sentiment4 comes from a package."""


STUDY = Study(
    name="lora",
    title="Low-rank adaptation that provably gets there",
    paper="Malinovsky et al., Randomized Asymmetric Chain of LoRA, arXiv 2410.08305",
    config=LoraConfig,
    parts=(
        Part(
            "counterexample",
            "A 3 x 3 quadratic on which LoRA goes wrong",
            counterexample.run,
            counterexample.guarantees,
            tables=counterexample.tables,
            seeds={"quick": 3, "standard": 10, "paper": 50},
        ),
        Part(
            "ridge",
            "Ridge regression: speed is proportional to the rank",
            regression.run_ridge,
            regression.ridge_guarantees,
            tables=regression.ridge_tables,
            seeds={"quick": 8, "standard": 20, "paper": 40},
        ),
        Part(
            "noise",
            "Ridge regression with SGD and random reshuffling",
            regression.run_noise,
            regression.noise_guarantees,
            seeds={"quick": 8, "standard": 20, "paper": 40},
        ),
        Part(
            "digits",
            "Softmax regression on digits: one promise for equal rank times blocks",
            regression.run_digits,
            regression.digits_guarantees,
            tables=regression.digits_tables,
            seeds={"quick": 5, "standard": 6, "paper": 12},
        ),
        Part(
            "digits-net",
            "The network of Table 3, digits 0-4 to 5-9, nothing promised",
            digits_net.run,
            tables=digits_net.tables,
            seeds={"quick": 1, "standard": 5, "paper": 10},
        ),
    ),
)
