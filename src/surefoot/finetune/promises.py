"""What is promised of a fine-tuning: of its method, and of the file, that it holds what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

import surefoot
from surefoot.certificate import Certificate, certify
from surefoot.guarantee import Guarantee
from surefoot.record import Record

SEEN, AGAIN = "validation loss at the best look", "validation loss of the saved file"
# Adapters are added in another order than they were trained in.
TOLERANCE = 1e-4


def certificates(
    record: Record, config: Mapping[str, Any], confidence: float = 0.99
) -> list[Certificate]:
    """Everything that the record of a fine-tuning bears, at its end and whenever it is verified.

    Parameters
    ----------
    record
        What the method, the looks and the saved file left.
    config
        As `FinetuneConfig.to_dict` has it: of a private one the delta.
    confidence
        As in `surefoot.certify`.
    """
    promised = surefoot.certificates(record, delta=config.get("delta"))
    return [*promised, saved_is_measured(record, confidence)]


def saved_is_measured(record: Record, confidence: float = 0.99) -> Certificate:
    """Whether what was saved, loaded as anybody would, has the loss for which it was chosen."""

    def bound(record: Record) -> Float[np.ndarray, "seeds steps"]:
        return record[SEEN] * (1 + TOLERANCE)

    return certify(
        record,
        Guarantee(
            name="the saved file is the model that was measured",
            statement="loss of the saved file <= (1 + 1e-4) loss at the best look",
            latex=r"\ell(\text{saved file}) \le (1 + 10^{-4})\, \ell(\text{best look})",
            source="surefoot.finetune",
            quantity=AGAIN,
            sense="upper",
            holds_in="every run",
            heuristic=False,
            bound=bound,
            assumptions=lambda record: (),
        ),
        confidence,
    )
