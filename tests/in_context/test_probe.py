"""What the probe says of algorithms whose name is known."""

import json

import numpy as np
import pytest
import torch

from surefoot.in_context import GaussianPrompts, GDPlusPlus, LoopedTransformer, ProbeReport, probe
from surefoot.in_context._forms.feature import descend, moments
from surefoot.in_context._probe.tied import fit

from . import hidden


@pytest.fixture(scope="module")
def three_loops():
    """A hidden model of three loops with a random A near a multiple of the identity, and its probe."""
    A = hidden.near_identity(5)
    return A, probe(hidden.descent([A] * 3), d=5, n=20, max_loops=5)


def test_three_hidden_loops_are_found_with_their_preconditioner(three_loops, measured):
    A, report = three_loops
    off = float(np.abs(report.A.numpy() - A).max())
    measured("probe: hidden 3-loop model, held-out error", "< 1e-8", report.errors[3])
    measured("probe: hidden 3-loop model, largest error of A", "< 1e-5", off)
    assert (report.verdict, report.loops) == ("gd", 3)
    assert report.fits
    assert report.errors[3] < 1e-8
    assert off < 1e-5
    assert all(e > 1e-3 for k, e in report.errors.items() if k != 3)
    assert report.lin_q < 1e-12
    assert report.lin_y < 1e-12
    assert report.agreement == 1
    assert report.intervals["gd 3"][1] < 1e-8


def test_it_says_how_far_a_is_from_the_inverse_covariance(three_loops):
    A, report = three_loops
    scale = np.trace(A) / 5
    off = np.linalg.norm(A - scale * np.eye(5), 2) / scale
    assert report.scale == pytest.approx(scale, abs=1e-6)
    assert report.distance == pytest.approx(off, abs=1e-6)


@pytest.mark.parametrize("loops", [1, 2, 4])
def test_equal_steps_are_gradient_descent_though_unequal_ones_fit_as_well(loops):
    report = probe(
        hidden.descent(hidden.steps(*[0.6] * loops, d=4)), d=4, n=16, max_loops=loops + 1, size=48
    )
    assert (report.verdict, report.loops) == ("gd", loops)
    assert report.competitors["untied"] < 1e-12
    assert report.scale == pytest.approx(0.6, abs=1e-6)
    assert report.distance < 1e-5


def test_a_model_trained_on_correlated_features_is_compared_with_their_inverse_covariance():
    root = np.random.default_rng(1).normal(size=(3, 3))
    sigma = root @ root.T + 0.5 * np.eye(3)
    prompts = GaussianPrompts(3, 12, sigma=torch.tensor(sigma), seed=1)
    A = 0.7 * np.linalg.inv(sigma)
    report = probe(hidden.descent([A] * 2), d=3, n=12, max_loops=3, prompts=prompts, size=48)
    assert (report.verdict, report.loops) == ("gd", 2)
    assert report.scale == pytest.approx(0.7, abs=1e-6)
    assert report.distance < 1e-5
    assert report.optimal == pytest.approx(0.5964, abs=0.2)


def test_ridge_is_no_gradient_descent(measured):
    report = probe(hidden.solved(1.0), d=5, n=20, max_loops=6, size=96)
    measured("probe: ridge, best fit of 1 to 6 loops", "> 1e-3", min(report.errors.values()))
    assert min(report.errors.values()) > 1e-3
    assert report.verdict == "ridge"
    assert report.fits
    assert report.alpha == pytest.approx(1, rel=1e-6)
    assert report.loops is None
    assert report.A is None


def test_least_squares_on_long_prompts_is_not_taken_for_gradient_descent(measured):
    report = probe(hidden.solved(0), d=3, n=96, max_loops=6, size=64)
    measured("probe: OLS d = 3, n = 96, tied fit at 4 and 6 loops", "< 1e-3, yet OLS",
             f"{report.errors[4]:.2g}, {report.errors[6]:.2g}")  # fmt: skip
    # Alone, an error this small would pass.
    assert report.errors[4] < 1e-3
    assert report.errors[6] < 1e-5
    assert report.verdict == "ols"


def test_least_squares_of_least_norm_is_found_where_features_outnumber_examples():
    report = probe(hidden.solved(0), d=5, n=3, max_loops=2, size=32)
    assert report.verdict == "ols"
    assert report.fits


def test_steps_of_different_sizes_are_told_from_equal_ones(measured):
    sizes = (0.5, 0.8, 1.7)
    report = probe(hidden.descent(hidden.steps(*sizes, d=5)), d=5, n=20, max_loops=4, size=96)
    measured("probe: untied 3 steps, best tied fit", "> 1e-3", min(report.errors.values()))
    assert min(report.errors.values()) > 1e-3
    assert report.verdict == "untied"
    assert report.untied_loops == 3
    np.testing.assert_allclose(report.steps, sizes, rtol=1e-6)


