"""The parts of the study at a size of milliseconds, and what each of them must be able to show."""

import json
import math

import numpy as np
import pytest
import torch
from tests.prototypes.clients import clients

from surefoot import Record, Verdict
from surefoot.prototypes import extract_prototypes
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments import (
    accuracy,
    adaptation,
    growth,
    leakage,
    private,
    promises,
    reconstruction,
    settings,
    waiting,
)
from surefoot.prototypes.experiments.image_quality import psnr, ssim
from surefoot.prototypes.experiments.settings import Setting, setting_of
from surefoot.prototypes.experiments.toy import SIDE, toy
from surefoot.prototypes.study import STUDY

CONFIG = PrototypesConfig()


@pytest.fixture(scope="module")
def made():
    return toy("quick", 0)


def surprises(part, record):
    """The part's certificates that are not as announced."""
    found = {c.name: c.verdict for c in part.certificates(CONFIG, record)}
    assert found
    assert set(part.expects) <= set(found)
    announced = dict(part.expects)
    return {n: v for n, v in found.items() if v != announced.get(n, Verdict.KEPT)}


PARTS = {part.name: part for part in STUDY.parts}


@pytest.mark.parametrize("name", ["pooled", "convergence", "privacy", "coverage", "communication"])
def test_what_is_promised_is_as_announced(name, monkeypatch, made):
    at_hand = {"digits": Setting(made.domains, made.head, "toy")}
    monkeypatch.setattr(promises, "setting_of", lambda source, *a: at_hand[source])
    monkeypatch.setattr(promises, "POOLED_STEPS", 10)
    monkeypatch.setattr(promises, "RANDOM_ADAPTERS", 2)
    monkeypatch.setitem(promises.DESCENT_STEPS, "quick", 4)
    monkeypatch.setitem(promises.TRIALS, "quick", 200)
    monkeypatch.setitem(promises.FIT_STEPS, "quick", 5)
    part, record = PARTS[name], Record()
    part.run(CONFIG, 0, record)
    if name == "privacy" and surprises(part, record):
        # Its noise is the operating system's own: by chance one attack in some 2,000 passes its limit.
        record = Record()
        part.run(CONFIG, 0, record)
    assert surprises(part, record) == {}
    for table in part.tables(CONFIG, record).values():
        assert len(table)


def test_every_guarantee_is_in_a_part():
    names = {"pooled": ("G1",), "convergence": ("G4",), "privacy": ("G2", "G3"),
             "coverage": ("G5",), "communication": ("G6",)}  # fmt: skip
    assert {g for found in names.values() for g in found} == {f"G{i}" for i in range(1, 7)}
    for name in names:
        assert "quick" in PARTS[name].sizes


def test_the_paper_s_cost_is_in_closed_form():
    table = promises.communication_tables(CONFIG, _sent())["in closed form"]
    first = table.iloc[0]
    assert first["up and down, MiB"] == pytest.approx(3.5882, abs=1e-4)
    assert first["as many rounds of FedAvg"] == pytest.approx(
        (first["MB up"] + first["MB down"]) / first["one round of FedAvg, MB"]
    )


def _sent():
    record = Record()
    for method in promises.SENT:
        record.append(0, 0, **{f"{method}: bytes up": 1.0, f"{method}: promised bytes up": 1.0})
    return record


def test_domains_of_the_toy_share_no_record(made):
    rows = torch.cat(list(made.pixels))
    assert [d.name for d in made.domains] == [
        "digits", "inverted digits", "rotated digits", "blurred digits"
    ]  # fmt: skip
    assert len(made.public[0]) == 599
    plain = {r.numpy().tobytes() for r in made.pixels[0]}
    assert not plain & {r.numpy().tobytes() for r in made.public[0]}
    upright = (1 - made.pixels[1]).numpy()
    turned = torch.rot90(made.pixels[2].reshape(-1, 8, 8), -1, (1, 2)).flatten(1).numpy()
    for other in (upright, turned):
        assert not plain & {np.round(r * 16).astype(np.float32).tobytes() for r in other}
    for pixels, domain in zip(made.pixels, made.domains, strict=True):
        assert len(pixels) == len(domain.train[0])
    assert rows.min() >= 0
    assert rows.max() <= 1


def test_the_toy_is_a_shift_that_training_undoes(made):
    """Else the part shows nothing."""
    from surefoot.prototypes.experiments.arms import zero_shot

    score = zero_shot(Setting(made.domains, made.head, "toy"))
    assert score.worst < 30 < score.test < 60


