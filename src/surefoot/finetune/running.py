"""From a model and a file of texts to a tuned model, its test, its certificates and its page."""

from __future__ import annotations

import dataclasses
import math
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from surefoot._numerics.arguments import checked
from surefoot._run.files import sha256_of
from surefoot.finetune import choosing, rates
from surefoot.finetune.config import FinetuneConfig
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.looks import Looks
from surefoot.finetune.models import Source, find_model
from surefoot.finetune.place import Place
from surefoot.finetune.plan import Plan, plan_for
from surefoot.finetune.private import RATES, Mechanism, check_together, mechanism_for
from surefoot.finetune.processes import processes, rank, wait
from surefoot.finetune.promises import AGAIN, SEEN, certificates
from surefoot.finetune.result import FinetuneResult
from surefoot.finetune.texts import Texts, read_texts
from surefoot.record import Record

Say = Callable[[str], None]
# Of the training texts, what a rate is judged by.
HELD_OUT = 0.2
# As often as a rate is tried, a part of the steps; looked at once, at its end.
ONCE = 10**9


def _silent(line: str) -> None:
    pass


@checked
def finetune(config: FinetuneConfig, say: Say = _silent) -> FinetuneResult:
    """Fine-tune a model, or go on where the same call was interrupted.

    Parameters
    ----------
    config
        What, on what, and how.
    say
        Told a line at a time what is done.

    Returns
    -------
    What was saved and how good it is. The folder holds `model` or `adapter`, `result.json`, the report, and
    of a forward-only method `steps.zo`, from which `surefoot zo replay` makes the weights again.

    Raises
    ------
    FinetuneError
        The file, the model or the options allow no training; nothing was written.
    surefoot.errors.MissingExtraError
        Without the extra `llm`.
    surefoot.errors.NonFiniteError
        The loss is not finite.
    """
    check_together(config, processes())
    _check_processes(config)
    place = Place(config.folder)
    done = place.finished(config)
    if done is not None:
        say(f"{config.out} is finished; nothing is left to do")
        return done
    source = find_model(config.model)
    texts = read_texts(config.file, config.text, config.label)
    parts = texts.split(config.validation, config.test, config.seed)
    say(_read_line(config, parts))
    from surefoot.finetune.doors.opening import Opener, task_for

    task = task_for(source, parts, config.prompt, config.max_length)
    choosing.candidates(config, source)
    # A head that was fitted to the training texts would tell of them.
    opener = Opener(source, task, config.seed, fitted=config.private is None)
    with place.held():
        return _Run(config, place, source, opener, parts, say).whole()


def _check_processes(config: FinetuneConfig) -> None:
    count = processes()
    if count == 1:
        return
    for name in ("method", "lr"):
        if getattr(config, name) is None:
            raise FinetuneError(
                f"--{name} must be given where there are {count} processes: what it would be is found by one"
            )
    if config.max_memory is not None:
        raise FinetuneError(f"--max-memory is measured by one process, and there are {count}")
    if config.batch % count:
        raise FinetuneError(
            f"--batch must be a multiple of the {count} processes, got {config.batch}"
        )


def _read_line(config: FinetuneConfig, parts: dict[str, Texts]) -> str:
    sizes = ", ".join(f"{len(part)} for {name}" for name, part in parts.items())
    classes = parts["train"].classes
    what = f"{len(classes)} classes" if classes else "no labels"
    both = sum(part.contradictions for part in parts.values())
    if both:
        what += f"; {both} texts occur with different labels"
    return f"{config.data}: {sizes}; {what}"


