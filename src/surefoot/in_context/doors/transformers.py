"""A causal language model as an in-context predictor: prompts as text, greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import need
from surefoot.in_context.errors import ProbeError
from surefoot.in_context.text import TextPredictor

with need("transformers", extra="llm", part="surefoot.in_context.LanguageModelPredictor"):
    from transformers import StoppingCriteria, StoppingCriteriaList


class _LineEnd(StoppingCriteria):
    """Stop a row when its answer, without the blanks before it, has come to the end of a line."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor([_ended(t) for t in texts], device=input_ids.device)


def _ended(text: str) -> bool:
    return "\n" in text.lstrip()


@checked
class LanguageModelPredictor(TextPredictor):
    r"""Ask a causal language model for the number that goes on a prompt of examples.

    A prompt is the text `x: 0.1234, -1.0000\ny: 0.5000\n\n...x: 0.3000, 0.2000\ny:`; the answer is decoded
    greedily up to the end of its line. An answer that ends with none, after `max_new_tokens`, may be a number
    cut short and counts as unreadable.

    Parameters
    ----------
    model, tokenizer
        Of transformers; the model is put into evaluation mode while it answers.
    digits
        Decimals of every number; more are more tokens.
    batch_size
        Prompts answered together. Padding changes the rounding of an answer and, at a tie between two tokens,
        the answer: 1, the default, has none.
    max_new_tokens
        Of an answer.

    Attributes
    ----------
    prompt_tokens
        The fewest and the most tokens of a prompt so far.
    cut_off
        Answers that `max_new_tokens` cut short.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, digits: int = 4, batch_size: int = 1,
        max_new_tokens: int = 16,
    ) -> None:  # fmt: skip
        super().__init__(self._generate, digits=digits)
        for name, value, has in (("model", model, "generate"), ("tokenizer", tokenizer, "decode")):
            if not hasattr(value, has):
                raise ValueError(
                    f"{name} must be one of transformers, with a method {has}, got {type(value).__name__}"
                )
        self.model, self.tokenizer = model, tokenizer
        self.batch_size = check_number("batch_size", batch_size, least=1, whole=True)
        self.max_new_tokens = check_number("max_new_tokens", max_new_tokens, least=1, whole=True)
        self.prompt_tokens: tuple[int, int] | None = None
        self.cut_off = 0

    def _generate(self, texts: Sequence[str]) -> list[str]:
        answers: list[str] = []
        training = self.model.training
        try:
            self.model.eval()
            for at in range(0, len(texts), self.batch_size):
                answers += self._batch(list(texts[at : at + self.batch_size]))
        finally:
            self.model.train(training)
        return answers

    def _batch(self, texts: list[str]) -> list[str]:
        several = {"padding": True, "padding_side": "left"} if len(texts) > 1 else {}
        if several and self.tokenizer.pad_token is None:
            raise ProbeError("the tokenizer has no pad_token; set one, or batch_size=1")
        tokens = self.tokenizer(texts, return_tensors="pt", **several).to(self.model.device)
        lengths = tokens["attention_mask"].sum(1).tolist()
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and max(lengths) + self.max_new_tokens > longest:
            raise ProbeError(
                f"a prompt has {max(lengths)} tokens and the model takes {longest} with the answer; "
                "use fewer examples, features or digits"
            )
        low, high = self.prompt_tokens or (min(lengths), max(lengths))
        self.prompt_tokens = (min(low, *lengths), max(high, *lengths))
        width = tokens["input_ids"].shape[1]
        pad = self.tokenizer.pad_token_id
        # Of what a tokenizer gives, token types are no argument of older models' generate.
        given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            out = self.model.generate(
                **given, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1,
                pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
                stopping_criteria=StoppingCriteriaList([_LineEnd(self.tokenizer, width)]),
            )  # fmt: skip
        return [self._text(row[width:]) for row in out]

    def _text(self, row: Any) -> str:
        text = str(self.tokenizer.decode(row, skip_special_tokens=True))
        if len(row) >= self.max_new_tokens and not _ended(text):
            ends = self.model.generation_config.eos_token_id
            over = ends if isinstance(ends, (list, tuple)) else [ends]
            if not any(int(token) in over for token in row):
                self.cut_off += 1
                return ""
        return text

    @property
    def facts(self) -> dict[str, Any]:
        """What was asked and answered so far."""
        return super().facts | {
            "tokens of a prompt": None if self.prompt_tokens is None else list(self.prompt_tokens),
            "answers cut off": self.cut_off,
        }
