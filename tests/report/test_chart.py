"""What a picture may not hide, and what it says in words."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surefoot._verdict.curve import PLOT_POINTS, kept_steps
from surefoot.certificate import certify
from surefoot.guarantee import Guarantee
from surefoot.record import Record
from surefoot.report.chart import chart, log_ticks, log_worthy, named
from surefoot.report.drawing import drawing, sparkline
from surefoot.report.embedding import embedded_figure


def certificate(measured, promised, *, statement="x_n <= c", steps=None, sense="upper"):
    record = Record()
    for seed, values in enumerate(np.atleast_2d(measured)):
        record.extend(seed, "optimality_gap", values, steps)
    bound = np.broadcast_to(np.asarray(promised, dtype=float), np.atleast_2d(measured).shape)
    return certify(
        record,
        Guarantee(
            name="claim", statement=statement, source="here", quantity="optimality_gap", sense=sense,
            holds_in="every run", bound=lambda r: bound,
        ),
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.integers(401, 5000))
@settings(max_examples=30, deadline=None)
def test_thinning_keeps_the_extremes_and_every_stretch_that_exceeds(seed, length):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(length).cumsum()
    excess = rng.standard_normal(length)
    at = kept_steps(values, values, excess, PLOT_POINTS)
    assert len(at) <= PLOT_POINTS
    assert (at[0], at[-1]) == (0, length - 1)
    assert values[at].min() == values.min()
    assert values[at].max() == values.max()
    assert excess[at].max() == excess.max()


@pytest.mark.parametrize("sense", ["upper", "lower"])
@pytest.mark.parametrize("where", [3, 50_001, 77_777, 99_999])
def test_one_step_beyond_the_promise_of_100_000_is_seen(where, sense):
    sign = 1 if sense == "upper" else -1
    values = 10.0 - sign * np.linspace(5, 6, 100_000)
    values[where] = 10.0 + sign * 0.1
    found = certificate(values, 10.0, sense=sense)
    assert found.verdict == "BROKEN"
    assert where in found.curve.steps
    assert len(found.curve.steps) <= PLOT_POINTS


def test_a_missing_value_is_kept_too():
    values = np.ones(10_000)
    values[7_123] = np.nan
    assert 7_123 in kept_steps(values, values, np.full(10_000, -1.0), 100)


@given(st.floats(-12, 12), st.floats(0.1, 200))
@settings(deadline=None)
def test_ticks_of_a_logarithmic_scale_keep_their_distance(first, decades):
    low, high = 10.0**first, 10.0 ** (first + decades) if first + decades < 300 else 1e300
    places = [np.log10(v) for v, _ in log_ticks(low, high)]
    assert len(places) <= 8
    assert all(b > a for a, b in itertools.pairwise(places))
    labels = [label for _, label in log_ticks(low, high)]
    assert len(set(labels)) == len(labels)


def test_nothing_is_drawn_of_zeros_or_of_one_step():
    assert (
        chart(certificate([0.0, 0.0, 0.0], 0.0)).words == "Measured 0 at every step, as promised."
    )
    assert "promised 2 at the end" in chart(certificate([0.0, 0.0, 0.0], 2.0)).words
    assert chart(certificate([0.5], 2.0)).words == "Measured 0.5, promised 2."
    for measured in ([0.0, 0.0], [0.5]):
        assert "<svg" not in drawing(certificate(measured, 2.0))


def test_curves_that_coincide_are_said_to():
    values = np.linspace(1, 2, 50)
    assert "equal at every step" in chart(certificate(values, values)).notes[0]
    assert "differ by at most 0.001" in chart(certificate(values - 0.001, values)).notes[0]
    assert not chart(certificate(values, 3.0)).notes


def test_a_zero_on_a_logarithmic_scale_is_said():
    values = np.append(np.geomspace(1, 1e-6, 30), [0.0, 0.0])
    found = chart(certificate(values, 2.0))
    assert found.y.log
    assert found.notes == (
        "The measured is 0 at 2 of 32 steps, which a logarithmic scale does not show.",
    )


def test_steps_that_number_things_are_dots():
    numbered = chart(certificate([1.0, 2.0, 3.0], 4.0, statement="a <= b, a pair a step"))
    assert numbered.dots
    assert numbered.x.title == "pair"
    assert "circle" in drawing(certificate([1.0, 2.0, 3.0], 4.0, statement="a <= b, a pair a step"))
    path = chart(certificate(np.arange(1.0, 60), 70.0))
    assert (path.dots, path.marked, path.x.title) == (False, False, "step")


def test_axes_name_the_quantity_and_the_scale():
    found = chart(certificate(np.geomspace(1, 1e-6, 30), 2.0))
    assert found.y.title == "optimality gap, logarithmic scale"
    assert chart(certificate([1.0, 2.0], 3.0)).y.title == "optimality gap"
    for axis in (found.x, found.y):
        assert all(0 <= axis.place(v) <= 1 for v, _ in axis.ticks)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=40),
    st.floats(-1e30, 1e30),
)
@settings(max_examples=80, deadline=None)
def test_any_numbers_can_be_drawn(values, promised):
    found = certificate(values, promised)
    for text in (drawing(found), sparkline(found)):
        assert "nan" not in text.lower().replace("finan", "")
        for name, limit in (("cx", 420), ("cy", 236)):
            assert all(0 <= float(v) <= limit for v in re.findall(rf'\b{name}="([^"]+)"', text))


EXTREME = [
    1.7e308, -1.7e308, 1e308, 1e300, -3e-300, 2.9e-303, 1e-310, 5e-324, -5e-324, 0.0, 1.0, 516800.0,
]  # fmt: skip


@given(st.lists(st.sampled_from(EXTREME), min_size=1, max_size=8), st.sampled_from(EXTREME))
@settings(max_examples=300, deadline=None)
@example([516800.0], 2.8747920089409615e-303)
@example([1e300, 0.0, 5e-324, -1e308], 516800.0)
@example([0.0], 5e-324)
@example([1.7e308], 1.7e308)
def test_the_ends_of_the_floats_can_be_drawn(values, promised):
    found = certificate(values, promised)
    for text in (drawing(found), sparkline(found)):
        assert "nan" not in text.lower().replace("finan", "")
        for name, limit in (("cx", 420), ("cy", 236)):
            assert all(0 <= float(v) <= limit for v in re.findall(rf'\b{name}="([^"]+)"', text))


def test_a_scale_of_less_than_a_decade_has_ticks_too():
    for low, high in ((3e5, 9e5), (100.0, 140.0), (0.021, 0.1)):
        places = [v for v, _ in log_ticks(low, high)]
        assert len(places) >= 2
        assert all(low <= v <= high for v in places)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("mean_grad_norm2", "mean squared gradient norm"),
        ("8x12, r 2.mean_squared_gradient", "mean squared gradient, 8x12, r 2"),
        ("f(x_n) - f*", "f(x_n) - f*"),
        ("two blocks, noise .5", "two blocks, noise .5"),
    ],
)
def test_a_column_is_named_in_words(column, said):
    assert named(column) == said


def test_what_the_guarantee_says_of_its_quantity_stands_on_the_axis():
    found = dataclasses.replace(certificate([1.0, 2.0], 3.0), axis="bytes sent")
    assert chart(found).y.title == "bytes sent"


def test_log_scales_are_for_what_is_mostly_positive():
    assert log_worthy([1e-3, 1.0, 0.0])
    assert not log_worthy([1.0, 2.0])
    assert not log_worthy([-1.0, 1.0, 100.0])
    assert not log_worthy([0.0, 0.0, 0.0, 1.0, 100.0])


def test_a_figure_of_the_study_is_thinned_and_keeps_its_peak():
    y = np.zeros(100_000)
    y[61_234] = 5.0
    figure = {
        "data": [{"x": list(range(100_000)), "y": y.tolist()}],
        "layout": {"template": {"data": {}}},
    }
    made = embedded_figure(figure)
    assert len(made["data"][0]["y"]) <= 200
    assert 61_234 in made["data"][0]["x"]
    assert "template" not in made["layout"]


def axes(y, kind, **changes):
    axis = {"type": kind, "title": {"text": "loss"}} | changes
    figure = {"data": [{"x": [0, 1, 2], "y": y}], "layout": {"yaxis": axis, "xaxis": {}}}
    return embedded_figure(figure)["layout"]


def test_axes_of_a_studys_figure_say_that_they_are_logarithmic():
    assert axes([1, 10, 1e4], "log")["yaxis"]["title"]["text"] == "loss, logarithmic scale"
    assert axes([1, 10, 1e4], "linear")["yaxis"]["title"]["text"] == "loss"
    said = {"text": "loss (logarithmic)"}
    assert axes([1, 10, 1e4], "log", title=said)["yaxis"]["title"] == said


def test_a_few_whole_numbers_have_no_ticks_between_them():
    found = axes([0.5, 0.25, 0.75], "linear")
    assert found["xaxis"]["dtick"] == 1
    assert "dtick" not in found["yaxis"]


def test_one_number_of_0_is_said_in_words():
    assert "Measured 0, promised 2." in sparkline(certificate([0.0], 2.0))
    assert "Both are 0." in sparkline(certificate([0.0], 0.0))
