"""The worst case, measured: an attacker who knows all records but one, and its two candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import beta

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.prototypes.certificates import of_upload
from surefoot.prototypes.extraction import extract_prototypes
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.guarantee import ADVANTAGE
from surefoot.record import Record


@showing
@checked(nan=True)
@dataclass(frozen=True)
class AdvantageReport:
    """The best attack's advantage TPR - FPR.

    Attributes
    ----------
    measured
        Over the trials.
    standard_error
        Of it.
    lower
        One-sided limit at the confidence, exact for both rates.
    promised
        2 Phi(1/(2 nu)) - 1, which the worst case reaches.
    promised_of_any
        The looser bound of any (epsilon, delta) mechanism.
    record
        What ran.
    """

    measured: float
    standard_error: float
    lower: float
    promised: float
    promised_of_any: float
    record: Record = field(repr=False)

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """G2 and G3 of the attacked release."""
        return of_upload(self.record, confidence)


@checked
def measure_advantage(
    release: GaussianRelease,
    n: int = 2,
    trials: int = 10_000,
    method: str = "mean",
    *,
    confidence: float = 0.99,
    seed: int = 0,
) -> AdvantageReport:
    """Attack real extractions in the worst case: one record of n is C e or -C e, the others are known.

    Each trial is one class of a real `extract_prototypes`; the attack is Neyman and Pearson's, which no
    other one beats.

    Parameters
    ----------
    release
        What is attacked.
    n
        Records of a class.
    trials
        Extractions with C e, and as many with -C e.
    method
        "mean", or "gauss", of which the means are attacked.
    confidence
        Of the lower limit.
    seed
        Under which the record has it; the noise has none.

    Raises
    ------
    ValueError
        A number outside its range, or another method.
    """
    n = check_number("n", n, least=1, whole=True)
    trials = check_number("trials", trials, least=1, whole=True)
    check_choice("method", method, ("mean", "gauss"))
    check_number("confidence", confidence, above=0, below=1)
    accused, record = [], Record()
    for sign in (1.0, -1.0):
        z = np.zeros((trials, n, 2))
        z[:, 0, 0] = sign * release.clip
        y = np.repeat(np.arange(trials), n)
        protos = extract_prototypes(z.reshape(-1, 2), y, method=method, dp=release)
        accused.append(int((protos.features[:, 0] > 0).sum()))
        for name, known in protos.record.facts.items():
            for value in known.all:
                record.note(seed, **{name: value})
    tpr, fpr = (a / trials for a in accused)
    variance = (tpr * (1 - tpr) + fpr * (1 - fpr)) / trials
    error = (1 - confidence) / 2
    hits, alarms = accused
    low = float(beta.ppf(error, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - error, alarms + 1, trials - alarms)) if alarms < trials else 1.0
    noise = protos.record.curves("noise multiplier").values.min()
    record.append(
        seed,
        0,
        **{ADVANTAGE: max(low - high, 0.0), "advantage": tpr - fpr, "noise multiplier": noise},
    )
    record.note(seed, confidence=confidence, trials=trials)
    return AdvantageReport(
        tpr - fpr,
        math.sqrt(variance),
        low - high,
        release.advantage,
        release.advantage_of_any,
        record,
    )
