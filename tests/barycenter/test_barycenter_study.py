"""The study: its averages against independent ones, its contaminations, and the parts run small."""

import sys

import numpy as np
import pytest
import torch

from surefoot.barycenter.experiments import (
    closed_form,
    convergence,
    estimators,
    motions,
    picture,
    robustness,
    speed,
)
from surefoot.barycenter.experiments.speed import random_covs
from surefoot.barycenter.guarantee import G1, G4, G5
from surefoot.barycenter.study import STUDY, BarycenterConfig
from surefoot.certificate import certify
from surefoot.errors import MissingExtraError
from surefoot.guarantee import Verdict
from surefoot.record import Record


def test_classical_averages_agree_with_the_peers():
    mean = pytest.importorskip("pyriemann.geometry.mean")
    covs = random_covs(0, 9, 4, 0.1, 2)
    np.testing.assert_allclose(
        estimators.geometric(covs), mean.mean_riemann(covs, tol=1e-12, maxiter=500), atol=1e-7
    )
    np.testing.assert_allclose(estimators.harmonic(covs), mean.mean_harmonic(covs), atol=1e-12)
    median = pytest.importorskip("pyriemann.geometry.median").median_riemann
    np.testing.assert_allclose(
        estimators.geometric(covs, median=True), median(covs, tol=1e-12, maxiter=500), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["burst", "line", "flat", "mixed"])
def test_contamination_spoils_the_share_and_nothing_else(kind):
    covs = random_covs(1, 20, 3, 0.5, 1)
    spoilt = estimators.contaminate(covs, kind, 0.3, np.random.default_rng(0))
    changed = (spoilt != covs).any(axis=(1, 2))
    assert changed.sum() == 6
    assert (np.linalg.eigvalsh(spoilt) > 0).all()
    assert (covs == random_covs(1, 20, 3, 0.5, 1)).all()


def test_the_picture_is_judged_and_its_numbers_are_the_published_ones():
    record, config = Record(), BarycenterConfig()
    picture.run(config, 0, record)
    verdicts = {c.name: certify(record, c).verdict for c in picture.guarantees(config)}
    assert verdicts[G1] == verdicts[G4] == verdicts[G5] == Verdict.KEPT
    (table,) = picture.tables(config, record).values()
    (figure,) = picture.figures(config, record).values()
    assert {line.name: len(line.x) for line in figure.data}["unit steps: F - F*"] == 101
    printed = table[table["first input"] == "printed"].set_index("result")
    assert printed.loc["100 unit steps", "B11"] == pytest.approx(1.4737, abs=1e-3)
    assert printed.loc["optimum", "B11"] == pytest.approx(2.4304, abs=1e-3)
    assert printed.loc["printed by the authors", "B11"] == pytest.approx(1.4737, abs=1e-3)
    ours = table.dropna()
    assert len(ours) == 4
    assert (ours["optimality gap"] >= ours["F - F*"]).all()
    # The excess is that over the optimum, not over the end of a run that did not converge.
    assert record["excess"][0, -1] > 1e-5


@pytest.fixture(scope="module")
def pairs():
    record = Record()
    closed_form.run(BarycenterConfig(), 0, record)
    return record


