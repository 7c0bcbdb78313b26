"""`WatchCallback`: a training of transformers' Trainer, recorded."""

from __future__ import annotations

from typing import Any

from surefoot._numerics.arguments import checked
from surefoot.callbacks.watching import Watching
from surefoot.errors import need

with need("transformers", extra="llm", part="surefoot.callbacks.WatchCallback"):
    from transformers import TrainerCallback


@checked
class WatchCallback(Watching, TrainerCallback):
    """Records what a Trainer says, and probes, at each of its optimizer's steps.

    ```python
    watching = WatchCallback(probes=("gradient_norm",), every=10)
    Trainer(model=model, args=arguments, ..., callbacks=[watching]).train()
    watching.certify(my_guarantee)
    ```

    The loss is recorded as "loss" with `logging_steps=1`, as "mean loss" otherwise: it is then the mean over
    the steps since the one before. Evaluations are recorded under the Trainer's names. A training that
    resumes is recorded from its step on.

    Parameters
    ----------
    probes, every, seed, folder, checkpoint, objective, f_star, anchor, overhead
        As for `surefoot.watch`.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Watch the model and optimizer that the Trainer trains."""
        self.begin(given["model"], given["optimizer"], state.global_step)
        self.watch.record.note(self.watch.seed, trainer="transformers.Trainer")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Record what is logged at the step that was taken last."""
        if self._watch is None or not state.global_step:
            return
        found = {}
        for name, value in (logs or {}).items():
            if name == "loss":
                each = args.logging_strategy == "steps" and state.logging_steps == 1
                found["loss" if each else "mean loss"] = value
            elif name.startswith("eval_") and isinstance(value, (int, float)):
                found[name] = value
        if found:
            self.watch.log(state.global_step - 1, **found)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check the last values."""
        self.end()
