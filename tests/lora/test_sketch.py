"""The laws of the frozen factor and the constant lambda_min that the theorems need of them."""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.lora import lambda_min, shared_sketch
from surefoot.lora.sketch import draw_side, projection, sketch_seed

LAWS = ["orthonormal", "gaussian", "kaiming_uniform", "rademacher", "coordinate"]


def sparse(shape, generator):
    keep = torch.rand(shape, generator=generator, dtype=torch.float64) < 0.2
    return torch.randn(shape, generator=generator, dtype=torch.float64) * keep


@pytest.mark.parametrize("law", LAWS)
@given(d=st.integers(2, 9), r=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_every_law_gives_a_factor_of_full_rank(law, d, r, seed):
    r = min(r, d)
    a = shared_sketch(seed, 0, "x", (r, d), law, torch.float64)
    b = shared_sketch(seed, 0, "x", (d, r), law, torch.float64)
    assert a.shape == (r, d)
    assert b.shape == (d, r)
    for s in (a.T, b):
        h = projection(s)
        torch.testing.assert_close(h @ h, h, rtol=0, atol=1e-8)
        assert float(h.trace()) == pytest.approx(r, abs=1e-6)
    if law == "orthonormal":
        torch.testing.assert_close(a @ a.T, torch.eye(r).double(), rtol=0, atol=1e-12)
    if law == "coordinate":
        assert sorted(set(a.flatten().tolist())) in ([0.0, 1.0], [1.0])
        assert (a.sum(1) == 1).all()
    if law == "rademacher":
        assert set(a.abs().flatten().tolist()) == {1.0}


@pytest.mark.parametrize(
    ("law", "std", "variance"),
    [("gaussian", 1.0, 1.0), ("gaussian", None, 1 / 400), ("kaiming_uniform", 1.0, 1 / 1200),
     ("rademacher", 1.0, 1.0)],
)  # fmt: skip
def test_variance_of_the_entries(law, std, variance):
    drawn = torch.cat(
        [shared_sketch(s, 0, "x", (4, 400), law, torch.float64, std).flatten() for s in range(20)]
    )
    assert float(drawn.mean()) == pytest.approx(0, abs=4 * (variance / len(drawn)) ** 0.5)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.05)


def test_kaiming_is_peft_s_own_law():
    ours = shared_sketch(0, 0, "x", (4, 400), "kaiming_uniform")
    theirs = torch.nn.Linear(400, 4, bias=False)  # a=sqrt(5) is the default of torch and PEFT
    torch.nn.init.kaiming_uniform_(
        theirs.weight, a=5**0.5, generator=torch.Generator().manual_seed(0)
    )
    assert float(ours.abs().max()) == pytest.approx(
        float(theirs.weight.detach().abs().max()), rel=0.02
    )


@pytest.mark.parametrize("law", LAWS)
def test_mean_projection_is_isotropic(law):
    for r in (1, 4):
        found = lambda_min(law, 12, r, samples=2_000)
        assert float(lambda_min(law, 12, r)) == r / 12
        assert found.low <= r / 12 <= found.high


@pytest.mark.acceptance
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("r", [1, 2, 4])
def test_mean_projection_within_five_percent(law, r, measured):
    found = lambda_min(law, 12, r, samples=20_000)
    measured(
        f"lambda_min {law}, r = {r}, 20,000 draws", f"{r / 12:.4f} within 5 %", f"{found.value:.4f}"
    )
    assert found.value == pytest.approx(r / 12, rel=0.05)


def test_a_sketch_that_loses_rank_is_reported_below():
    found = lambda_min(sparse, 12, 4, samples=6_000)
    assert found.high < 4 / 12
    # The mean over the draws of the rank gives the trace of E[H] independently of any eigenvalue.
    ranks = [
        int(torch.linalg.matrix_rank(sparse((12, 4), torch.Generator().manual_seed(i))))
        for i in range(2_000)
    ]
    assert found.value <= sum(ranks) / len(ranks) / 12
    assert found.value == pytest.approx(sum(ranks) / len(ranks) / 12, rel=0.1)


def test_rademacher_is_redrawn_until_it_has_full_rank():
    for i in range(200):
        a = shared_sketch(0, i, "x", (3, 3), "rademacher", torch.float64)
        assert abs(float(torch.linalg.det(a))) == pytest.approx(4)


def test_bits_do_not_depend_on_the_process():
    script = (
        "from surefoot.lora import shared_sketch; import hashlib;"
        "print(hashlib.sha256(shared_sketch(3, 7, 'encoder.q', (4, 33)).numpy().tobytes()).hexdigest())"
    )
    here = hashlib.sha256(shared_sketch(3, 7, "encoder.q", (4, 33)).numpy().tobytes()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert here == there


def test_layers_and_blocks_differ():
    seeds = {sketch_seed(s, b, n) for s in range(3) for b in range(10) for n in ("a", "b")}
    assert len(seeds) == 60
    assert all(0 <= s < 2**63 for s in seeds)
    assert sketch_seed(1, 11, "a") != sketch_seed(11, 1, "a")
    assert sketch_seed(1, 1, "1a") != sketch_seed(1, 11, "a")


def test_sides():
    assert [draw_side("alternate", 0, t, 0.5) for t in range(4)] == ["B", "A", "B", "A"]
    drawn = [draw_side("bernoulli(0.3)", 0, t, 0.3) for t in range(2000)]
    assert drawn.count("A") / 2000 == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lambda_min("gaussian", 4, 5), "between 1 and dim = 4"),
        (lambda: lambda_min(sparse, 4, 2), "needs samples"),
        (lambda: lambda_min("gaussian", 4, 2, samples=3), "at least 20"),
        (lambda: shared_sketch(0, 0, "lin", (2, 4), lambda s, g: torch.zeros(4, 2)), "lin.*shape"),
        (lambda: shared_sketch(0, 0, "lin", (2, 4), lambda s, g: None), "NoneType"),
        (
            lambda: shared_sketch(0, 0, "lin", (2, 4), lambda s, g: torch.full(s, torch.nan)),
            "finite",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
