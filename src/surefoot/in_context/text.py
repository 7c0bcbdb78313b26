"""Prompts written out as text, and answers read as numbers: for models that speak."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.in_context.errors import ProbeError

NUMBER = re.compile(r"\s*([-+−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=\s|$)")
"""A number, and then white space or the end: of 1,200 or 3/4 or "about 2" no number is read."""


def write_prompt(
    X: Float64[Tensor, "d n"], y: Float64[Tensor, " n"], xq: Float64[Tensor, " d"], digits: int
) -> str:
    """The examples and the query, numbers with so many decimals, up to where the answer goes.

    Parameters
    ----------
    X, y, xq
        One prompt.
    digits
        Decimals.
    """
    rows = [
        f"x: {_numbers(x, digits)}\ny: {_numbers(v[None], digits)}\n\n"
        for x, v in zip(X.T, y, strict=True)
    ]
    return "".join(rows) + f"x: {_numbers(xq, digits)}\ny:"


def _numbers(values: Tensor, digits: int) -> str:
    # -0.00 would be another text than 0.00 for the same number.
    return ", ".join(f"{round(v, digits) + 0.0:.{digits}f}" for v in values.tolist())


def read_number(answer: str) -> float:
    """The number that an answer starts with; NaN where it starts with none."""
    found = NUMBER.match(answer)
    value = float(found[1].replace("−", "-")) if found else math.nan
    return value if math.isfinite(value) else math.nan


@checked
class TextPredictor:
    """Write prompts as text, let something answer, read the number that its answer starts with.

    An answer that starts with none is NaN: the probe leaves that prompt out and says how many it left out.
    What is rounded to `digits` decimals is another prompt than the one that was drawn, so that no error below
    about 10^-digits can be seen: with fewer than 4 even perfect gradient descent fails the linearity tests.

    Parameters
    ----------
    answer
        Takes texts and returns as many answers, each the text that goes on after `y:`.
    digits
        Decimals of every number.

    Attributes
    ----------
    asked, unreadable
        Answers in all, and those without a number.
    examples_unreadable
        Up to five of them.
    facts
        These, for a report.
    """

    may_abstain = True

    def __init__(
        self, answer: Callable[[Sequence[str]], Sequence[str]], *, digits: int = 4
    ) -> None:
        if not callable(answer):
            raise ValueError(f"answer must be callable, got {type(answer).__name__}")
        self.answer = answer
        self.digits = check_number("digits", digits, least=0, most=15, whole=True)
        self.asked = self.unreadable = 0
        self.examples_unreadable: list[str] = []

    def __call__(
        self, X: Float[Tensor, "B d n"], y: Float[Tensor, "B n"], xq: Float[Tensor, "B d"]
    ) -> Float64[Tensor, " B"]:
        """One number a prompt, NaN where none was answered."""
        X, y, xq = (t.detach().to("cpu", torch.float64) for t in (X, y, xq))
        texts = [write_prompt(*each, self.digits) for each in zip(X, y, xq, strict=True)]
        answers = self.answer(texts)
        if len(answers) != len(texts):
            raise ProbeError(
                f"answer must return one text a prompt, got {len(answers)} for {len(texts)} prompts"
            )
        found = [read_number(a) for a in answers]
        silent = [a for a, v in zip(answers, found, strict=True) if math.isnan(v)]
        self.asked += len(texts)
        self.unreadable += len(silent)
        self.examples_unreadable = [*self.examples_unreadable, *silent][:5]
        return torch.tensor(found, dtype=torch.float64)

    @property
    def facts(self) -> dict[str, Any]:
        """What was asked and answered so far."""
        return {
            "decimals": self.digits,
            "smallest error that can be seen": 10.0**-self.digits,
            "answers without a number": f"{self.unreadable} of {self.asked}",
            "for instance": self.examples_unreadable,
        }
