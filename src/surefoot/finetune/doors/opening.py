"""A model from disk, as its task needs it; made anew for every attempt, from the same seed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from surefoot.data.models import LanguageModel
from surefoot.errors import need
from surefoot.finetune.config import PROMPT
from surefoot.finetune.doors.quiet import quiet
from surefoot.finetune.doors.tasks import ByHead, ByPrompt, Language, Task
from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.models import Source
from surefoot.finetune.texts import Texts

with need("transformers", extra="llm", part="surefoot.finetune"):
    import transformers

# Of a tokenizer that knows no limit.
ENDLESS = 10**9
# Texts on which a new head is fitted at most, and features at a time.
MOST_FOR_HEAD, AT_ONCE = 2000, 32
PENALTIES = (1e-3, 1e-4, 1e-2, 1e-1)


def task_for(source: Source, texts: dict[str, Texts], prompt: str, cut: int | None) -> Task:
    """The texts in the model's tokens, and how it is measured on them.

    Raises
    ------
    FinetuneError
        Texts without labels and an encoder, or a text that is too long.
    """
    labelled = texts["train"].labels is not None
    if source.kind == "encoder" and not labelled:
        raise FinetuneError(
            f"{source.name} is an encoder and needs labels, the file has texts alone: name a column with "
            "--label, or take a language model"
        )
    if prompt != PROMPT and (source.kind == "encoder" or not labelled):
        why = f"{source.name} is an encoder" if source.kind == "encoder" else "there are no labels"
        raise FinetuneError(f"--prompt is for a language model and labels, and {why}: leave it out")
    with quiet():
        tokenizer = _tokenizer(source)
        config = transformers.AutoConfig.from_pretrained(
            source.folder, gguf_file=source.gguf, trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    longest = _longest(tokenizer, config)
    if source.kind == "encoder":
        return ByHead(texts, tokenizer, longest, cut)
    if labelled:
        short = {"logits_to_keep", "position_ids"} <= _takes(config)
        return ByPrompt(texts, tokenizer, longest, cut, prompt=prompt, short=short)
    return Language(texts, tokenizer, longest, cut)


def _takes(config: Any) -> set[str]:
    """What a forward of the language model of a configuration can be given."""
    known = transformers.AutoModelForCausalLM._model_mapping
    kind: Any = known.get(type(config), None)
    return set() if kind is None else set(inspect.signature(kind.forward).parameters)


def _tokenizer(source: Source) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(
            source.folder, gguf_file=source.gguf, trust_remote_code=False
        )
    except Exception as error:  # whatever the readers of a tokenizer's files raise
        raise FinetuneError(f"{source.name} has no tokenizer that can be read: {error}") from error


def _longest(tokenizer: Any, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or ENDLESS
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        # Positions are counted from behind the one that stands for padding.
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length or ENDLESS, ENDLESS))


@dataclass
class Opener:
    """Opens the model of a task again and again.

    Attributes
    ----------
    source, task
        What is opened, and for what.
    seed
        Of the weights of a new head before it is fitted.
    fitted
        Whether the new head of an encoder is fitted to texts before anything is trained.
    rows
        Those texts; the training texts by default.
    """

    source: Source
    task: Task
    seed: int
    fitted: bool = True
    rows: list[dict[str, Any]] | None = None
    _head: tuple[torch.Tensor, torch.Tensor] | None = None

    def open(self, *, quantised: bool = False) -> nn.Module:
        """The model as it is before training."""
        with quiet():
            if self.source.kind == "encoder":
                return self._encoder()
            found = LanguageModel(self.source.folder, self.source.gguf)
            model: nn.Module = self._refusing(lambda: found.open(quantised=quantised)[0])
        return model

    def _refusing(self, load: Any) -> Any:
        try:
            return load()
        except Exception as error:  # whatever the readers of weights raise
            raise FinetuneError(f"{self.source.name} cannot be loaded: {error}") from error

    def _encoder(self) -> nn.Module:
        classes = self.task.classes
        names = dict(enumerate(classes))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model: Any = self._refusing(
                lambda: transformers.AutoModelForSequenceClassification.from_pretrained(
                    self.source.folder, num_labels=len(classes), id2label=names,
                    label2id={v: k for k, v in names.items()}, dtype=torch.float32,
                    ignore_mismatched_sizes=True, trust_remote_code=False,
                )
            )  # fmt: skip
        if self.fitted:
            head = self._output(model)
            if self._head is None:
                self._head = self._fit(model.eval(), head)
            with torch.no_grad():
                head.weight.copy_(self._head[0])
                if head.bias is not None:
                    head.bias.copy_(self._head[1])
        found: nn.Module = model
        return found

    def _output(self, model: nn.Module) -> nn.Linear:
        """The layer that gives the logits."""
        count = len(self.task.classes)
        found = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == count]
        if not found:
            raise FinetuneError(f"{self.source.name} has no linear layer with {count} outputs")
        return found[-1]

    def _fit(self, model: nn.Module, head: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
        """Logistic regression on what the head reads: a random one would first have to be unlearned.

        Kumar et al. 2022 (arXiv 2202.10054), who also show why: it distorts what was pretrained.
        """
        seen: list[torch.Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        rows = self._some()
        try:
            model.to(device)
            with torch.no_grad():
                for at in range(0, len(rows), AT_ONCE):
                    given = self.task.collate(rows[at : at + AT_ONCE])
                    given.pop("labels")
                    model(**{k: v.to(device) for k, v in given.items()})
        finally:
            hook.remove()
            model.to("cpu")
        x = torch.cat(seen).reshape(len(rows), -1).double().cpu().numpy()
        y = np.array([row["labels"] for row in rows])
        mean, scale = x.mean(0), x.std(0) + 1e-12
        least = int(np.bincount(y).min())
        fitted = _regression((x - mean) / scale, y, least)
        slope, at_zero = fitted.coef_ / scale, fitted.intercept_
        if len(slope) == 1:
            # Of two classes there is one line; half of it to each logit.
            slope, at_zero = np.vstack([-slope, slope]) / 2, np.hstack([-at_zero, at_zero]) / 2
        return torch.tensor(slope), torch.tensor(at_zero - slope @ mean)

    def _some(self) -> list[dict[str, Any]]:
        rows = self.task.examples["train"] if self.rows is None else self.rows
        if len(rows) <= MOST_FOR_HEAD:
            return list(rows)
        chosen = np.random.default_rng(self.seed).permutation(len(rows))[:MOST_FOR_HEAD]
        return [rows[i] for i in sorted(chosen)]


def _regression(x: Any, y: Any, least: int) -> Any:
    """With the penalty that predicts best within the training texts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    best = PENALTIES[0]
    if least > 2:
        scores = {
            c: cross_val_score(
                LogisticRegression(C=c, max_iter=500),
                x,
                y,
                cv=min(5, least),
                scoring="neg_log_loss",
            ).mean()
            for c in PENALTIES
        }
        best = max(scores, key=scores.__getitem__)
    return LogisticRegression(C=best, max_iter=500).fit(x, y)


def reopened(opener: Opener, folder: Path, *, quantised: bool) -> Any:
    """What was saved, loaded as anybody would: plain weights, or an adapter on the base."""
    with quiet():
        if not (folder / "adapter_config.json").is_file():
            auto: Any = transformers.AutoModelForSequenceClassification
            if opener.source.kind != "encoder":
                auto = transformers.AutoModelForCausalLM
            return auto.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
        base = opener.open(quantised=quantised)
        if quantised:
            from surefoot.zeroth_order.quantised import attach

            return attach(base, folder).eval()
        with need("peft", extra="llm", part="surefoot.finetune"):
            from peft import PeftModel
        return PeftModel.from_pretrained(base, folder, trust_remote_code=False).eval()
