"""What a fine-tuning leaves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot._showing import showing
from surefoot.certificate import Certificate


@showing
@dataclass(frozen=True)
class FinetuneResult:
    """What was trained, and how good it is.

    Attributes
    ----------
    folder
        All that was written.
    saved
        The model or adapter in it.
    method
        What ran.
    lr
        Its learning rate.
    steps
        How many were made.
    batch
        Texts in each.
    best_step
        After which the saved weights were taken.
    tried
        Learning rates that were tried, with their held-out losses; None: it diverged.
    before
        Loss, and accuracy or perplexity, of the validation texts before training.
    validation
        The same of the saved weights.
    test
        The same on the test texts.
    sizes
        Texts in each part.
    majority
        Accuracy on the test texts of whoever always says the most frequent class; None: there are no classes.
    interval
        Clopper and Pearson's 95 % limits of the test accuracy.
    page
        The report.
    certificates
        What was promised, beside what was measured.
    """

    folder: Path
    saved: Path
    method: str
    lr: float
    steps: int
    batch: int
    best_step: int
    tried: dict[str, float | None]
    before: dict[str, float]
    validation: dict[str, float]
    test: dict[str, float]
    sizes: dict[str, int]
    majority: float | None
    interval: tuple[float, float] | None
    page: Path
    certificates: list[Certificate] = field(default_factory=list)

    @property
    def gained(self) -> bool:
        """Whether the validation loss is below that before training."""
        return self.validation["loss"] < self.before["loss"]

    @property
    def private(self) -> bool:
        """Whether the training texts are promised an epsilon."""
        return any(c.details.get("claim") == "P" for c in self.certificates)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "certificates"
        }
        paths = {k: str(v) for k, v in found.items() if isinstance(v, Path)}
        told = [c.to_dict() for c in self.certificates]
        found["gained"] = self.gained
        return found | paths | {"interval": _listed(self.interval), "certificates": told}

    def __str__(self) -> str:
        lines = [
            f"{self.method} at rate {self.lr:.3g}, {self.steps} steps of {self.batch} texts; "
            + ("the last step is kept" if self.private else f"best after step {self.best_step}"),
            f"validation loss {self.before['loss']:.4f} before, {self.validation['loss']:.4f} after"
            + ("" if self.gained else ": nothing was gained, the model as it was is better"),
        ]
        if "accuracy" in self.test:
            assert self.interval is not None
            lines.append(
                f"test accuracy {self.test['accuracy']:.3f} (95 % limits {self.interval[0]:.3f} to "
                f"{self.interval[1]:.3f}) on {self.sizes['test']} texts; always the most frequent class: "
                f"{self.majority:.3f}"
            )
        elif self.test:
            lines.append(
                f"test perplexity {self.test['perplexity']:.3f} on {self.sizes['test']} texts"
            )
        lines += [f"{c.verdict}: {c.name}: {c.reason}{of_epsilon(c)}" for c in self.certificates]
        return "\n".join([*lines, f"saved: {self.saved}", f"report: {self.page}"])


def of_epsilon(certificate: Certificate) -> str:
    """What a claim on privacy is about, in numbers; nothing of other claims."""
    found = certificate.details
    if "epsilon" not in found:
        return ""
    return f" (epsilon {found['epsilon']:.4g} at delta {found['delta']:g} for each training text)"


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [float(v) for v in interval]