class _Run:
    """One fine-tuning, step by step; each step that ended is found again."""

    def __init__(
        self, config: FinetuneConfig, place: Place, source: Source, opener: Any,
        parts: dict[str, Texts], say: Say,
    ) -> None:  # fmt: skip
        self.config, self.place, self.source, self.opener = config, place, source, opener
        self.parts, self.say, self.task = parts, say, opener.task
        self.began = time.monotonic()
        self.mechanism: Mechanism | None = None

    def whole(self) -> FinetuneResult:
        chosen = self.place.known("method.json") or self._method()
        plan = plan_for(
            self.config, chosen["method"], len(self.parts["train"]), quantised=chosen["quantised"]
        )
        if plan.batch < self.config.batch:
            self.say(f"all {plan.batch} training texts are in every step: there are no more")
        if self.config.private is not None:
            # Before anything is written: an epsilon may be out of reach.
            self.mechanism = mechanism_for(self.config, plan, len(self.parts["train"]))
        before = self.place.known("before.json")
        if before is None:
            # Nothing is written before the model was opened.
            before = self._before(plan)
            self.place.begin(self.config)
            self.place.keep("method.json", chosen)
            self.place.keep("before.json", before)
        if self.config.private is None:
            lr, tried = self._rate(plan)
            looks, losses, own = self._train(plan, lr, before)
        else:
            lr, tried = self.config.lr or RATES[plan.method], {}
            looks, losses, own = self._train_privately(plan, lr)
        wait()
        if rank() == 0:
            result = self._conclude(plan, lr, tried, before, looks, losses, own)
        wait()
        if rank() > 0:
            found = self.place.finished(self.config)
            assert found is not None
            result = found
        return result

    def _method(self) -> dict[str, Any]:
        config = self.config
        method, quantised, why = str(config.method), bool(config.quantised), ""
        if config.method is None or config.max_memory is not None:
            self.say("a step of each method is measured")
            choice = choosing.choose(config, self.source, self.say)
            method, quantised, why = choice.taken.method, choice.taken.quantised, choice.why
            self.say(why)
        return {"method": method, "quantised": quantised, "why": why}

    def _rate(self, plan: Plan) -> tuple[float, dict[str, float | None]]:
        if self.config.lr is not None:
            return self.config.lr, {}
        known = {float(k): v for k, v in (self.place.known("rates.json") or {}).items()}
        known = {k: math.inf if v is None else v for k, v in known.items()}
        inside = self.parts["train"].split(HELD_OUT, 0, self.config.seed)
        short = dataclasses.replace(
            plan, steps=rates.steps_of(plan.steps), every=ONCE, constant=True
        )
        rows, at = self.task.examples["train"], dict[str, int]()
        for i, text in enumerate(self.parts["train"].texts):
            at[text] = i
        some = [rows[at[text]] for text in inside["train"].texts]
        self.task.examples["held out"] = [rows[at[text]] for text in inside["validation"].texts]
        # Its head knows nothing of what it is judged by.
        opener = dataclasses.replace(self.opener, rows=some)
        grid = rates.GRIDS[plan.method]
        if len(known) < len(grid):
            self.say(
                f"learning rates are tried for {short.steps} steps each on {len(some)} of the training "
                f"texts, and judged on the other {len(inside['validation'])}"
            )

        def attempt(rate: float) -> float:
            found = self._attempt(short, rate, opener, some)
            known[rate] = found
            kept = {repr(k): v if math.isfinite(v) else None for k, v in known.items()}
            self.place.keep("rates.json", kept)
            self.say(f"rate {rate:.0e}: held-out loss {found:.4f}")
            return found

        try:
            lr = rates.choose(grid, attempt, known)
        except ValueError as error:
            raise FinetuneError(f"{error}: {', '.join(map(str, known))} were tried") from error
        return lr, {f"{k:g}": v if math.isfinite(v) else None for k, v in sorted(known.items())}

    def _attempt(self, short: Plan, rate: float, opener: Any, rows: list[Any]) -> float:
        """The held-out loss after a short training at a rate."""
        from surefoot.errors import NonFiniteError
        from surefoot.finetune.doors.training import Training

        plan = dataclasses.replace(short, batch=min(short.batch, len(rows)))
        model = opener.open(quantised=plan.quantised)
        with tempfile.TemporaryDirectory() as folder:
            training = Training(plan, rate, model, self.task, Path(folder), kept=False, rows=rows)
            try:
                training.run()
            except NonFiniteError:
                return math.inf
        loss = float(self.task.measure(training.model, "held out", self.config.batch)["loss"])
        return loss if math.isfinite(loss) else math.inf

    def _before(self, plan: Plan) -> dict[str, float]:
        from surefoot.finetune.doors.training import on_device

        model = on_device(self.opener.open(quantised=plan.quantised))
        found: dict[str, float] = self.task.measure(model, "validation", self.config.batch)
        self.say(f"before training: validation {_spoken(found)}")
        return found

    def _train(self, plan: Plan, lr: float, before: dict[str, float]) -> Any:
        from surefoot.finetune.doors.looking import Looking
        from surefoot.finetune.doors.training import Training

        self.say(f"{plan.method}: {plan.steps} steps of {plan.batch} texts at rate {lr:.3g}")
        state = self.place.state
        record = Record()
        looking = Looking(
            self.task, Looks(state / "looks.json", self.config.patience), before["loss"], plan.every,
            self.config.batch, state, lambda folder: training.save(folder), self.say,
        )  # fmt: skip
        training = Training(
            plan, lr, self.opener.open(quantised=plan.quantised), self.task, state / "checkpoints",
            # Of an encoder nobody else has the base: its head was fitted here.
            log=self.place.log if self.source.kind == "language model" else None,
            callbacks=[looking],
        )  # fmt: skip
        looking.looks = Looks.at(state / "looks.json", self.config.patience, training.step)
        if not looking.looks.enough:
            if training.step:
                self.say(f"going on after step {training.step}")
            training.run()
        for step, (loss, rate) in training.losses.items():
            record.update(plan.seed, step, {"training loss": loss, "learning rate": rate})
        return looking.looks, record, training.record

    def _train_privately(self, plan: Plan, lr: float) -> Any:
        """To the last step, whose weights are taken: nothing is chosen by what texts say."""
        from surefoot.finetune.doors.private_training import PrivateTraining

        mechanism = self.mechanism
        assert mechanism is not None
        if plan.forward_only and self.config.clip is None:
            mechanism = dataclasses.replace(mechanism, clip=self._clip(plan))
        self.say(mechanism.line(plan.steps))
        self.say(f"{plan.method}: {plan.steps} steps of about {plan.batch} texts at rate {lr:.3g}")
        state = self.place.state
        training = PrivateTraining(
            plan, mechanism, lr, self.opener.open(quantised=plan.quantised), self.task, state,
            log=self.place.log if self.source.kind == "language model" else None, say=self.say,
        )  # fmt: skip
        training.run()
        looks = Looks(None, self.config.patience)
        looks.add(plan.steps, **self.task.measure(training.model, "validation", self.config.batch))
        training.save(state / f"best-{plan.steps}")
        return looks, Record(), training.record

    def _clip(self, plan: Plan) -> float:
        """What most of some made-up sentences are within; the same where a killed run goes on."""
        from surefoot.finetune.doors.public_clip import clip_on_public

        found = self.place.known("clip.json")
        if found is None:
            model = self.opener.open(quantised=plan.quantised)
            found = float(f"{clip_on_public(model, self.task, plan):.3g}")
            self.place.keep("clip.json", found)
        return float(found)

    def _conclude(
        self, plan: Plan, lr: float, tried: dict[str, float | None], before: dict[str, float],
        looks: Looks, record: Record, own: Record | None,
    ) -> FinetuneResult:  # fmt: skip
        from surefoot.finetune.doors.opening import reopened
        from surefoot.finetune.doors.training import on_device

        best = looks.best
        assert best is not None
        folder = self.place.state / f"best-{best['step']}"
        kind = "adapter" if (folder / "adapter_config.json").is_file() else "model"
        model = on_device(reopened(self.opener, folder, quantised=plan.quantised))
        validation = self.task.measure(model, "validation", self.config.batch)
        test = self.task.measure(model, "test", self.config.batch) if self.config.test else {}
        for look in looks.all:
            values = {f"validation {k}": v for k, v in look.items() if k != "step"}
            record.update(plan.seed, look["step"], values)
        record.update(plan.seed, best["step"], {SEEN: best["loss"], AGAIN: validation["loss"]})
        steps = plan.steps
        if self.config.private is None:
            steps = max((int(s) for s in record.curves("training loss").steps), default=0)
        if own is not None:
            record = Record.concat([record, own])
        promised = certificates(record, self.config.to_dict())
        saved = self.place.take(folder, kind)
        result = FinetuneResult(
            folder=self.config.folder, saved=saved, method=plan.method, lr=lr, steps=steps,
            batch=plan.batch, best_step=int(best["step"]), tried=tried, before=before,
            validation=validation, test=test,
            sizes={name: len(part) for name, part in self.parts.items()},
            majority=self._majority(), interval=_interval(test, len(self.parts["test"])),
            page=self.config.folder / "report" / "index.html", certificates=promised,
        )  # fmt: skip
        result = dataclasses.replace(result, page=self._report(plan, result, record))
        self.place.describe(self.config, result, self.source, plan, self.parts["train"].classes)
        self.place.finish(result)
        return result

    def _majority(self) -> float | None:
        labels = self.parts["test"].labels
        train = self.parts["train"].labels
        if not labels or not train:
            return None
        usual = Counter(train).most_common(1)[0][0]
        return sum(label == usual for label in labels) / len(labels)

    def _report(self, plan: Plan, result: FinetuneResult, record: Record) -> Path:
        from surefoot._run.single import curve_figure, write_single
        from surefoot.report import write_run_page, write_site

        config = self.config
        words = ["surefoot", "finetune", config.model, str(config.data)]
        for f in dataclasses.fields(config):
            value = getattr(config, f.name)
            if f.name not in ("model", "data") and value != f.default:
                words += [f"--{f.name.replace('_', '-')}", str(value)]
        root = config.folder / "report"
        shutil.rmtree(root, ignore_errors=True)
        folder = write_single(
            root, "finetune", title=f"Fine-tuning {self.source.name} by {plan.method}",
            paper=f"{config.data}, {result.sizes['train']} texts to train on",
            part="training", about="What was trained, and what was promised of it", record=record,
            certificates=result.certificates, tables=_tables(result),
            # Not on one axis: of prompts the one is over all tokens, the other among the labels.
            figures={
                k: curve_figure(record, k)
                for k in ("training loss", "validation loss")
                if k in record and self.config.private is None
            },
            config=config.to_dict(),
            command=shlex.join(words), seconds=time.monotonic() - self.began,
            read={f"--data {config.data}": sha256_of(config.file)},
        )  # fmt: skip
        write_run_page(folder)
        write_site(root)
        return folder.path / "index.html"


def _tables(result: FinetuneResult) -> dict[str, pd.DataFrame]:
    measures = list(result.validation)
    rows = [
        {"texts": name, "number": result.sizes[of], **{k: found.get(k) for k in measures}}
        for name, of, found in (
            ("validation, before", "validation", result.before),
            ("validation, saved", "validation", result.validation),
            ("test, saved", "test", result.test),
        )
        if found
    ]
    found = {"before and after": pd.DataFrame(rows)}
    if result.tried:
        tried = [{"learning rate": k, "held-out loss": v} for k, v in result.tried.items()]
        found["learning rates that were tried"] = pd.DataFrame(tried)
    return found


def _interval(test: dict[str, float], count: int) -> tuple[float, float] | None:
    if "accuracy" not in test:
        return None
    from scipy.stats import binomtest

    found = binomtest(round(test["accuracy"] * count), count).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def _spoken(found: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.4f}" for k, v in found.items())
