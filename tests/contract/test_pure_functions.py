"""Arguments that make no sense are refused by name, by every public function of plain arguments."""

import inspect
import warnings
from functools import cache

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .pure import OTHER, bad_values, example, fault, functions, needs_an_object

FUNCTIONS = functions()
# Filled as the checks of these packages come; see the issue on arguments there.
OPEN: frozenset[str] = frozenset()


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
def test_some_values_that_are_drawn(key):
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
def test_all_values(key):
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
    assert "does not name it" in fault(new, found, "share", "nonsense")
    assert "gave 1.25" in fault(new, found, "count", 2.5)
    assert OTHER.isdisjoint({key.rpartition(".")[2] for key in FUNCTIONS})