# -- attacks ---------------------------------------------------------------------------------------------


def test_signal_to_noise_in_closed_form():
    a = torch.zeros(4, 4)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-5)


def test_structural_similarity_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 8)), rng.random((9, 8))
    values = []
    for i in range(3):
        for j in range(2):
            x, y = a[i : i + 7, j : j + 7].ravel(), b[i : i + 7, j : j + 7].ravel()
            vx, vy, cov = x.var(ddof=1), y.var(ddof=1), np.cov(x, y)[0, 1]
            above = (2 * x.mean() * y.mean() + 1e-4) * (2 * cov + 9e-4)
            below = (x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (vx + vy + 9e-4)
            values.append(above / below)
    assert ssim(torch.as_tensor(a), torch.as_tensor(b)) == pytest.approx(np.mean(values))
    assert ssim(torch.as_tensor(a), torch.as_tensor(a)) == pytest.approx(1.0)


def test_a_perfect_decoder_finds_the_records_that_were_uploaded(made):
    y = made.domains[0].train[1]
    shown = torch.tensor([5, 11])
    peaks, similar, which = reconstruction.nearest(
        made.pixels[0][shown], y[shown], made.pixels[0], y
    )
    assert peaks == [math.inf] * 2
    assert similar == pytest.approx([1.0] * 2)
    assert torch.equal(made.pixels[0][which], made.pixels[0][shown])
    noisy = (made.pixels[0][shown] + 0.3).clamp(max=1)
    worse, less, _ = reconstruction.nearest(noisy, y[shown], made.pixels[0], y)
    assert max(worse) < 30
    assert max(less) < 1


def test_the_decoder_beats_the_public_mean_on_what_it_was_trained_on(made):
    decoder = reconstruction.decoder_of(made, 150, 0)
    x, z = made.public
    own = (decoder(z) - x).square().mean()
    means = torch.stack([x[made.public_labels == c].mean(0) for c in range(10)])
    assert own < 0.9 * (means[made.public_labels] - x).square().mean()


def test_attacks_and_adaptation_fill_their_tables(monkeypatch):
    monkeypatch.setitem(reconstruction.STEPS, "quick", 5)
    monkeypatch.setitem(adaptation.STEPS, "quick", 5)
    monkeypatch.setitem(adaptation.SHOTS, "quick", (1,))
    monkeypatch.setattr(adaptation, "EPOCHS", 1)
    for part in (reconstruction, adaptation):
        record = Record()
        part.run(CONFIG, 0, record)
        (table,) = part.tables(CONFIG, record).values()
        assert np.isfinite(table.select_dtypes("number").to_numpy()).all()
        if part is reconstruction:
            (heat,) = part.figures(CONFIG, record)["what a decoder sees"].data
            names = (*part.UPLOADS, part.GUESS)
            # Nothing but the images themselves, each whole: two of each upload.
            assert np.isfinite(heat.z).sum() == 2 * len(names) * SIDE**2
            private = record[f"{names[-1]}: private"][0].reshape(SIDE, SIDE)
            assert (heat.z[-SIDE:, -SIDE:] == private).all()


def test_a_record_in_the_upload_is_retrieved_and_a_stranger_is_not():
    (members, others, _) = clients(3)
    upload = extract_prototypes(*members, "random", 0.2, seed=0)
    assert leakage.retrieved(upload, members, others)[::2] == (1.0, 1.0)
    foreign = extract_prototypes(*others, "random", 0.2, seed=0)
    hits, chance, rank = leakage.retrieved(foreign, members, others)
    assert hits == 0.0
    assert 0 < chance < 1
    assert rank >= 2


# -- accuracy --------------------------------------------------------------------------------------------


def test_accuracy_for_bytes_on_small_clients(monkeypatch):
    from tests.prototypes.clients import head

    from surefoot.prototypes.experiments import arms
    from surefoot.prototypes.splits import Domain

    domains = [Domain(str(i), (z[:20], y[:20]), (z[20:26], y[20:26]), (z[26:], y[26:]))
               for i, (z, y) in enumerate(clients(2, n=34))]  # fmt: skip
    monkeypatch.setattr(accuracy, "setting_of", lambda *a: Setting(domains, head(), "toy"))
    # As many candidates as at size standard, of fewer steps.
    monkeypatch.setitem(arms.STEPS, "standard", (1, 2, 3, 4, 5, 6))
    monkeypatch.setitem(arms.LOCAL, "standard", (1, 2, 3))
    monkeypatch.setitem(arms.ROUNDS, "standard", (1, 2, 3))
    monkeypatch.setitem(arms.FEW_ROUNDS, "standard", (1, 2, 3))
    config, record = PrototypesConfig(size="standard"), Record()
    monkeypatch.setitem(accuracy.HANDICAP, "standard", (1, 2))
    accuracy.run_on("digits")(config, 0, record)
    tables = accuracy.tables(config, record)
    (table, chosen) = tables.values()
    assert {"FedProx", "Ditto", "MOON", "FedProto", "DBE", "zero-shot", "cluster_var .06"} <= set(
        table["arm"]
    )
    tuned = table[table["candidates"] != "none, nothing is tuned"]
    counts = tuned.set_index("arm")["candidates"]
    assert counts.pop(accuracy.SHORT) == "12"  # none of these has 20 local epochs
    assert set(counts) == {"12"}  # equal tuning
    untuned = set(table["arm"]) - set(tuned["arm"])
    paper = {accuracy.paper_arm("1 round"), accuracy.paper_arm("2 rounds")}
    assert untuned == {"zero-shot", accuracy.STOPPED} | paper
    assert all("handicapped" in arm for arm in paper)
    by = table.set_index("arm")
    assert by.loc["FedPFT K=1", "minus FedPFT K=1"] == 0
    assert by.loc["zero-shot", "MB up"] == 0
    assert set(chosen["arm"]) == set(table["arm"])
    (figure,) = accuracy.figures(config, record).values()
    assert sum(len(trace.x) for trace in figure.data) == (table["MB up"] > 0).sum()


def test_private_samplers_fill_their_table(monkeypatch, made):
    monkeypatch.setattr(private, "setting_of", lambda *a: Setting(made.domains, made.head, "toy"))
    monkeypatch.setitem(private.STEPS, "quick", 3)
    record = Record()
    private.run_on("nouns")(CONFIG, 0, record)
    verdicts = {c.name: c.verdict for c in private.certificates(CONFIG, record)}
    assert len(verdicts) == 4
    assert set(verdicts.values()) == {Verdict.KEPT}
    accuracies, differences = private.tables(CONFIG, record).values()
    assert len(accuracies) == len(private.ARMS) + 1
    assert len(differences) == (len(private.ARMS) - 1) * len(private.EPSILONS)
    assert private.figures(CONFIG, record)


# -- real texts wait -------------------------------------------------------------------------------------


def test_parts_of_real_texts_wait_where_nothing_was_downloaded(monkeypatch):
    monkeypatch.setattr(settings.data, "available", list)
    record = Record()
    accuracy.run_on("nouns")(CONFIG, 0, record)
    assert not record.quantities
    (table,) = accuracy.tables(CONFIG, record).values()
    told = table["why"][0]
    assert "minilm and wordnet would have to be downloaded" in told
    assert "surefoot run prototypes --part nouns" in told
    assert accuracy.figures(CONFIG, record) == {}
    # Where somebody asked for it, at a larger size, and where nothing has to be downloaded, it runs.
    assert not settings.why_skipped("nouns", "nouns", PrototypesConfig(part=("nouns",)))
    assert not settings.why_skipped("nouns", "nouns", PrototypesConfig(size="standard"))
    assert not settings.why_skipped("images", "digits", CONFIG)
    assert not waiting.told_why(Record())


def test_own_data_must_be_given():
    with pytest.raises(ValueError, match="needs --texts"):
        setting_of("own", CONFIG, 0)
    with pytest.raises(ValueError, match="needs --images"):
        setting_of("folders", CONFIG, 0)
    with pytest.raises(ValueError, match="classes must be"):
        PrototypesConfig(classes=-1)


# -- growth ----------------------------------------------------------------------------------------------


def test_an_exponent_is_the_slope_of_logarithms():
    assert growth.exponent([1.0, 10.0, 100.0], [2.0, 2 * 10**1.5, 2 * 10.0**3]) == pytest.approx(
        1.5
    )


def test_a_measurement_is_of_as_many_uploads(capsys):
    growth.measure(2, 0)
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 2 * growth.ROWS
    rows = growth.ROWS * (4 * growth.D + 8 + 4)
    assert found["upload"] == 2 * (rows + 8 * growth.CLASSES)
    assert found["seconds"] > 0
