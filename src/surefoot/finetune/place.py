"""The folder of a fine-tuning: whose it is, what has ended, what is found again."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from surefoot._run.files import read_json, sha256_of, write_json, write_text
from surefoot.certificate import Certificate
from surefoot.errors import FileFormatError
from surefoot.finetune.config import FinetuneConfig
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.models import Source
from surefoot.finetune.plan import Plan
from surefoot.finetune.processes import rank
from surefoot.finetune.result import FinetuneResult, of_epsilon

ASKED, RESULT, LOG = "finetune.json", "result.json", "steps.zo"
FORMAT = 1


class Place:
    """A folder that belongs to one fine-tuning.

    Parameters
    ----------
    folder
        New or empty, or that of the same fine-tuning.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / LOG

    def finished(self, config: FinetuneConfig) -> FinetuneResult | None:
        """What it came to; None: it has not ended.

        Raises
        ------
        FinetuneError
            The folder belongs to something else, or to a fine-tuning with other options.
        """
        if not self.folder.exists():
            return None
        if not self.folder.is_dir():
            raise FinetuneError(f"--out {self.folder} is a file")
        if not (self.folder / ASKED).is_file():
            # Of several processes the first looks, and is at work here when the others come.
            if rank() == 0 and any(self.folder.iterdir()):
                raise FinetuneError(
                    f"--out {self.folder} is not empty and was not made by a fine-tuning: name a new folder"
                )
            return None
        stored = read_json(self.folder / ASKED)
        tables = [stored.get(k) for k in ("config", "read")] if isinstance(stored, dict) else [None]
        if not all(isinstance(table, dict) for table in tables) or stored.get("format") != FORMAT:
            raise FileFormatError(f"{self.folder / ASKED} is not what this version writes")
        asked = _asked(config)
        differ = [k for k in asked if stored["config"].get(k) != asked[k]]
        if differ:
            said = ", ".join(
                f"--{k.replace('_', '-')} {stored['config'].get(k)!r}, not {asked[k]!r}"
                for k in differ
            )
            raise FinetuneError(
                f"--out {self.folder} belongs to a fine-tuning with {said}: name a new folder"
            )
        was = stored["read"].get("data")
        if config.file.is_file() and was != sha256_of(config.file):
            raise FinetuneError(
                f"{config.data} is another file than the one that --out {self.folder} began with: name a "
                "new folder"
            )
        if not (self.folder / RESULT).is_file():
            return None
        found = _result(read_json(self.folder / RESULT))
        if not found.saved.exists():
            raise FinetuneError(
                f"{found.saved} is gone since it was saved: name a new folder for --out"
            )
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """For this process alone.

        Raises
        ------
        FinetuneError
            Another process is at it.
        """
        if rank() > 0:
            yield
            return
        there = self.folder.exists()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise FinetuneError(f"--out {self.folder}: another process is at it") from error
        try:
            yield
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
            if not there and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def begin(self, config: FinetuneConfig) -> None:
        """Write down what was asked."""
        if rank() > 0:
            return
        self.state.mkdir(parents=True, exist_ok=True)
        read = {"data": sha256_of(config.file)}
        write_json(self.folder / ASKED, {"format": FORMAT, "config": _asked(config), "read": read})

    def known(self, name: str) -> Any:
        """What was kept under a name; None: nothing."""
        file = self.state / name
        return read_json(file) if file.is_file() else None

    def keep(self, name: str, data: Any) -> None:
        """Keep plain values under a name."""
        if rank() == 0:
            write_json(self.state / name, data)

    def take(self, best: Path, kind: str) -> Path:
        """Where the best weights end up."""
        to = self.folder / kind
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(best, to)
        return to

    def describe(
        self, config: FinetuneConfig, result: FinetuneResult, source: Source, plan: Plan,
        classes: tuple[str, ...],
    ) -> None:  # fmt: skip
        """A model card."""
        library = "peft" if result.saved.name == "adapter" else "transformers"
        measured = ", ".join(f"{k} {v:.4f}" for k, v in result.test.items())
        lines = [
            "---",
            f"library_name: {library}",
            f"base_model: {source.name}",
            "tags: [surefoot]",
            "---",
            f"# {source.name}, fine-tuned by {plan.method}",
            "",
            f"{result.steps} steps of {plan.batch} texts at learning rate {result.lr:g}, seed {plan.seed}; "
            + (
                f"the weights after step {result.best_step} had the lowest validation loss."
                if config.private is None
                else "the weights after the last step. Training was private: see the certificates below."
            ),
            "",
            *(() if result.gained else (f"**Nothing was gained**: {_compared(result)}.", "")),
            f"Measured on {result.sizes['test']} texts that nothing else looked at: {measured}."
            if result.test
            else "Not measured on texts of its own.",
            "",
            *_loading(result, source, classes),
            "## What was promised and what was measured",
            "",
            *[f"- {c.verdict}: {c.name}. {c.reason}{of_epsilon(c)}" for c in result.certificates],
            "",
        ]
        write_text(result.saved / "README.md", "\n".join(lines))

    def finish(self, result: FinetuneResult) -> None:
        """Write the result, and take away what was needed to go on."""
        write_json(self.folder / RESULT, result.to_dict())
        shutil.rmtree(self.state, ignore_errors=True)


def _asked(config: FinetuneConfig) -> dict[str, Any]:
    found = config.to_dict()
    found.pop("out")
    return found | {"data": os.path.abspath(found["data"])}


def _result(stored: dict[str, Any]) -> FinetuneResult:
    paths = {k: Path(stored[k]) for k in ("folder", "saved", "page")}
    told = [Certificate.from_dict(c) for c in stored["certificates"]]
    interval = stored["interval"]
    stored = {k: v for k, v in stored.items() if k != "gained"}
    more = {"interval": None if interval is None else tuple(interval), "certificates": told}
    return FinetuneResult(**{**stored, **paths, **more})


def _compared(result: FinetuneResult) -> str:
    before, after = result.before["loss"], result.validation["loss"]
    return f"the validation loss was {before:.4f} before training and is {after:.4f}"


def _loading(result: FinetuneResult, source: Source, classes: tuple[str, ...]) -> list[str]:
    """Lines that load it, and that make it again from its log."""
    auto, more = "AutoModelForCausalLM", ""
    if source.kind == "encoder":
        auto = "AutoModelForSequenceClassification"
        more = f", num_labels={len(classes)}, id2label={dict(enumerate(classes))!r}"
    gguf = "" if source.gguf is None else f", gguf_file={source.gguf!r}"
    lines = ["## How to load it", "", "```python"]
    if result.saved.name == "adapter":
        lines += [
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"base = {auto}.from_pretrained({str(source.folder)!r}{gguf}{more})",
            f"model = PeftModel.from_pretrained(base, {str(result.saved)!r})",
        ]
    else:
        lines += [
            f"from transformers import {auto}",
            "",
            f"model = {auto}.from_pretrained({str(result.saved)!r})",
        ]
    lines += ["```", ""]
    if (result.folder / LOG).exists() and source.gguf is None:
        words = ["surefoot", "zo", "replay", str(source.folder), str(result.folder / LOG), "AGAIN"]
        again = shlex.join([*words, "--upto", str(result.best_step)])
        lines += [f"Or from the log of kilobytes, into a new folder: `{again}`.", ""]
    return lines
