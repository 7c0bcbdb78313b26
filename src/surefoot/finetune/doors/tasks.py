"""What is learned from the texts: classes by a head, classes by a prompt, or the texts themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.finetune.errors import FinetuneError
from surefoot.finetune.texts import Texts

IGNORED = -100
Example = dict[str, Any]


@dataclass
class Task:
    """Tokenised texts, and how a model is measured on them.

    Attributes
    ----------
    texts
        By part: train, validation, test.
    tokenizer
        Of the model.
    longest
        Tokens that the model takes.
    cut
        Tokens at which the user wants longer texts cut; None: none.
    """

    texts: Mapping[str, Texts]
    tokenizer: Any
    longest: int
    cut: int | None
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cut is not None and self.cut > self.longest:
            raise FinetuneError(
                f"--max-length {self.cut} is more than the {self.longest} tokens that the model takes"
            )
        self.examples = {part: self._encode(texts) for part, texts in self.texts.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, or nothing."""
        return self.texts["train"].classes

    def encoded(self, texts: Texts) -> list[Example]:
        """Texts of no part, as examples."""
        return self._encode(texts)

    # -- texts to tokens ---------------------------------------------------------------------------------

    def _encode(self, texts: Texts) -> list[Example]:
        raise NotImplementedError

    def _tokens(self, texts: Sequence[str], room: int = 0, special: bool = True) -> list[list[int]]:
        """Token numbers of each text, with `room` left below the longest that the model takes."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=special, truncation=False, verbose=False
        )["input_ids"]
        most = self.longest if self.cut is None else self.cut
        over = [i for i, ids in enumerate(found) if len(ids) + room > most]
        if over and self.cut is None:
            i = max(over, key=lambda k: len(found[k]))
            raise FinetuneError(
                f"{len(over)} texts are longer than the {self.longest} tokens that the model takes, the "
                f"longest has {len(found[i]) + room} ({texts[i][:40]!r}...): shorten them, or have them cut "
                f"by --max-length {self.longest}"
            )
        for i in over:
            found[i] = self._shortened(texts[i], most - room, special)
        return found

    def _shortened(self, text: str, most: int, special: bool) -> list[int]:
        around = self.tokenizer.num_special_tokens_to_add() if special else 0
        if most <= around:
            raise FinetuneError(f"--max-length {self.cut} leaves no room for a token of the text")
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=special, truncation=True, max_length=most
        )["input_ids"]
        return ids

    def collate(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """Rows of one length: padded, with labels that say so."""
        longest = max(len(row["input_ids"]) for row in rows)
        pad = self.tokenizer.pad_token_id
        fill = {"input_ids": 0 if pad is None else pad, "attention_mask": 0, "labels": IGNORED}
        found = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if isinstance(values[0], list):
                values = [self._padded(v, fill.get(name, 0), longest) for v in values]
            found[name] = torch.tensor(values)
        return found

    def _padded(self, values: list[int], fill: int, longest: int) -> list[int]:
        return values + [fill] * (longest - len(values))

    def loss(self, model: Any, given: Mapping[str, Tensor]) -> Tensor:
        """The mean over the labels of a batch."""
        found: Tensor = model(**given).loss
        return found

    def losses(self, model: Any, given: Mapping[str, Tensor]) -> Tensor:
        """One loss a text: of a class, or the mean over the text's own labels."""
        labels, more = given["labels"], {k: v for k, v in given.items() if k != "labels"}
        if labels.ndim == 1:
            logits = model(**more).logits.float()
            return nn.functional.cross_entropy(logits, labels, reduction="none")
        total, many = _summed(*self._asked(model, dict(given)))
        return total / many.clamp(min=1)

    def _asked(self, model: Any, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits, and the labels that belong to them."""
        labels = given.pop("labels")
        return model(**given, use_cache=False).logits, labels

    # -- measuring ---------------------------------------------------------------------------------------

    def measure(self, model: nn.Module, part: str, batch: int) -> dict[str, float]:
        """Loss, and accuracy where there are classes, of the model as it stands.

        Parameters
        ----------
        model
            In whatever mode; it is left in it.
        part
            Of the texts.
        batch
            Texts in a forward.
        """
        was = model.training
        model.eval()
        try:
            with torch.no_grad():
                return self._measure(model, self.examples[part], batch)
        finally:
            model.train(was)

    def _measure(self, model: nn.Module, rows: list[Example], batch: int) -> dict[str, float]:
        raise NotImplementedError

    def _batches(
        self, model: nn.Module, rows: Sequence[Example], batch: int
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Rows of like lengths together, which saves padding."""
        device = next(model.parameters()).device
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]["input_ids"]), i))
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            given = self.collate([rows[i] for i in some])
            yield some, {k: v.to(device) for k, v in given.items()}


