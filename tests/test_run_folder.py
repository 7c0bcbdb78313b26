"""Run folders: what is one, what is not, and that nothing is overwritten."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from surefoot import Guarantee, Record, certify
from surefoot._run.files import write_json
from surefoot._run.folder import FORMAT, RunFolder
from surefoot._run.in_use import alone_in
from surefoot.certificate import FORMAT as CERTIFICATE_FORMAT
from surefoot.errors import FileFormatError, UnknownNameError

PARTS = {"one": {"title": "One", "seeds": [0, 1]}, "two": {"title": "Two", "seeds": [5]}}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", "toy")
    write_json(folder.path / "config.json", {"format": FORMAT, "study": "toy", "parts": PARTS})
    return folder


def fill(folder):
    for part, about in PARTS.items():
        for seed in about["seeds"]:
            with Record(folder.seed_folder(part, seed)) as record:
                record.extend(seed, f"gap of {part}", [1.0, 0.5 + seed])
            write_json(folder.seed_folder(part, seed) / "done.json", {"seconds": 1.5})


def one_sentence(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_create_never_gives_the_same_folder_twice(tmp_path):
    folders = [RunFolder.create(tmp_path, "toy").path for _ in range(20)]
    assert len(set(folders)) == 20
    assert all(f.parent == tmp_path / "toy" for f in folders)
    assert all(list(f.iterdir()) == [] for f in folders)


def test_seeds_merge_into_one_record_a_part(folder):
    fill(folder)
    merged = folder.merge()
    assert merged["one"]["gap of one"].tolist() == [[1.0, 0.5], [1.0, 1.5]]
    again = RunFolder.open(folder.path)
    assert again.study == "toy"
    assert again.record("one")["gap of one"].tolist() == [[1.0, 0.5], [1.0, 1.5]]
    assert again.record("two").quantities == ["gap of two"]
    assert again.seconds("one") == 3.0
    assert again.is_done("two", 5)
    assert not again.is_done("two", 6)
    with pytest.raises(UnknownNameError, match="unknown part 'three'; there are: one, two"):
        again.record("three")


def test_a_run_that_has_only_begun(folder):
    assert folder.certificates() == []
    with alone_in(folder.path, "this process"):
        assert folder.status == {"state": "running", "failed": []}
    # Nobody runs it, and it never said that it ended.
    assert folder.status == {"state": "killed", "failed": []}
    assert list(folder.tables("one")) == list(folder.figures("one")) == []
    assert {part: len(record) for part, record in folder.merge().items()} == {"one": 0, "two": 0}
    assert folder.seconds("one") == 0


def test_certificates_are_kept(folder):
    record = Record()
    record.extend(0, "gap", [1.0, math.inf])
    promise = Guarantee(
        name="rate", statement="", source="", quantity="gap", sense="upper",
        holds_in="every run", bound=lambda r: np.ones(2),
    )  # fmt: skip
    made = [certify(record, promise)]
    folder.write_certificates(made)
    assert RunFolder.open(folder.path).certificates() == made
    (folder.path / "certificate.json").write_text('{"format": 1, "certif')
    with pytest.raises(FileFormatError) as caught:
        folder.certificates()
    one_sentence(caught, "certificate.json is not readable JSON (truncated?)")
    newer = {"format": CERTIFICATE_FORMAT + 1, "certificates": []}
    (folder.path / "certificate.json").write_text(json.dumps(newer))
    with pytest.raises(FileFormatError) as caught:
        folder.certificates()
    one_sentence(caught, "upgrade surefoot")


def test_tables_and_figures_come_back(folder):
    table = pd.DataFrame({"method": ["a", "b"], "last": [1 / 3, -3e-12], "date": ["2020", "007"]})
    folder.write_table("one", "last values", table)
    folder.write_figure("one", "gap.log", {"data": [1], "layout": {}})
    folder.write_table("two", "last values", table * 2)
    ((name, again),) = folder.tables("one")
    assert name == "last values"
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert list(folder.figures("one")) == [("gap.log", {"data": [1], "layout": {}})]


@pytest.mark.parametrize("name", ["at step 1/L, 100 %", "a\\b", "100%2F", "..", "x.json"])
def test_names_are_free_text(folder, name):
    table = pd.DataFrame({"a": [1]})
    folder.write_table("one", name, table)
    folder.write_figure("one", name, {"data": []})
    assert [n for n, _ in folder.tables("one")] == [name]
    assert [n for n, _ in folder.figures("one")] == [name]
    assert sorted(f.name for f in folder.path.rglob("one.*")) == sorted(
        f.name for kind in ("tables", "figures") for f in (folder.path / kind).iterdir()
    )


def test_not_a_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path / "nowhere"):
        with pytest.raises(FileFormatError) as caught:
            RunFolder.open(path)
        one_sentence(caught, str(path), "is not a folder")


def test_a_foreign_folder(tmp_path):
    with pytest.raises(FileFormatError) as caught:
        RunFolder.open(tmp_path)
    one_sentence(caught, "config.json is not there; is its folder a run of surefoot?")
    for text, says in (
        ("{}", "names no format"),
        ("[]", "names no format"),
        ('{"format": "1"}', "names no format"),
        ('{"format": 1}', "names no study"),
        ('{"format": 1, "study": "toy"}', "names no study"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(FileFormatError) as caught:
            RunFolder.open(str(tmp_path))
        one_sentence(caught, "is not a run of surefoot", says)


def test_a_newer_format(folder):
    write_json(folder.path / "config.json", folder.config | {"format": FORMAT + 1})
    with pytest.raises(FileFormatError) as caught:
        RunFolder.open(folder.path)
    one_sentence(
        caught, f"format {FORMAT + 1}, this version reads up to {FORMAT}; upgrade surefoot"
    )


@pytest.mark.parametrize("damage", [b"", b'{"format": 1, "stu', b"\xff\xfe", b"\x00" * 20])
@pytest.mark.parametrize("name", ["config.json", "environment.json", "status.json"])
def test_damaged_json(folder, name, damage):
    (folder.path / name).write_bytes(damage)
    with pytest.raises(FileFormatError) as caught:
        getattr(folder, name.split(".")[0])
    one_sentence(caught, f"{name} is not readable JSON (truncated?)")


def test_a_truncated_record(folder):
    with pytest.raises(FileFormatError) as caught:
        folder.record("one")
    one_sentence(caught, "record.parquet holds no Parquet record")
    fill(folder)
    folder.merge()
    file = folder.path / "record.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(FileFormatError) as caught:
        folder.record("one")
    one_sentence(caught, "record.parquet is not readable Parquet (truncated?)")


def test_the_list_of_runs_leaves_out_what_is_none(folder, tmp_path):
    other = RunFolder.create(tmp_path / "runs", "another")
    write_json(other.path / "config.json", folder.config | {"study": "another"})
    RunFolder.create(tmp_path / "runs", "toy")  # killed before it wrote anything
    broken = RunFolder.create(tmp_path / "runs", "toy")
    (broken.path / "config.json").write_text("{")
    (tmp_path / "runs" / "index.html").touch()
    assert {f.path for f in RunFolder.all(tmp_path / "runs")} == {folder.path, other.path}
    assert RunFolder.all(tmp_path / "nowhere") == []


def test_a_failed_write_leaves_the_old_file(folder):
    write_json(folder.path / "status.json", {"state": "running"})
    with pytest.raises(ValueError, match="[Cc]ircular"):
        loop = []
        loop.append(loop)
        write_json(folder.path / "status.json", loop)
    assert json.loads((folder.path / "status.json").read_text()) == {"state": "running"}
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.json", "status.json"]
