"""A run of something that is no study: filed, read, hashed and shown as a study's run is."""

import numpy as np
import pandas as pd

from surefoot import Guarantee, certify
from surefoot._run.folder import RunFolder
from surefoot._run.single import curve_figure, write_single
from surefoot._run.verify import verify
from surefoot.record import Record
from surefoot.report import write_run_page, write_site


def record():
    found = Record()
    for step in range(5):
        found.append(3, step, loss=2.0**-step)
    found.note(optimizer="SGD")
    return found


def claim():
    return Guarantee(
        name="halves", statement="loss <= 2^-t", source="here", quantity="loss", sense="upper",
        holds_in="every run", heuristic=False, bound=lambda r: 2.0 ** -r.curves("loss").steps[None],
        assumptions=lambda r: (),
    )  # fmt: skip


def written(root, **more):
    made = record()
    given = {
        "title": "Mine", "part": "training", "about": "What was trained", "record": made,
        "certificates": [certify(made, claim())],
        "tables": {"numbers": pd.DataFrame({"a": [1.5], "b": ["x"]})},
        "figures": {"loss": curve_figure(made, "loss")}, "config": {"lr": 0.5},
        "command": "python mine.py", "seconds": 1.0,
    }  # fmt: skip
    return write_single(root, "mine", **{**given, **more})


def test_what_was_written_is_read_and_shown(tmp_path):
    folder = RunFolder.open(written(tmp_path, confidence=0.9).path)
    assert folder.study == "mine"
    assert folder.status["state"] == "finished"
    assert folder.config["confidence"] == 0.9
    (certificate,) = folder.certificates()
    assert certificate.part == "training"
    np.testing.assert_array_equal(folder.record("training")["loss"], record()["loss"])
    assert folder.record("training").fact("optimizer").all == ("SGD",)
    ((name, table),) = folder.tables("training")
    assert name == "numbers"
    assert table["a"].tolist() == [1.5]
    text = write_run_page(folder).read_text(encoding="utf-8")
    assert "Mine" in text
    assert "halves" in text
    assert "mine/" in write_site(tmp_path).read_text(encoding="utf-8")


def test_its_files_are_hashed_and_that_no_study_can_judge_it_again_is_said(tmp_path):
    folder = written(tmp_path)
    found = verify(folder)
    assert found.holds
    assert any(line.startswith("no verdict") for line in found.unchecked)
    with (folder.path / "config.json").open("a") as file:
        file.write(" ")
    assert any("config.json was changed" in line for line in verify(folder).changes)


def test_a_curve_has_its_seeds_and_what_was_not_recorded_is_left_out():
    made = Record()
    made.append(0, 0, loss=100.0)
    made.append(0, 4, loss=1.0)
    made.append(1, 0, loss=50.0)
    made.append(0, 2, other=1.0)
    figure = curve_figure(made, "loss")
    assert [line["name"] for line in figure["data"]] == ["seed 0", "seed 1"]
    assert [line["x"] for line in figure["data"]] == [[0, 4], [0]]
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert not curve_figure(made, "nothing")["data"]
