"""Audits of a real Opacus engine, and of a language model on real sentences."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import torch

from surefoot.guarantee import Guarantee
from surefoot.privacy import audit
from surefoot.privacy.doors.opacus import from_opacus
from surefoot.privacy.experiments import language
from surefoot.privacy.experiments.opacus_engine import OpacusTraining
from surefoot.privacy.experiments.training import digits
from surefoot.privacy.facts import copy_facts
from surefoot.privacy.guarantee import heuristic_claim, proven_claim
from surefoot.record import Record

DELTA, CONFIDENCE = 1e-5, 0.95
BOUND, RAW = "calibrated score, distribution-free", "raw score, distribution-free"
SIGMA = 1.0
# Digits: 10 batches an epoch; MNIST: 50.
ENGINE = {"quick": (10, 10), "standard": (10, 10), "paper": (50, 4)}
ENGINE_SHADOW = {"quick": 2, "standard": 4, "paper": 8}
M, K = 4000, 160
NOISES = {"quick": (0.4,), "standard": (1.0, 0.4), "paper": (1.0, 0.4)}
TEXT_RATE, TEXT_STEPS = 0.1, 100
TEXT_M, TEXT_K = 400, 40
TEXT_SHADOW = {"quick": 2, "standard": 4, "paper": 8}


def images(config: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Digits; at size paper real MNIST."""
    if config.size != "paper":
        return digits()
    from surefoot import data

    mnist = data.load("mnist", path=config.mnist)
    train, test = torch.as_tensor(mnist.x_train), torch.as_tensor(mnist.x_test)
    labels = torch.as_tensor(mnist.y_train), torch.as_tensor(mnist.y_test)
    return train.flatten(1), labels[0], test.flatten(1), labels[1]


def engine_claim(config: Any) -> tuple[float, float, int]:
    """(sigma, q, T) of the training at this size."""
    batches, epochs = ENGINE[config.size]
    return SIGMA, 1 / batches, batches * epochs


def run_engine(config: Any, seed: int, record: Record) -> None:
    """PrivacyEngine with injected canaries, audited in one run, beside what Opacus itself accounts."""
    x, y, test_x, test_y = images(config)
    batches, epochs = ENGINE[config.size]
    training = OpacusTraining(x, y, M, SIGMA, -(-len(x) // batches), epochs)
    result = audit.one_run(
        training, m=M, k=K, delta=DELTA, confidence=CONFIDENCE,
        shadow=ENGINE_SHADOW[config.size], seed=seed,
        claimed=engine_claim(config),
    )  # fmt: skip
    report = from_opacus(training.accountants[0], DELTA, sampling="poisson")
    assert report.standard is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = training.accountants[0].get_epsilon(DELTA)
    copy_facts(result.record, record, seed)
    record.append(seed, 0, **{BOUND: result.bounds["one_run"], RAW: result.raw["one_run"]})
    record.append(seed, 0, **{"Opacus' own epsilon": theirs})
    record.append(seed, 0, **{"proven epsilon": report.standard.value})
    record.append(seed, 0, **{"test accuracy": training.accuracy(test_x, test_y)})


def engine_guarantees(config: Any) -> list[Guarantee]:
    """Both claims, and that two accountants agree to Opacus' own error."""
    return [
        proven_claim(BOUND),
        heuristic_claim(BOUND),
        Guarantee(
            name="Opacus and the proven value agree",
            statement="|epsilon_PRV - epsilon_PLD| <= 0.011, the error that Opacus allows itself",
            source="Opacus' PRV accountant (eps_error = 0.01), discretised privacy loss",
            quantity="Opacus' own epsilon",
            sense="equal",
            holds_in="every run",
            bound=lambda record: record.curves("proven epsilon").values,
            atol=0.011,
        ),
    ]


def noise_column(sigma: float, which: str) -> str:
    """The record's name for a bound of the language model."""
    return f"{arm(sigma)}, {which}"


def arm(sigma: float) -> str:
    """Whose facts they are."""
    return f"sigma {sigma:g}"


def engine_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean over seeds."""
    row = {name: record.constant(name).mean() for name in record.quantities}
    return {f"epsilon at delta {DELTA:g}, and accuracy": pd.DataFrame([row])}


def run_text(config: Any, seed: int, record: Record) -> None:
    """Random byte strings among real sentences: input-space canaries, seen far less than the heuristic."""
    start = language.initial(seed)
    ids = language.canaries(TEXT_M, seed)
    for sigma in NOISES[config.size]:
        train = language.Trainer(language.Training(sigma, TEXT_RATE, TEXT_STEPS), start, ids)
        with warnings.catch_warnings():
            # That shadow scores hardly agree here is part of the result.
            warnings.simplefilter("ignore", audit.CalibrationWarning)
            result = audit.one_run(
                train, m=TEXT_M, k=TEXT_K, delta=DELTA, confidence=CONFIDENCE,
                shadow=TEXT_SHADOW[config.size], seed=seed, claimed=(sigma, TEXT_RATE, TEXT_STEPS),
            )  # fmt: skip
        copy_facts(result.record, record, seed, arm(sigma))
        record.append(seed, 0, **{noise_column(sigma, BOUND): result.bounds["one_run"]})
        record.append(seed, 0, **{noise_column(sigma, RAW): result.raw["one_run"]})
        loss = -float(language.scores(train.ends[0], language.pieces()).mean())
        record.append(seed, 0, **{noise_column(sigma, "training loss"): loss})


# At this noise neither claim says anything: epsilon 22 and 53.
VACUOUS = f"{noise_column(0.4, BOUND)} <= proven"
WEAK = f"{noise_column(0.4, BOUND)} <= heuristic"


def text_guarantees(config: Any) -> list[Guarantee]:
    """Both claims for each noise; at sigma 0.4 the proven value is above 20 and says nothing."""
    found = []
    for sigma in NOISES[config.size]:
        column = noise_column(sigma, BOUND)
        found += [proven_claim(column, of=arm(sigma)), heuristic_claim(column, of=arm(sigma))]
    return found


def text_tables(config: Any, record: Record) -> dict[str, pd.DataFrame]:
    """Mean bounds over seeds."""
    rows = [
        {
            "sigma": sigma,
            "training loss": record.constant(noise_column(sigma, "training loss")).mean(),
            RAW: record.constant(noise_column(sigma, RAW)).mean(),
            BOUND: record.constant(noise_column(sigma, BOUND)).mean(),
        }
        for sigma in NOISES[config.size]
    ]
    return {f"lower bounds on epsilon at delta {DELTA:g}": pd.DataFrame(rows)}
