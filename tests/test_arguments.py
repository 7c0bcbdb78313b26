"""What is surely wrong by its annotation is refused by name; all else passes as it came."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.shown import shown
from surefoot.errors import ArgumentError, SurefootError

if TYPE_CHECKING:
    from nowhere_at_all import Missing  # noqa: F401 - for an annotation

    from surefoot.record import Record  # noqa: F401 - for an annotation


class Trains(Protocol):
    def train(self) -> int: ...


class Trainer:
    def train(self) -> int:
        return 1


ANNOTATED = {
    "float": (float, [1, 2.5, -math.inf, np.float32(1), Fraction(1, 3), torch.tensor(1.0), np.array(2),
                      10**400],
              [True, "1", b"1", math.nan, None, 1j, [1.0], np.ones(2), np.ones(1), torch.tensor(math.nan), {},
               np.True_, object(), np.ma.masked, torch.tensor(True)]),
    "int": (int, [1, -1, 1e6, np.int64(3), torch.tensor(3)],
            [2.5, math.inf, True, "1", None, math.nan, 1j, [1]]),
    "bool": (bool, [True, np.False_], [1, 0.0, "yes", None]),
    "str": (str, ["", "a", np.str_("b")], [b"a", 1, None, ["a"]]),
    "word": (Literal["a", "b"], ["a", "b"], ["c", 1, None, True, ["a"], np.ones(2)]),
    "number or word": (float | Literal["auto"], [1, "auto"], ["c", None, math.nan]),
    "optional": (int | None, [None, 3], ["x", 2.5]),
    "numbers": (Sequence[float], [[1, 2.0], (1,), np.ones(2), torch.ones(2), range(3), [], pd.Series([1.0])],
                ["12", b"12", 1, None, ["a"], [1, math.nan], {1.0}, np.array(["a"]), np.float64(1)]),
    "pair": (tuple[float, float], [(1, 2), [1, 2], np.ones(2)], [(1,), (1, 2, 3), 1, ("a", 1), "ab", None]),
    "many": (tuple[int, ...], [(), (1, 2), [3]], [(1, "a"), 1, "12"]),
    "mapping": (Mapping[str, int], [{}, {"a": 1}], [[], {"a": "b"}, None, "a"]),
    "iterable": (Iterable[int], [[1], range(2), iter([1]), {1}], [1, "12", None, ["a"], int]),
    "callable": (Callable[[int], int], [len, int, lambda x: x, functools.partial(int)],
                 [None, 3, "f", [len]]),
    "path": (str | Path, ["a", Path("a")], [3, None, b"a", object()]),
    "tensor": (Float[Tensor, "n d"], [torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)],
               [torch.ones(2), torch.ones(2, 3, dtype=torch.bool), np.ones((2, 3)), [[1.0]], None,
                torch.full((2, 3), math.nan), torch.ones(2, 3) * 1j]),
    "array": (Float[np.ndarray, " n"], [np.ones(2), [1.0, 2], (1,), np.ones(0), pd.Series([1.0]),
                                          torch.ones(2)],
              [np.ones((2, 2)), "a", ["a"], np.array([1j]), np.array([math.nan]), None, 3, object(),
               np.ma.array([1.0, 2], mask=[0, 1]), [np.ma.masked], np.array([True])]),
    "open shape": (Float[Tensor, "*any"], [torch.ones(()), torch.ones(2, 3)], [1.0, "a"]),
    "labels": (Int[Tensor, " n"], [torch.arange(2), torch.arange(2, dtype=torch.uint8)],
               [torch.ones(2), torch.ones(2, dtype=torch.bool), [1, 2]]),
    "mask": (Bool[Tensor, " n"], [torch.ones(2, dtype=torch.bool)], [torch.arange(2), [True]]),
    "module": (nn.Module, [nn.ReLU(), Trainer()], [None, 3, "net", [nn.ReLU()], torch.ones(2), object()]),
    "protocol": (Trains, [Trainer(), nn.ReLU()], [None, 3, "a", object(), torch.ones(2)]),
    "own class": (SurefootError, [SurefootError("a")], [ValueError("a"), "a", None]),
    "type": (type[SurefootError], [SurefootError], ["a", SurefootError("a"), None]),
    "dtype": (torch.dtype, [torch.float32], ["float32", None, 3]),
    "anything": (Any, [None, 3, "a", math.nan], []),
    "later": ("Record | None", [None], ["a", 3, object()]),
    "nowhere": ("Missing | None", [None, Trainer()], ["a", 3, torch.ones(2)]),
    "unknown": ("NoSuchName", [None, 3, "a"], []),
}  # fmt: skip


def taking(annotation, text=False):
    def function(value):
        return value

    function.__annotations__ = {"value": repr(annotation) if text else annotation}
    return checked(function)


@pytest.mark.parametrize("kind", ANNOTATED)
def test_what_fits_passes_as_it_came_and_what_does_not_is_named(kind):
    annotation, right, wrong = ANNOTATED[kind]
    function = taking(annotation)
    for value in right:
        assert function(value) is value
    for value in wrong:
        with pytest.raises(ArgumentError, match=r"^value must be .*, got ") as error:
            function(value)
        assert error.value.argument == "value"
        assert len(str(error.value)) < 300
        for caught in (ValueError, TypeError, SurefootError):
            assert isinstance(error.value, caught)


@checked
def scaled(
    x: float,
    by: float = 2.0,
    *,
    mode: Literal["up", "down"] = "up",
    seed: int = None,  # noqa: RUF013 - the case that is tested
) -> float:
    """Documented."""
    return x * by if mode == "up" else x / by


def test_unknown_missing_and_surplus_arguments_are_named():
    for call, said in [
        (lambda: scaled(1, mod="up"), r"^mod is no argument of scaled, .* did you mean mode\?$"),
        (lambda: scaled(by=1), "^x is missing: scaled"),
        (lambda: scaled(1, 2, 3), "^scaled takes at most 2 arguments by position, got 3$"),
        (lambda: scaled(1, mode="upp"), "^mode must be one of 'up', 'down', got 'upp'$"),
    ]:
        with pytest.raises(ArgumentError, match=said):
            call()
    # Of an argument given twice the language speaks.
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        scaled(1, x=2)
    # A default is allowed, whatever the annotation says.
    assert scaled(1, seed=None) == scaled(1, 2, seed=3) == 2.0


def test_a_wrapped_function_is_still_itself():
    assert scaled.__doc__ == "Documented."
    assert list(inspect.signature(scaled).parameters) == ["x", "by", "mode", "seed"]
    assert pickle.loads(pickle.dumps(scaled)) is scaled
    assert scaled.__wrapped__(1) == 2


@checked
@dataclass(frozen=True)
class Base:
    rate: float
    name: str = "a"


@checked(nan=True)
@dataclass(frozen=True)
class Measured(Base):
    found: float = math.nan


class Own(Base):
    def __init__(self, rate: float) -> None:
        super().__init__(rate, 3)


def test_a_constructor_is_checked_and_its_class_is_the_same():
    made = Measured(math.nan, found=1.0)
    assert pickle.loads(pickle.dumps(made)).found == copy.deepcopy(made).found == 1.0
    assert replace(made, name="b").name == "b"
    for call, name in [
        (lambda: Base("x"), "rate"),
        (lambda: Base(math.nan), "rate"),
        (lambda: Measured(1.0, found="x"), "found"),
        (lambda: replace(made, name=3), "name"),
        (lambda: Own(1.0), "name"),
        (lambda: Base(1.0, nam="x"), "nam"),
    ]:
        with pytest.raises(ArgumentError, match=rf"^{name}\b"):
            call()


def test_nothing_is_imported_for_a_check():
    assert taking("Missing")(Trainer())
    with pytest.raises(ArgumentError, match="value must be a Missing"):
        taking("Missing")(3)
    assert "nowhere_at_all" not in sys.modules


def test_more_arguments_pass_where_a_function_takes_more():
    @checked
    def more(x: float, *others: Any, **options: Any) -> tuple[Any, ...]:
        return (x, *others, options)

    assert more(1, "a", b=3) == (1, "a", {"b": 3})
    with pytest.raises(ArgumentError, match="^x "):
        more("a", 1)
    with pytest.raises(ArgumentError, match="^x is missing"):
        more(b=3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.ones(30, 40), "a Tensor of shape (30, 40) and dtype torch.float32"),
        (np.ones((3, 3, 3)), "an ndarray of shape (3, 3, 3) and dtype float64"),
        (object(), "an object of type object"),
        (list(range(1000)), "a list of 1000"),
        (-1, "-1"),
        (int, "the class int"),
    ],
)
def test_a_value_is_told_in_one_short_line(value, told):
    assert shown(value) == told
    assert len(shown("a" * 10**6)) <= 60
