"""Low-rank adaptation that gets there: RAC-LoRA chains beside LoRA, COLA, AsymmLoRA, full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surefoot.lora.experiments import (
    counterexample,
    digits_net,
    drift,
    encoder,
    federation,
    glue,
    memory,
    mnist_net,
    regression,
)
from surefoot.study import Part, Study, StudyConfig


@dataclass(frozen=True)
class LoraConfig(StudyConfig):
    """The study of low-rank chains."""

    mnist: Path | None = None
    """A folder or file with MNIST for part mnist; by default it comes from a package."""
    encoder: Path | None = None
    """A model directory for parts encoder and glue; by default MiniLM, for part glue none."""
    texts: Path | None = None
    """Rated texts for part encoder; by default sentiment4 comes from a package."""
    labelled: Path | None = None
    """A folder of labelled texts with train and validation files for part glue, for instance RTE."""


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
            seeds={"quick": 3, "standard": 3, "paper": 10},
            extras=("llm",),
        ),
        Part(
            "divergence",
            "How often LoRA diverges there at step 1/L",
            counterexample.run_divergence,
            tables=counterexample.divergence_tables,
            sizes=("standard", "paper"),
            seeds={"quick": 5, "standard": 50, "paper": 50},
            extras=("llm",),
        ),
        Part(
            "ridge",
            "Ridge regression: speed is proportional to the rank",
            regression.run_ridge,
            regression.ridge_guarantees,
            tables=regression.ridge_tables,
            seeds={"quick": 30, "standard": 20, "paper": 40},
            extras=("llm",),
        ),
        Part(
            "noise",
            "Ridge regression with SGD and random reshuffling",
            regression.run_noise,
            regression.noise_guarantees,
            seeds={"quick": 24, "standard": 20, "paper": 40},
            extras=("llm",),
        ),
        Part(
            "digits",
            "Softmax regression on digits: one promise for equal rank times blocks",
            regression.run_digits,
            regression.digits_guarantees,
            tables=regression.digits_tables,
            seeds={"quick": 10, "standard": 6, "paper": 12},
            extras=("llm",),
        ),
        Part(
            "digits-net",
            "The network of Table 3, digits 0-4 to 5-9, nothing promised",
            digits_net.run,
            tables=digits_net.tables,
            seeds={"quick": 1, "standard": 5, "paper": 10},
            extras=("llm",),
        ),
        Part(
            "drift",
            "A hundred merges into 16-bit weights",
            drift.run,
            drift.guarantees,
            tables=drift.tables,
            seeds={"quick": 2, "standard": 5, "paper": 10},
            extras=("llm",),
        ),
        Part(
            "memory",
            "What each method keeps in memory",
            memory.run,
            tables=memory.tables,
            deterministic=True,
            extras=("llm",),
        ),
        Part(
            "mnist",
            "The network of Table 3 on MNIST, 0-4 to 5-9",
            mnist_net.run,
            tables=mnist_net.tables,
            sizes=("standard", "paper"),
            seeds={"quick": 1, "standard": 2, "paper": 5},
            extras=("llm",),
        ),
        Part(
            "federated",
            "Fed-RAC-LoRA on digits, two labels a client, beside the other averages",
            federation.run,
            federation.guarantees,
            tables=federation.tables,
            seeds={"quick": 4, "standard": 5, "paper": 10},
        ),
        Part(
            "encoder",
            "MiniLM on sentiment4 under Trainer: every method, equal tuning, equal steps",
            encoder.run,
            tables=encoder.tables,
            sizes=("standard", "paper"),
            seeds={"quick": 1, "standard": 3, "paper": 5},
            extras=("llm",),
        ),
        Part(
            "glue",
            "A whole encoder on labelled texts under Trainer, from your own folders",
            glue.run,
            tables=glue.tables,
            sizes=(),
            seeds={"quick": 1, "standard": 3, "paper": 5},
            extras=("llm",),
        ),
    ),
)
