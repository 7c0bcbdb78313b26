"""What cannot be combined with a private release: each is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from surefoot._numerics.checks import check_numbers
from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order.private import Privacy


def check_private(settings: Settings, look: bool, processes: int) -> None:
    """Refuse settings under which more than the released scalars would depend on the data.

    Parameters
    ----------
    settings
        Of the optimizer, resolved.
    look
        Whether the first step should look at the loss.
    processes
        How many of them average c.

    Raises
    ------
    ValueError
        Naming the first.
    """
    if settings.normalize:
        raise ValueError(
            "normalize must be False with privacy: it divides by the losses' spread, which nothing clips"
        )
    if settings.c_clip is not None:
        raise ValueError(
            "c_clip must be None with privacy: it bounds the mean, which one example may set; Privacy(clip=) "
            "bounds each example"
        )
    if settings.mode != "factored":
        raise ValueError(
            "privacy needs mode 'factored', and so the model: in place, the rounding of every perturbation "
            "stays in the weights, and how often they were perturbed depends on the batch"
        )
    if look:
        raise ValueError(
            "self_check must not be True with privacy: it looks at the loss of the first batch; call "
            "check_hooks with a batch that is made up"
        )
    if processes > 1:
        raise ValueError(
            f"privacy needs one process, got {processes}: each would add its own noise; for several sites "
            "sum what contribution() gives"
        )


def check_estimate(weight: float | None, paired: bool | str) -> None:
    """Refuse what an estimate of examples has no meaning for.

    Raises
    ------
    ValueError
        A weight, or one forward for all copies.
    """
    if weight is not None:
        raise ValueError(
            f"weight must be None with privacy, got {weight}: every example counts 1, clipped on its own"
        )
    if paired is True:
        raise ValueError(
            "paired must not be True with privacy: whether copies may share a forward is found out on the "
            "batch at hand, and would tell of it"
        )


def no_privacy(privacy: Privacy | None, name: str) -> None:
    """Refuse a measurement whose result no noise covers.

    Raises
    ------
    ValueError
        With privacy.
    """
    if privacy is not None:
        raise ValueError(
            f"{name} must not be called with privacy: it is a query of the data without noise; measure it in "
            "a run without privacy, on public data"
        )


def scalars_given(scalars: Any, directions: int) -> Float[np.ndarray, " directions"]:
    """c of each direction, as somebody else gives it.

    Raises
    ------
    ValueError
        If they are not finite numbers, one a direction.
    """
    found = np.atleast_1d(check_numbers("scalars", scalars))
    if found.shape != (directions,):
        raise ValueError(
            f"scalars must hold one number a direction, {directions} of them, got shape {found.shape}"
        )
    return found