class ByHead(Task):
    """An encoder whose head has a logit a class."""

    def _encode(self, texts: Texts) -> list[Example]:
        tokens = self._tokens(texts.texts)
        assert texts.labels is not None
        return [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
            for ids, label in zip(tokens, texts.labels, strict=True)
        ]

    def _measure(self, model: nn.Module, rows: list[Example], batch: int) -> dict[str, float]:
        loss, right = 0.0, 0
        for _, given in self._batches(model, rows, batch):
            labels = given.pop("labels")
            logits = model(**given).logits.double()
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(dim=1) == labels).sum())
        return {"loss": loss / len(rows), "accuracy": right / len(rows)}


@dataclass
class ByPrompt(Task):
    """A language model that is asked for the label, and whose likeliest label counts.

    Attributes
    ----------
    prompt
        Holds {text}.
    short
        Whether the model can be asked for the logits of the last positions alone: rows are then padded on
        the left, so that all labels stand there. The logits of a whole text are the largest tensor of a step.
    """

    prompt: str = ""
    short: bool = False

    def __post_init__(self) -> None:
        self._words = [
            self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            for word in self.classes
        ]
        same = {tuple(ids) for ids in self._words}
        if len(same) < len(self._words):
            raise FinetuneError(
                "two labels are the same tokens to this model; name them differently"
            )
        super().__post_init__()

    def _encode(self, texts: Texts) -> list[Example]:
        assert texts.labels is not None
        return [
            self._with(ids, self._words[label])
            for ids, label in zip(self._prompts(texts), texts.labels, strict=True)
        ]

    def _prompts(self, texts: Texts) -> list[list[int]]:
        # The text is cut, never the question after it.
        before, after = self.prompt.split("{text}", 1)
        asked = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        room = len(asked) + max(map(len, self._words))
        given = self._tokens([before + text for text in texts.texts], room)
        return [ids + asked for ids in given]

    @staticmethod
    def _with(prompt: list[int], word: list[int]) -> Example:
        ids = prompt + word
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [IGNORED] * len(prompt) + word,
        }

    def _padded(self, values: list[int], fill: int, longest: int) -> list[int]:
        more = [fill] * (longest - len(values))
        return more + values if self.short else values + more

    def collate(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """Rows of one length, and where the tokens of a text that begins with padding stand in it."""
        found = super().collate(rows)
        if self.short:
            found["position_ids"] = (found["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return found

    def loss(self, model: Any, given: Mapping[str, Tensor]) -> Tensor:
        """The mean over the labels of a batch."""
        if not self.short:
            return super().loss(model, given)
        logits, labels = self._asked(model, dict(given))
        return nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )

    def _asked(self, model: Any, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and labels, of the last positions alone where the model can."""
        labels = given.pop("labels")
        if not self.short:
            return model(**given, use_cache=False).logits, labels
        keep = max(map(len, self._words)) + 1
        found: Tensor = model(**given, use_cache=False, logits_to_keep=keep).logits
        return found, labels[:, -keep:]

    def _measure(self, model: nn.Module, rows: list[Example], batch: int) -> dict[str, float]:
        """Every label after every prompt; probabilities among the labels alone."""
        asked, truth = [], []
        for row in rows:
            prompt = [
                i for i, to in zip(row["input_ids"], row["labels"], strict=True) if to == IGNORED
            ]
            truth.append(self._words.index(row["input_ids"][len(prompt) :]))
            asked += [self._with(prompt, word) for word in self._words]
        score = torch.zeros(len(asked), dtype=torch.float64)
        for some, given in self._batches(model, asked, batch):
            score[some] = -_summed(*self._asked(model, given))[0].cpu()
        among = score.view(len(rows), len(self._words)).log_softmax(dim=1)
        right = torch.tensor(truth)
        return {
            "loss": float(-among[torch.arange(len(rows)), right].mean()),
            "accuracy": float((among.argmax(dim=1) == right).double().mean()),
        }


class Language(Task):
    """The texts themselves, token after token."""

    def _encode(self, texts: Texts) -> list[Example]:
        end = self.tokenizer.eos_token_id
        more = [] if end is None else [end]
        found = []
        for ids in self._tokens(texts.texts, len(more)):
            whole = ids + more
            if len(whole) < 2:
                raise FinetuneError("a text of one token has nothing to be predicted")
            found.append({"input_ids": whole, "attention_mask": [1] * len(whole), "labels": whole})
        return found

    def _measure(self, model: nn.Module, rows: list[Example], batch: int) -> dict[str, float]:
        loss, count = 0.0, 0
        for _, given in self._batches(model, rows, batch):
            labels = given.pop("labels")
            total, many = _summed(model(**given, use_cache=False).logits, labels)
            loss, count = loss + float(total.sum()), count + int(many.sum())
        mean = loss / count
        return {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}


def _summed(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """By row, the negative log-likelihood of the labelled tokens, and how many there are."""
    shifted, to = logits[:, :-1], labels[:, 1:]
    there = to != IGNORED
    total = torch.zeros(len(labels), dtype=torch.float64, device=logits.device)
    # Only labelled positions: the whole in double precision would be the largest tensor of the run.
    picked = nn.functional.cross_entropy(shifted[there].double(), to[there], reduction="none")
    total.index_add_(0, there.nonzero()[:, 0], picked)
    return total, there.sum(dim=1)
