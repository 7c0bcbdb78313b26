"""Both real sets behind the real encoder: what one round gains, beside tuned peers; ten splits of each."""

import numpy as np
import pytest

from surefoot._problems.paired import paired
from surefoot._run.execute import execute
from surefoot._run.plan import Execution, start
from surefoot.prototypes import wordnet_views
from surefoot.prototypes.experiments import accuracy, private
from surefoot.prototypes.experiments.accuracy import TEST_SHARE
from surefoot.prototypes.study import STUDY

pytestmark = pytest.mark.acceptance
SEEDS = 10


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Every seed of the parts of real texts at their standard size: about an hour of one core."""
    parts = ("nouns", "sentences", "private-nouns", "private-sentences")
    config = STUDY.config(size="standard", part=parts, seeds=SEEDS)
    execution = Execution(out=tmp_path_factory.mktemp("runs"))
    folder = start(STUDY, config, execution)
    execute(STUDY, config, folder, execution)
    assert not folder.status["failed"]
    return {part: folder.record(part) for part in parts}


def of(record, arm, what="test"):
    return record.constant(f"{arm}: {what}")


@pytest.fixture
def compare(records, measured):
    """Mean paired difference of two arms; both intervals go into the report's table."""

    def difference(part, arm, base, required):
        d = of(records[part], arm) - of(records[part], base)
        mean, plain, corrected = paired(d, TEST_SHARE)
        measured(
            f"{part}: {arm} - {base}", required, f"{mean:+.1f} +- {plain:.1f} [{corrected:.1f}]"
        )
        return mean

    return difference


def test_the_views_are_short_where_wordnet_is():
    views = wordnet_views()
    cells = np.zeros((4, 15), dtype=int)
    np.add.at(cells, (views.domains, views.labels), 1)
    short = {
        (views.domain_names[i], views.classes[j]): int(cells[i, j])
        for i, j in np.argwhere(cells < 60)
    }
    assert set(short) == {("example", "animal"), ("example", "plant"), ("kinds", "feeling")}
    assert short["example", "animal"] == 36
    assert short["example", "plant"] == 21
    assert len(set(views.texts)) > 0.98 * len(views)


def test_one_round_on_the_views_beside_tuned_averaging(compare, records):
    nouns = "nouns"
    assert compare(nouns, "cluster_var .1", "zero-shot", ">= 12") >= 12
    assert compare(nouns, "cluster_var .1", accuracy.SHORT, ">= .5") >= 0.5
    assert compare(nouns, "cluster_var .1", "FedAvg, 1 round", ">= -1") >= -1
    assert compare(nouns, "cluster_var .1", "FedAvg", ">= -1.5") >= -1.5
    assert compare(nouns, "mean", accuracy.STOPPED, ">= 2.5") >= 2.5


def test_one_round_on_sentences_beside_tuned_averaging(compare):
    assert compare("sentences", "cluster_var .1", "zero-shot", ">= 5") >= 5
    assert compare("sentences", "cluster_var .1", "FedAvg, 1 round", ">= 1.5") >= 1.5


def test_bytes_of_one_round(records, measured):
    up = of(records["nouns"], "cluster_var .1", "megabytes").mean()
    round_up = of(records["nouns"], "FedAvg, 1 round", "megabytes").mean()
    # What comes back is as long as FedAvg's.
    total = (up + round_up) / (2 * round_up)
    measured("nouns: cluster_var .1, upload and all bytes of a FedAvg round", "<= .4, .75",
             f"{up / round_up:.2f}, {total:.2f}")  # fmt: skip
    assert up <= 0.4 * round_up
    assert total <= 0.75


def test_the_handicapped_schedule_is_shown_and_called_so(records):
    arm = accuracy.paper_arm("1 round")
    assert "handicapped" in arm
    assert of(records["nouns"], arm).mean() < of(records["nouns"], "FedAvg, 1 round").mean() - 5


@pytest.mark.parametrize("part", ["nouns", "sentences"])
def test_beside_fedpft_at_equal_and_at_half_bytes(compare, records, part):
    assert compare(part, "cluster_var .06", "FedPFT K=2", ">= -1") >= -1
    assert compare(part, "additive", "FedPFT K=1", ">= -1") >= -1
    ratio = of(records[part], "additive", "megabytes") / of(
        records[part], "FedPFT K=1", "megabytes"
    )
    assert ratio.max() <= 0.51
    if part == "nouns":
        fewer = of(records[part], "cluster_var .06", "megabytes")
        assert fewer.mean() < of(records[part], "FedPFT K=2", "megabytes").mean()


@pytest.mark.parametrize("part", ["private-nouns", "private-sentences"])
def test_private_samplers(records, measured, part):
    def gain(arm, epsilon, required):
        ours, means = (
            records[part].constant(f"{a}: epsilon {epsilon}") for a in (arm, private.MEAN)
        )
        mean, plain, corrected = paired(ours - means, TEST_SHARE)
        measured(f"{part}: {arm} - {private.MEAN}, epsilon {epsilon}", required,
                 f"{mean:+.1f} +- {plain:.1f} [{corrected:.1f}]")  # fmt: skip
        return mean

    assert gain(private.ADDITIVE, 4, ">= -.5") >= -0.5
    assert gain(private.ADDITIVE, 8, ">= .3") >= 0.3
    least = 2 if part == "private-nouns" else -0.5
    for epsilon in (1, 2, 4):
        assert gain(private.SUM, epsilon, f">= {least}") >= least
