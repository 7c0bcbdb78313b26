"""What several methods share: checks of arguments, seeds from words, digests of tensors."""

import enum
import hashlib
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.digest import tensors_digest
from surefoot._numerics.seeds import generator_for, hash64, seed_for


@pytest.mark.parametrize(
    "given",
    [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0), Fraction(2),
     torch.tensor(2.0, requires_grad=True), torch.tensor(2, dtype=torch.int8)],
)  # fmt: skip
def test_a_number_of_any_kind_comes_back_as_a_python_number(given):
    found = check_number("lr", given, above=0)
    assert type(found) is float
    assert found == 2.0
    whole = check_number("rank", given, least=2, most=2, whole=True)
    assert type(whole) is int
    assert whole == 2


@pytest.mark.parametrize(
    "given",
    [True, np.True_, torch.tensor(True), "2", b"2", np.str_("2"), None, [2], (2,), np.array([2.0]),
     torch.ones(1), np.ones(2), 2j, np.complex64(2), torch.tensor(2j), math.nan, np.float32("nan"),
     torch.tensor(math.nan), {}],
)  # fmt: skip
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_no_number_is_refused_under_its_name(given, whole):
    with pytest.raises(ValueError) as error:
        check_number("lr", given, least=0, whole=whole, finite=False)
    assert str(error.value) == f"lr must be a number, got {given!r}"


@pytest.mark.parametrize("given", [math.inf, -math.inf, np.float32("inf"), torch.tensor(math.inf)])
def test_infinity_is_refused_where_it_is_not_allowed(given):
    with pytest.raises(ValueError) as error:
        check_number("lr", given)
    assert str(error.value) == f"lr must be a finite number, got {given!r}"
    with pytest.raises(ValueError) as error:
        check_number("lr", given, whole=True, finite=False)
    assert str(error.value) == f"lr must be a whole number, got {given!r}"
    assert check_number("lr", given, finite=False) == given


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "said"),
    [
        ({"above": 0}, [5e-324, 1e308], [0, -1], "positive and finite"),
        ({"above": 0, "finite": False}, [math.inf], [0], "positive"),
        ({"above": 1}, [1.0000001], [1], "above 1"),
        ({"least": 0}, [0, -0.0], [-5e-324], "at least 0 and finite"),
        ({"least": 0, "finite": False}, [math.inf], [-1], "at least 0"),
        ({"most": 3}, [3, -1e9], [3.1], "at most 3 and finite"),
        ({"below": 3}, [2.9], [3], "below 3 and finite"),
        ({"least": 0, "most": 1}, [0, 1], [-0.1, 1.1], "between 0 and 1"),
        ({"least": 0, "below": 1}, [0, 0.9], [1], "in [0, 1)"),
        ({"above": 0, "most": 1}, [1, 0.1], [0], "in (0, 1]"),
        ({"above": 0, "below": 1}, [0.5], [0, 1], "strictly between 0 and 1"),
        ({"least": 1, "whole": True}, [1, 1e6, 10**400], [0, 1.5], "a whole number of at least 1"),
        ({"least": 1, "most": 8, "whole": True}, [8], [9], "a whole number between 1 and 8"),
        ({"most": 8, "whole": True}, [-1], [9, -math.inf], "a whole number of at most 8"),
        ({"above": 0, "whole": True}, [1], [0], "a whole number above 0"),
        ({"above": 0, "most": 1 / 3}, [1 / 3], [0.34], "in (0, 0.333333]"),
    ],
)  # fmt: skip
def test_each_bound_holds_and_is_said(bounds, inside, outside, said):
    for given in inside:
        assert check_number("x", given, **bounds) == given
    for given in outside:
        with pytest.raises(ValueError, match=re.escape(f"x must be {said}")) as error:
            check_number("x", given, **bounds)
        assert str(error.value).endswith(f", got {given!r}")


def test_a_whole_number_beyond_double_precision_is_kept():
    assert check_number("seed", 2**63 + 1, whole=True) == 2**63 + 1


def test_a_number_too_large_for_a_double_is_refused_where_a_double_is_needed():
    with pytest.raises(ValueError, match="x must be a number"):
        check_number("x", 10**400)


class Colour(enum.StrEnum):
    RED = "red"


def test_a_choice_comes_back_as_it_stands_in_the_list():
    assert check_choice("mode", np.str_("a"), ("a", "b")) == "a"
    assert type(check_choice("mode", np.str_("a"), ("a", "b"))) is str
    assert check_choice("mode", Colour.RED, ["red"]) == "red"
    assert check_choice("debias", None, (None, "trace")) is None
    assert check_choice("sqrt", "eigh", {"eigh": 1, "matmul": 2}) == "eigh"
    assert check_choice("order", 2, (1, 2)) == 2


@pytest.mark.parametrize("given", ["c", True, 1.5, None, ["a"], np.ones(2), torch.ones(2), "A"])
def test_another_choice_is_refused_with_the_list(given):
    with pytest.raises(ValueError) as error:
        check_choice("mode", given, ("a", "b", 1))
    assert str(error.value) == f"mode must be one of 'a', 'b', 1, got {given!r}"


ABC = (
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, SHA-256 of abc
)


def test_a_seed_is_the_head_of_the_published_digest():
    assert seed_for("abc") == int(ABC[:16], 16) >> 1
    assert seed_for("a|b", 1) == seed_for("a", "b", 1)
    assert len({seed_for(i, j) for i in range(40) for j in range(40)}) == 1600
    assert seed_for(1, 23) != seed_for(12, 3)


def test_the_hash_of_a_step_is_that_of_the_command_line_tool():
    # printf '3\x1fV\x1f0\x1f1' | b2sum -l 64, its bytes read from the low end
    assert hash64(3, "V", 0, 1) == int.from_bytes(bytes.fromhex("749534f7eac0da9c"), "little") >> 1


def test_a_generator_of_its_own_leaves_the_global_one_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = torch.randn(4, generator=generator_for(1, "layer"))
    assert torch.equal(torch.get_rng_state(), state)
    again = torch.Generator().manual_seed(seed_for(1, "layer"))
    assert torch.equal(first, torch.randn(4, generator=again))


def test_a_digest_is_the_published_one_of_the_same_bytes():
    abc = torch.tensor([97, 98, 99], dtype=torch.uint8)
    assert tensors_digest([("w", abc)], "").hex() == ABC
    assert tensors_digest([("a", torch.empty(0)), ("bc", torch.empty(0))], "{name}").hex() == ABC
    labelled = tensors_digest([("w{}", abc[None]), ("v", abc)], "{name}|{dtype}|{shape}|")
    text = b"w{}|torch.uint8|(1, 3)|abcv|torch.uint8|(3,)|abc"
    assert labelled == hashlib.sha256(text).digest()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64, torch.bool])
def test_a_digest_sees_every_bit_of_any_layout(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)

    def of(t):
        return tensors_digest([("w", t)], "{name}{shape}{dtype}")

    assert of(tensor.T) == of(tensor.T.contiguous())
    assert of(tensor) != of(tensor.T)
    assert of(tensor.requires_grad_(tensor.dtype.is_floating_point)) == of(tensor.detach().clone())
    zero = torch.zeros(1, dtype=dtype)
    assert of(zero) == of(zero.clone())
    if dtype.is_floating_point:
        assert of(zero) != of(-zero)
    assert of(torch.zeros((), dtype=dtype)) != of(zero)
