"""What is promised of the file itself: that it holds the model that was measured."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from surefoot.certificate import Certificate, certify
from surefoot.guarantee import Guarantee
from surefoot.record import Record

SEEN, AGAIN = "validation loss at the best look", "validation loss of the saved file"
# Adapters are added in another order than they were trained in.
TOLERANCE = 1e-4


def saved_is_measured(record: Record) -> Certificate:
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
    )