def test_softmax_attention_is_not_linear_in_the_query(measured):
    report = probe(hidden.softmax_attention, d=5, n=20, max_loops=2, size=64)
    measured("probe: softmax attention, error of linearity", "> 0.1", report.lin_q)
    assert report.lin_q > 0.1
    assert report.verdict == "not linear in the query"
    assert not report.fits
    assert report.loops is None


def test_a_constant_added_is_not_linear_in_the_query():
    gd = hidden.descent(hidden.steps(0.6, d=3))
    report = probe(lambda X, y, xq: gd(X, y, xq) + 0.01, d=3, n=10, max_loops=1, size=16)
    assert report.verdict == "not linear in the query"


def test_clipped_labels_are_not_linear_in_y():
    gd = hidden.descent(hidden.steps(0.6, 0.6, d=4))
    report = probe(lambda X, y, xq: gd(X, y.clamp(-1, 1), xq), d=4, n=16, max_loops=2, size=32)
    assert report.lin_q < 1e-3
    assert report.verdict == "not linear in y"


def test_predicting_nothing_is_zero():
    report = probe(hidden.nothing, d=3, n=10, max_loops=3, size=16)
    assert report.verdict == "zero"
    assert report.fits
    assert report.lin_q == report.lin_y == 0
    assert report.competitors["zero"] == 0
    assert report.competitors["ols"] > 0.5
    assert report.A is None


def test_what_no_candidate_explains_is_called_so():
    # Another preconditioner in every step, none of them a multiple of the identity.
    layers = [np.diag(v) for v in ([1.0, 0.1, 0.4], [0.1, 1.0, 0.7], [0.6, 0.6, 0.1])]
    report = probe(hidden.descent(layers), d=3, n=12, max_loops=4, size=64)
    assert report.verdict != "gd"
    assert not report.fits
    assert "none of the candidates" in str(report)


def test_gd_plus_plus_is_no_plain_gradient_descent():
    model = GDPlusPlus(4, 2, dtype=torch.float64)
    with torch.no_grad():
        model.A.copy_(0.6 * torch.eye(4))
        model.gamma.fill_(0.3)
    report = probe(model, d=4, n=16, max_loops=4, size=64)
    assert report.verdict != "gd"


def test_a_module_in_float32_is_probed_as_it_is():
    model = LoopedTransformer(4, 2, dtype=torch.float32)
    A = hidden.near_identity(4)
    with torch.no_grad():
        model.A.copy_(torch.tensor(A))
    report = probe(model.train(), d=4, n=12, max_loops=3, size=48)
    assert (report.verdict, report.loops) == ("gd", 2)
    np.testing.assert_allclose(report.A.numpy(), A, atol=1e-5)
    assert model.training
    assert report.name == "LoopedTransformer"


def test_a_deep_unsymmetric_preconditioner_is_found_though_some_prompts_diverge():
    # From the same start, a sum of squares that the diverging prompts rule ends at 5e-4 instead.
    torch.manual_seed(1)
    A = 0.6 * torch.eye(5, dtype=torch.float64) + 0.2 * torch.randn(5, 5, dtype=torch.float64)
    prompt = GaussianPrompts(5, 20, seed=1).sample(256)
    Sh, g = moments(prompt.X, prompt.y)
    W = descend(Sh, g, [A] * 6)[-1]
    assert (W - prompt.w).norm(dim=1).max() > 20 * (W - prompt.w).norm(dim=1).median()
    found = fit(Sh, g, W, 6, 0.3 * torch.eye(5, dtype=torch.float64))
    assert (found - A).abs().max() < 1e-5


def test_the_same_seed_gives_the_same_report_and_another_one_other_prompts():
    fn = hidden.descent(hidden.steps(0.6, 0.6, d=3))
    one, two, other = (
        probe(fn, d=3, n=8, max_loops=2, size=16, seed=s).to_dict() for s in (0, 0, 1)
    )
    assert one == two
    assert one["errors"] != other["errors"]


def test_a_verdict_near_its_threshold_is_not_said_firmly():
    gd = hidden.descent(hidden.steps(0.6, 0.6, d=3))
    # The cube of the query is about 0.1% of the answer.
    report = probe(
        lambda X, y, xq: gd(X, y, xq) + 6e-4 * y.norm(dim=1) / 3 * xq[:, 0] ** 3,
        d=3, n=10, max_loops=2, size=40,
    )  # fmt: skip
    low, high = report.intervals["lin_q"]
    assert low < 1e-3 < high
    assert 0.02 < report.agreement < 0.98


def test_one_step_of_one_feature():
    report = probe(hidden.descent(hidden.steps(0.5, d=1)), d=1, n=6, max_loops=2, size=16)
    assert (report.verdict, report.loops) == ("gd", 1)


@pytest.mark.parametrize(
    "fn",
    [
        hidden.nothing, hidden.softmax_attention,
        # Ten loops of far too long a step: weights of 1e40 and more.
        hidden.descent(hidden.steps(*[1e4] * 10, d=2)),
    ],
    ids=["zero", "softmax", "diverging"],
)  # fmt: skip
def test_every_report_is_json_and_a_table(fn):
    report = probe(fn, d=2, n=6, max_loops=3, size=12)
    assert isinstance(report, ProbeReport)
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["verdict"] == report.verdict
    assert found["errors"].keys() == {"1", "2", "3"}
    for words in ("verdict:", "in the query", "3 steps", "least squares", "y without noise"):
        assert words in str(report)


