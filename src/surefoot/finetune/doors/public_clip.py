"""What |c| of a text is like at the start, found on sentences that are nobody's."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from surefoot.finetune.doors.tasks import Task
from surefoot.finetune.doors.training import forward_only
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.plan import Plan
from surefoot.finetune.texts import Texts
from surefoot.zeroth_order import Privacy

SENTENCES = (
    "The room was clean.",
    "Nobody answered the telephone, so we left a note at the door and went home.",
    "It costs more than it is worth.",
    "A long table stood under the window, and on it lay the letters that had come during the week.",
    "I would buy it again.",
    "They changed the plan twice, and in the end it was the first one that was carried out after all.",
    "Please send the papers before Friday.",
    "The soup was cold, but the waiter was kind and brought another at once.",
    "Prices rose.",
    "Half of the seats were empty when the music began.",
    "She could not find the key where she had left it.",
    "We waited for an hour and saw three of the four parts.",
)
SHARE, DIRECTIONS = 0.8, 8


def clip_on_public(model: Any, task: Task, plan: Plan) -> float:
    """The 80 % quantile of |c| over a dozen made-up sentences and a few directions.

    Private texts have no part in it, so that it costs no privacy.

    Parameters
    ----------
    model
        As it was opened; it is given up afterwards.
    task
        Encodes the sentences; labels go round among the classes.
    plan
        Of a forward-only method.

    Raises
    ------
    FinetuneError
        The model takes none of the sentences.
    """
    rows: list[Any] = []
    for i, sentence in enumerate(SENTENCES):
        label = (i % len(task.classes),) if task.classes else None
        # One that is longer than the model takes is left out.
        with contextlib.suppress(FinetuneError):
            rows += task.encoded(Texts((sentence,), label, task.classes))
    if not rows:
        raise FinetuneError("--clip must be given: the model takes none of the made-up sentences")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = {k: v.to(device) for k, v in task.collate(rows).items()}
    kind, options = forward_only(plan, None)
    # Neither clip nor noise: what is measured is to become the clip.
    measured = Privacy(0.0, float("inf"), 1.0, len(rows))
    optimizer = kind(
        model.to(device).eval(), 0.0, privacy=measured, mode="factored",
        **options | {"num_directions": DIRECTIONS},
    )  # fmt: skip
    each = optimizer.per_example(lambda given: task.losses(model, given), batch)
    return float(each.abs().flatten().quantile(SHARE))
