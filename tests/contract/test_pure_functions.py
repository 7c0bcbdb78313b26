"""Arguments that make no sense are refused by name, by every public function of plain arguments."""

import inspect
import math
import warnings
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from surefoot.barycenter import (
    SUOTBarycenterLayer,
    influence_bound,
    linear_rate,
    stationarity_bound,
)
from surefoot.federated import DeterministicFedAvg, ServerRule, draw_partitions, weighted_mean
from surefoot.lora import lambda_min, rac_bound, shared_sketch, theory_lr
from surefoot.nesterov import nag_bound
from surefoot.privacy import LinearWeights
from surefoot.reparam import ReparamConv2d, RepOptTask, repopt_vgg

from .pure import OTHER, bad_values, example, fault, functions, needs_an_object

FUNCTIONS = functions()
# Known to take bad values yet: its arguments are checked with the numerics of that package.
OPEN = frozenset({"surefoot.privacy.compare"})


@cache
def base(key):
    """The example of a function and what it gives."""
    function = FUNCTIONS[key]
    found = example(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["__result__"] = function(**found)
    return found


def tries(key):
    """(parameter, value) of all that a function is tried with."""
    found = base(key)
    parameters = inspect.signature(FUNCTIONS[key]).parameters
    return [(n, v) for n, p in parameters.items() if n in found for v in bad_values(n, p, found[n])]


@pytest.mark.parametrize("key", sorted(set(FUNCTIONS) - OPEN))
def test_some_values_that_are_drawn(key, unchecked):
    """A right answer, or a ValueError or TypeError that names the argument."""
    if not tries(key):
        return  # a function of words that are free, or of none

    @given(st.sampled_from(range(len(tries(key)))))
    @settings(deadline=None, max_examples=8, phases=(Phase.generate,), database=None)
    def drawn(i):
        name, value = tries(key)[i]
        assert fault(FUNCTIONS[key], base(key), name, value) == "", f"{name} = {value!r}"

    drawn()


@pytest.mark.acceptance
@pytest.mark.parametrize("key", sorted(set(FUNCTIONS) - OPEN))
def test_all_values(key, unchecked):
    found = {}
    for name, value in tries(key):
        wrong = fault(FUNCTIONS[key], base(key), name, value)
        if wrong:
            found[f"{name} = {value!r}"] = wrong
    assert found == {}


def test_a_new_function_is_covered():
    """By the table of exports alone: none is listed by hand."""
    assert len(FUNCTIONS) > 40
    for key in (
        "surefoot.nesterov.nag_bound",
        "surefoot.lora.shared_sketch",
        "surefoot.barycenter.linear_rate",
    ):
        assert key in FUNCTIONS

    def new(share: float, count: int = 3) -> float:
        return share * count

    assert not needs_an_object("new", new)
    found = example(new)
    assert found == {"share": 0.5, "count": 3}
    found["__result__"] = new(**found)
    # It checks nothing: what is wrong with it is found.
    assert "gave nan" in fault(new, found, "share", float("nan"))
    assert "does not name it" in fault(new, found, "share", {})
    assert "gave 1.25" in fault(new, found, "count", 2.5)
    assert OTHER.isdisjoint({key.rpartition(".")[2] for key in FUNCTIONS})


NAN = math.nan
LAYER = SimpleNamespace(scaling={"default": 2.0})
# What was given, and the argument that the error names.
REFUSED = {
    "activation": lambda: ReparamConv2d(2, 2, activation="gelu"),
    "norm": lambda: ReparamConv2d(2, 2, norm="layer"),
    "in_ch": lambda: ReparamConv2d(2.5, 2),
    "widths": lambda: repopt_vgg((1,), ("4",)),
    "lr": lambda: RepOptTask(None, None, None, [], lr=NAN),
    "epochs": lambda: RepOptTask(None, None, None, [], epochs=1.5),
    "sketch": lambda: lambda_min("nonsense", 8, 2),
    "n": lambda: nag_bound(np.array([1.0, NAN]), 1.0, 1.0, 0.5, 0.5),
    "n ": lambda: nag_bound(torch.tensor([NAN]), 1.0, 1.0, 0.5, 0.5),
    "temperature": lambda: influence_bound(np.ones(2), np.ones(2), 0),
    "floor": lambda: linear_rate(0.5, 2.0, 1.0, floor=-1.5),
    "Flow": lambda: stationarity_bound(1, 5, 10),
    "gamma": lambda: theory_lr(-1, LAYER),
    "tau": lambda: ServerRule("fedadam", tau=0),
    "fraction": lambda: DeterministicFedAvg(2, fraction=NAN),
    "seed": lambda: shared_sketch(True, 0, "a", (2, 8)),
    "dtype": lambda: shared_sketch(0, 0, "a", (2, 8), dtype=torch.int64),
    "mu": lambda: nag_bound(3, 1.0, 1.0, 2.0, 0.1, L=1.0),
    "n  ": lambda: nag_bound(2.5, 1.0, 1.0, 0.5, 0.5),
    "T": lambda: rac_bound(2.5, L=1.0, gamma=1.0, lam=0.5, gap0=1.0),
    "lam": lambda: rac_bound(2, L=1.0, gamma=1.0, lam=1.5, gap0=1.0),
    "replies": lambda: weighted_mean({0: ({"a": torch.ones(2)}, True)}),
    "replies ": lambda: weighted_mean({i: ({"a": torch.tensor([i > 0])}, 1.0) for i in range(2)}),
    "partitions": lambda: draw_partitions(0, 1, [0, 0, 1], 0.5),
    "values": lambda: LinearWeights(np.array([1.0, 1j])),
    "covs": lambda: SUOTBarycenterLayer()(torch.ones(2, 2, 2, dtype=torch.bool)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_taken_without_a_word(name, unchecked):
    with pytest.raises(ValueError, match=rf"\b{name.strip()}\b"):
        REFUSED[name]()


def test_the_same_number_in_another_dress_is_the_same_draw(unchecked):
    one, two = (shared_sketch(seed, 2, "a", (2, 8)) for seed in (3, 3.0))
    assert torch.equal(one, two)
    whole = torch.tensor([[[2, 1], [1, 2]], [[4, 0], [0, 4]]])
    found = SUOTBarycenterLayer()(whole)
    assert torch.allclose(found, SUOTBarycenterLayer()(whole.double()))
