"""Measure one step of one method in this process: `python -m surefoot.finetune.measuring`, told by JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

from surefoot.errors import SurefootError
from surefoot.finetune.choosing import EVALUATION
from surefoot.finetune.config import FinetuneConfig
from surefoot.finetune.memory import peak
from surefoot.finetune.models import find_model
from surefoot.finetune.plan import plan_for
from surefoot.finetune.texts import read_texts

STEPS = 3


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """The peak of the process, and the seconds of the last of a few steps on the longest batch."""
    config = FinetuneConfig(**given["config"])
    method, quantised = str(given["method"]), bool(given["quantised"])
    source = find_model(config.model)
    texts = read_texts(config.data, config.text, config.label).split(
        config.validation, config.test, config.seed
    )
    from surefoot.finetune.doors.opening import Opener, task_for

    task = task_for(source, texts, config.prompt, config.max_length)
    opener = Opener(source, task, config.seed, fitted=False)
    plan = plan_for(
        config, "full" if method == EVALUATION else method, len(texts["train"]), quantised=quantised
    )
    # Validation texts are looked at with the same number in a forward.
    rows = sorted(task.examples["train"], key=lambda row: len(row["input_ids"]))[-plan.batch :]
    task.examples["longest"] = rows
    model = opener.open(quantised=quantised)
    seconds = time.monotonic()
    task.measure(model, "longest", plan.batch)
    seconds = time.monotonic() - seconds
    if method != EVALUATION:
        from surefoot.finetune.doors.training import Training

        plan = replace(plan, steps=STEPS, every=0)
        training = Training(plan, 1e-9, model, task, None, rows=rows)
        seconds = training.seconds_of_last_step()
    return {"peak": peak(), "seconds": seconds}


if __name__ == "__main__":
    try:
        print(json.dumps(measured(json.loads(sys.stdin.read()))))
    except SurefootError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
