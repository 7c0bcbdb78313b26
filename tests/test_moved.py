"""Module paths of before the move still work, and are the same modules."""

import importlib

import pytest

from surefoot._moved import MOVED

FUNCTIONS = {
    "privacy.calibrate", "privacy.gaussian", "privacy.last_iterate", "privacy.max_steps",
    "privacy.standard", "privacy.audit.clopper_pearson", "zeroth_order.replay",
}  # fmt: skip


@pytest.mark.parametrize("old", sorted(set(MOVED) - FUNCTIONS))
def test_an_old_path_is_the_same_module(old):
    new = importlib.import_module(f"surefoot.{MOVED[old]}")
    assert importlib.import_module(f"surefoot.{old}") is new


@pytest.mark.parametrize("old", sorted(FUNCTIONS))
def test_a_path_that_is_a_function_stays_one_and_its_module_is_still_found(old):
    package, _, name = old.rpartition(".")
    here = importlib.import_module(f"surefoot.{package}")
    old_module = importlib.import_module(f"surefoot.{old}")
    new = importlib.import_module(f"surefoot.{MOVED[old]}")
    assert callable(getattr(here, name))
    assert getattr(old_module, name) is getattr(new, name) is getattr(here, name)


def test_a_path_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("surefoot.zeroth_order.no_such_module")