def test_the_picture_has_a_panel_for_every_number_of_steps(three_loops):
    _, report = three_loops
    figure = report.picture()
    points = [t for t in figure.data if t.mode == "markers"]
    assert [t.name for t in points] == [f"k = {k}" for k in range(1, 6)]
    # Where the steps are the model's, every point lies on the line; elsewhere not.
    gaps = [float(np.abs(np.subtract(t.x, t.y)).max()) for t in points]
    assert gaps[2] < 1e-6
    assert min(gaps[:2] + gaps[3:]) > 1e-2
    assert "3 steps" in figure.layout.title.text


# -- layer by layer --------------------------------------------------------------------------------


def test_each_layer_is_a_step_of_its_own():
    layers = [hidden.near_identity(3, seed=s, size=0.3 + 0.3 * s) for s in range(3)]
    report = probe(hidden.layerwise(layers), d=3, n=12, max_loops=3, size=48, layerwise=True)
    assert report.verdict != "gd"
    assert [fit.layer for fit in report.layers] == [1, 2, 3]
    for found, A in zip(report.layers, layers, strict=True):
        assert found.is_gd
        assert found.error < 1e-20
        np.testing.assert_allclose(found.A.numpy(), A, atol=1e-9)


def test_a_layer_that_is_no_step_is_the_one_that_is_named():
    A = hidden.near_identity(3)
    gd = hidden.layerwise([A] * 3)

    def fn(X, y, xq):
        found = gd(X, y, xq)
        # From the second layer on, least squares is mixed in.
        found[:, 1:] += 0.3 * hidden.solved(0)(X, y, xq)[:, None]
        return found

    report = probe(fn, d=3, n=12, max_loops=3, size=48, layerwise=True)
    assert [fit.is_gd for fit in report.layers] == [True, False, True] or [
        fit.is_gd for fit in report.layers
    ] == [True, False, False]
    assert "not gd" in str(report)


def test_a_start_of_zeros_counts_as_no_layer():
    A = hidden.near_identity(3)
    report = probe(
        hidden.layerwise([A] * 2, start=True), d=3, n=12, max_loops=3, size=24, layerwise=True
    )
    assert (report.verdict, report.loops, len(report.layers)) == ("gd", 2, 2)


# -- prompts of one's own --------------------------------------------------------------------------


def test_prompts_of_ones_own_are_split_into_halves():
    rng = np.random.default_rng(0)
    X, w = rng.uniform(-2, 2, size=(120, 3, 12)), rng.normal(size=(120, 3))
    y, xq = np.einsum("bd,bdn->bn", w, X), rng.normal(size=(120, 3))
    A = hidden.near_identity(3)
    report = probe(hidden.descent([A] * 2), d=3, n=12, max_loops=3, prompts=(X, y, xq))
    assert (report.verdict, report.loops) == ("gd", 2)
    assert (report.fitted, report.held) == (60, 60)
    assert report.optimal is None
    (kurtosis,) = [a for a in report.assumptions if "kurtosis" in a.name]
    assert kurtosis.holds is False
    assert "fails" in str(report)
    same = GaussianPrompts(3, 12, seed=0).sample(40)
    assert probe(hidden.nothing, d=3, n=12, max_loops=1, prompts=same).held == 20


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (GaussianPrompts(4, 10), "prompts must have X"),
        (GaussianPrompts(3, 9), "prompts must have X"),
        ((np.zeros((9, 3, 10)), np.zeros((9, 9)), np.zeros((9, 3))), "prompts must have X"),
        ((np.ones((4, 3, 10)), np.ones((4, 10)), np.ones((4, 3))), "at least 8"),
        ((np.full((20, 3, 10), np.nan), np.ones((20, 10)), np.ones((20, 3))), "X of prompts"),
        (np.zeros((20, 3, 10)), "prompts must have a method sample"),
        ("digits", "prompts must have a method sample"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts, words):
    with pytest.raises(ValueError, match=words):
        probe(hidden.nothing, d=3, n=10, prompts=prompts, max_loops=1)


@pytest.mark.parametrize(
    "changed",
    [
        {"d": 0}, {"n": 0}, {"max_loops": 0}, {"max_loops": 1.5}, {"seed": -1}, {"size": 2},
        {"confidence": 1}, {"confidence": float("nan")}, {"d": True},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_out_of_range_are_named(changed):
    given = {"d": 3, "n": 10, "max_loops": 1} | changed
    with pytest.raises(ValueError, match=next(iter(changed))):
        probe(hidden.nothing, **given)


def test_more_prompts_than_there_are_is_refused():
    prompt = GaussianPrompts(3, 10, seed=0).sample(20)
    with pytest.raises(ValueError, match="at least 24"):
        probe(hidden.nothing, d=3, n=10, prompts=prompt, size=12, max_loops=1)
