"""Put questions to the callable, and refuse answers that no verdict may rest on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.in_context.errors import ProbeError

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]
TRIED = 8
"""So many prompts are asked twice, and again in a smaller batch."""
SAME = 1e4
"""Answers may differ by so many eps of their dtype: threads and batches add up in another order."""


COARSE = (torch.bfloat16, torch.float16)
"""What answers are looked for to be rounded to, whatever dtype they come back in."""
DISTINCT = 16
"""So many different answers to one question are no labels of classes, and no zeros."""


class Examples(NamedTuple):
    """Prompts, as the probe asks them."""

    X: Float[Tensor, "B d n"]
    y: Float[Tensor, "B n"]
    xq: Float[Tensor, "B d"]

    def rows(self, which: slice | Tensor) -> Examples:
        """Some of the prompts."""
        return Examples(self.X[which], self.y[which], self.xq[which])


class Asked:
    """The callable behind checks: every call hands out copies and looks at what comes back.

    Parameters
    ----------
    fn
        The callable.
    layerwise
        Whether it answers (B, layers) instead of (B,).
    """

    def __init__(self, fn: Predictor, layerwise: bool) -> None:
        self.fn, self.layerwise = fn, layerwise
        self.may_abstain = bool(getattr(fn, "may_abstain", False))
        self.layers: int | None = None
        self.calls = 0
        self.answers = 0
        self.abstained = 0
        self.coarsest, self.distinct = list(COARSE), 0

    @property
    def rounded(self) -> torch.dtype | None:
        """The 16-bit dtype in which all answers so far are exact; None where none is, or they are too few."""
        return self.coarsest[0] if self.coarsest and self.distinct >= DISTINCT else None

    def __call__(self, examples: Examples) -> Float[Tensor, "B layers"]:
        """Answers in float64, (B, layers), one column unless layerwise; NaN where fn may abstain and did."""
        given = Examples(*(t.clone() for t in examples))
        what = ", ".join(f"{k} {tuple(t.shape)}" for k, t in given._asdict().items())
        try:
            answer = self.fn(*given)
        except Exception as error:
            hint = ""
            if any(word in str(error) for word in ("Double", "dtype", "float64")):
                hint = (
                    "; prompts are float64: cast inside, or give the probe the torch module itself"
                )
            raise ProbeError(
                f"fn raised {type(error).__name__}: {error}, when called with {what}{hint}"
            ) from error
        for name, before, after in zip(Examples._fields, examples, given, strict=True):
            if not torch.equal(before, after):
                raise ProbeError(f"fn changed its input {name} in place; it must work on a copy")
        return self._checked(answer, len(examples.X), what)

    def _checked(self, answer: Any, count: int, what: str) -> Float[Tensor, "B layers"]:
        if not isinstance(answer, Tensor):
            hint = " (torch.from_numpy makes one of an array)" if hasattr(answer, "dtype") else ""
            raise ProbeError(
                f"fn must return a torch tensor{hint}, got {type(answer).__name__} "
                f"when called with {what}"
            )
        shape = tuple(answer.shape)
        wanted = f"({count}, layers)" if self.layerwise else f"({count},)"
        right = len(shape) == 1 + self.layerwise and shape[0] == count
        if right and self.layerwise:
            self.layers = self.layers or shape[1]
            right = shape[1] == self.layers and shape[1] > 0
        if not right:
            hint = ""
            if len(shape) == 2 and not self.layerwise and shape[0] == count:
                hint = (
                    "; squeeze the last axis" if shape[1] == 1
                    else "; if the columns are the predictions after each layer, ask layerwise (--layers)"
                )  # fmt: skip
            raise ProbeError(
                f"fn must return one prediction a prompt, shape {wanted}, got {shape} "
                f"when called with {what}{hint}"
            )
        if not answer.is_floating_point():
            raise ProbeError(f"fn must return real floating-point numbers, got {answer.dtype}")
        self.eps = torch.finfo(answer.dtype).eps
        found = answer.detach().to("cpu", torch.float64).reshape(count, -1)
        silent = found.isnan().any(1)
        self.distinct = max(self.distinct, torch.unique(found).numel())
        self.coarsest = [
            k for k in self.coarsest if bool((found.to(k).double() == found)[~silent].all())
        ]
        if found.isinf().any() or (bool(silent.any()) and not self.may_abstain):
            bad = int((~found.isfinite()).any(1).sum())
            raise ProbeError(
                f"fn returned NaN or infinity for {bad} of {count} prompts when called with {what}"
            )
        self.calls += 1
        self.answers += count
        self.abstained += int(silent.sum())
        return found

    def try_out(self, examples: Examples) -> None:
        """Refuse a callable that answers the same question twice differently, or by its company.

        Raises
        ------
        ProbeError
            It does.
        """
        some = examples.rows(slice(TRIED))
        first = self(some)
        self._compare(
            first, self(some),
            "fn gave two answers to the same prompts; switch off whatever is random in it (dropout: "
            "call .eval(); sampling: decode greedily) or fix its seed",
        )  # fmt: skip
        half = max(1, len(some.X) // 2)
        self._compare(
            first[:half], self(some.rows(slice(half))),
            "fn answers a prompt differently in another batch, so its prompts see each other; "
            "normalise within a prompt (batch normalisation: call .eval())",
        )  # fmt: skip

    def _compare(self, one: Tensor, two: Tensor, sentence: str) -> None:
        allowed = SAME * self.eps * float(one.nan_to_num().abs().max())
        differ = (one - two).abs()
        # Whoever may abstain must do so twice.
        differ[one.isnan() != two.isnan()] = torch.inf
        worst = float(differ.nan_to_num(nan=0.0, posinf=torch.inf).max())
        if worst > allowed:
            raise ProbeError(f"{sentence} (largest difference {worst:.3g})")


def implied_weights(asked: Asked, examples: Examples) -> Float[Tensor, "B layers d"]:
    """What fn answers to the unit queries: the weights of the linear function that it would be."""
    count, d, _ = examples.X.shape
    unit = torch.eye(d, dtype=torch.float64)
    columns = [asked(examples._replace(xq=unit[j].expand(count, d).contiguous())) for j in range(d)]
    return torch.stack(columns, -1)