WRONG = {
    closed_form.NUMBERS: (closed_form.FOUND, 1e-9),
    closed_form.VALUE: (closed_form.UPSILON, 1e-10),
    closed_form.MINIMUM: (closed_form.UPSILON, 1e-8),
    closed_form.DUAL: (closed_form.GAP, 1e-9),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_closed_form_is_kept_and_a_wrong_value_is_broken(pairs, name):
    (claim,) = (c for c in closed_form.guarantees(BarycenterConfig()) if c.name == name)
    assert certify(pairs, claim).verdict == Verdict.KEPT
    quantity, off = WRONG[name]
    wrong = Record()
    for column in pairs.quantities:
        wrong.extend(0, column, pairs[column][0] + off * (column == quantity))
    assert certify(wrong, claim).verdict == Verdict.BROKEN


def test_the_inputs_of_the_convergence_setting_are_the_authors(monkeypatch):
    monkeypatch.setattr(convergence, "N", 3)
    with torch.random.fork_rng():
        torch.manual_seed(4444)
        for A in convergence.inputs():
            w = torch.rand(50) * 0.9 + 0.1
            normal = torch.distributions.MultivariateNormal(torch.zeros(50), torch.diag(w))
            normal.sample((1000,))
            np.testing.assert_array_equal(A, np.diag(w.double().numpy()))


def test_the_convergence_setting_small(monkeypatch):
    for name, value in {"N": 5, "D": 3, "POINTS": (0, 5, 20)}.items():
        monkeypatch.setattr(convergence, name, value)
    record, config = Record(), BarycenterConfig()
    convergence.run(config, 0, record)
    # In three dimensions the plotted loss is not saturated, and falls.
    verdicts = {c.name: certify(record, c).verdict for c in convergence.guarantees(config)}
    assert set(verdicts.values()) == {Verdict.KEPT}
    way, limit = convergence.tables(config, record).values()
    assert (np.diff(way["mean Upsilon"]) < 0).all()
    assert limit["mean Upsilon"].max() - limit["mean Upsilon"].min() < 1e-13
    assert limit["optimality gap"].max() < 1e-9


@pytest.mark.acceptance
def test_the_convergence_setting_of_the_authors(measured):
    record, config = Record(), BarycenterConfig()
    convergence.run(config, 0, record)
    way, limit = (t.set_index(t.columns[0]) for t in convergence.tables(config, record).values())
    expected = {0: 0.196640, 50: 0.064277, 100: 0.048098, 230: 0.046368}
    for k, number in expected.items():
        measured(f"S9 mean Upsilon, k={k}", number, f"{way.loc[k, 'mean Upsilon']:.6f}")
        assert way.loc[k, "mean Upsilon"] == pytest.approx(number, abs=1e-6)
    assert way.loc[230, "free loss, as plotted"] == pytest.approx(0.0098700158, abs=1e-10)
    assert way.loc[500, "free loss, as plotted"] == pytest.approx(0.0098706626, abs=1e-10)
    assert limit.loc["bb", "mean Upsilon"] == pytest.approx(0.0463640900, abs=1e-10)
    measured("S9 steps to 1e-8, eggd and bb", "688 and 10", limit["steps"].astype(int).tolist())
    verdicts = {c.name: certify(record, c).verdict for c in convergence.guarantees(config)}
    assert verdicts == {
        G1: Verdict.KEPT, G5: Verdict.KEPT, convergence.SATURATED: Verdict.BROKEN,
    }  # fmt: skip


def test_bursts_ruin_the_wasserstein_mean_and_vanishing_inputs_the_fixed_mass():
    record, config = Record(), BarycenterConfig()
    robustness.run_digits(config, 0, record)
    table = robustness.digits_tables(config, record)
    error = next(iter(table.values())).set_index("average")
    assert error.loc["Wasserstein", "burst"] > 3 * error.loc["SUOT fixed, tau 1", "burst"]
    assert error.loc["SUOT fixed, tau 1", "flat"] > error.loc["Wasserstein", "flat"]
    assert error.loc["SUOT free, tau 1"].max() < 0.1


def test_steps_by_tau_and_dimension():
    config = BarycenterConfig()
    record = Record()
    speed.run_acceleration(config, 0, record)
    (table,) = speed.acceleration_tables(config, record).values()
    steps, bb = table.set_index("tau"), "Barzilai-Borwein steps"
    assert (steps[bb] <= 25).all()
    assert (steps[f"{bb}, share that arrived"] == 1).all()
    assert steps.loc[0.1, "unit steps"] > 3 * steps.loc[0.1, bb]
    (figure,) = speed.acceleration_figures(config, record).values()
    assert [line.name for line in figure.data] == ["unit steps", bb]


def test_every_part_runs_somewhere():
    assert [p.name for p in STUDY.parts] == [
        "closed-form", "picture", "dimension", "acceleration", "eeg", "digits", "motions", "convergence",
    ]  # fmt: skip


def write_motions(path, rng):
    """Two activities, one in the first channel and one in the second, 10 and 10 recordings of each."""
    for half in ("TRAIN", "TEST"):
        lines = ["@classLabel true first second", "@data"]
        for c, label in enumerate(["first", "second"] * 10):
            x = rng.standard_normal((3, 60)) * np.where(np.arange(3) == c % 2, 3.0, 1.0)[:, None]
            lines.append(":".join(",".join(f"{v:.6f}" for v in row) for row in x) + f":{label}")
        (path / f"Toy_{half}.ts").write_text("\n".join(lines))


@pytest.mark.acceptance
def test_motions_are_told_apart_by_a_real_mdm(tmp_path):
    pytest.importorskip("pyriemann")
    write_motions(tmp_path, np.random.default_rng(0))
    record, config = Record(), BarycenterConfig(motions=tmp_path)
    train, y, _, _ = motions.covariances(config)
    assert np.trace(train, axis1=1, axis2=2).mean() == pytest.approx(3)
    for kind, changed in (("clean", 0), ("burst", 3), ("flat", 3)):
        spoilt = (motions.spoil(train, y, kind, 0) != train).any(axis=(1, 2))
        assert [spoilt[y == c].sum() for c in (0, 1)] == [changed, changed]
    motions.run(config, 0, record)
    accuracy = next(iter(motions.tables(config, record).values())).set_index("average")
    assert (accuracy["clean"] == 1).all()
    assert (accuracy.loc[accuracy.index.str.startswith("SUOT"), "burst"] == 1).all()


def test_motions_say_what_to_install(monkeypatch):
    for name in ("pyriemann", "pyriemann.classification"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'surefoot\[bench\]'"):
        motions.run(BarycenterConfig(), 0, Record())


@pytest.mark.acceptance
def test_accuracy_on_real_motions(measured):
    """The accuracies that the specification's prototype found, where this data and scaling repeat them."""
    pytest.importorskip("pyriemann")
    record, config = Record(), BarycenterConfig()
    for seed in range(5):
        motions.run(config, seed, record)
    accuracy = next(iter(motions.tables(config, record).values())).set_index("average")
    expected = {
        ("Wasserstein", "burst"): ".785", ("affine-invariant", "burst"): "1.0",
        ("SUOT fixed, tau .01", "burst"): "1.0", ("SUOT fixed, tau .1", "burst"): "1.0",
        ("SUOT fixed, tau 1", "burst"): "1.0",
        ("SUOT free, tau 1, median temperature", "burst"): ".995",
        ("affine-invariant", "flat"): ".525", ("harmonic", "flat"): ".25",
        ("Wasserstein", "flat"): ".95", ("affine-invariant median", "flat"): ".965",
        ("SUOT fixed, tau 1", "flat"): ".925",
        ("SUOT free, tau 1, median temperature", "flat"): ".82",
    }  # fmt: skip
    for (name, kind), number in expected.items():
        measured(f"S7 {kind}, {name}", number, f"{accuracy.loc[name, kind]:.3f}")
    assert (accuracy["clean"] >= 0.975).all()
    fixed = accuracy.loc[accuracy.index.str.startswith("SUOT fixed")]
    assert (fixed["burst"] == 1).all()
    assert accuracy.loc["Wasserstein", "burst"] < 0.95
    assert accuracy.loc["affine-invariant", "flat"] < 0.6


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["SelfRegulationSCP1", "HandMovementDirection"])
def test_robustness_on_real_recordings(name, measured):
    """Five seeds of contamination; the bars are held against the mean, the worst is shown."""
    config = BarycenterConfig()
    covs = robustness.trial_covariances(config, name)
    shifts = {}
    for average in ("Wasserstein", "SUOT fixed, tau .1", "SUOT free, tau 1"):
        mean = estimators.MEANS[average]
        clean = mean(covs)
        for kind in robustness.KINDS:
            shifts[average, kind] = [
                estimators.distance(
                    mean(estimators.contaminate(covs, kind, 0.3, np.random.default_rng(s))), clean
                )
                for s in range(5)
            ]
    ratio = np.mean(shifts["Wasserstein", "burst"]) / np.mean(shifts["SUOT fixed, tau .1", "burst"])
    measured(f"8.10 W2 / SUOT tau=.1 under burst, {name}", ">= 10", f"{ratio:.1f}")
    for kind in robustness.KINDS:
        free = shifts["SUOT free, tau 1", kind]
        worst = f"{np.mean(free):.4f} (worst {max(free):.4f})"
        measured(f"8.10 free mass under {kind}, {name}", "<= .035", worst)
    assert ratio >= 10
    # The other set does not reach this bar: it is a measurement in benchmarks/.
    if name == "HandMovementDirection":
        assert all(np.mean(shifts["SUOT free, tau 1", k]) <= 0.035 for k in robustness.KINDS)
    flat = np.mean(shifts["SUOT fixed, tau .1", "flat"])
    assert flat > np.mean(shifts["Wasserstein", "flat"])
