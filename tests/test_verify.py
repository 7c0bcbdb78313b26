"""A run whose files were changed says so, and a verdict that its record does not bear is found."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from surefoot._run.files import sha256_of
from surefoot._run.folder import RunFolder
from surefoot._run.manifest import NAME, read_manifest, sealed
from surefoot._run.verify import same_curve
from surefoot._verdict.curve import PlotCurve
from surefoot.certificate import certify
from surefoot.cli import main
from surefoot.data import reads
from surefoot.errors import FileFormatError
from surefoot.guarantee import Guarantee
from surefoot.record import Record

MODULE = '''"""A number is halved, noisily."""
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from surefoot import Guarantee, Part, Study, StudyConfig, data


def run(config, seed, record):
    data.load("wine")
    noise = np.random.default_rng(seed).uniform(0.8, 1, 6)
    for t in range(6):
        record.append(seed, t, q=0.5**t * noise[t])
    record.note(seed, method="halving")


def promise(config):
    return [
        Guarantee("halves", "q <= .6^t", "closed form", "q", "upper", "every run",
                 lambda r: 0.6 ** r.curves("q").steps)
    ]


def tables(config, record):
    return {"last": pd.DataFrame({"seed": record.seeds, "q": record["q"][:, -1]})}


def figures(config, record):
    return {"all": go.Figure(go.Scatter(y=record["q"][0]))}


STUDY = Study("verified", "t", "none", StudyConfig,
             (Part("one", "One", run, promise, tables=tables, figures=figures),))
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two seeds, made once."""
    where = tmp_path_factory.mktemp("verified")
    (where / "verified.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        # What other tests of this process have opened is not this run's.
        patch.setattr(reads, "_READ", {})
        patch.setattr(sys, "path", list(sys.path))
        words = ["run", "verified", "--seeds", "2", "--backend", "threading", "--jobs", "1"]
        assert main([*words, "--out", "runs"]) == 0
    sys.modules.pop("verified")
    return where


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy of it that a test may damage."""
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(reads, "_READ", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield RunFolder.all("runs")[0]
    sys.modules.pop("verified", None)


def files_of(folder):
    return sorted(
        f for f in folder.path.rglob("*") if f.is_file() and f.name not in ("index.html", ".lock")
    )


def test_a_run_that_nobody_touched(folder, capsys):
    assert folder.changes == []
    assert main(["verify", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert "the same" in out
    assert "changed" not in out
    assert "not checked" not in out
    assert main(["report", str(folder.path)]) == 0
    assert folder.changes == []


def test_the_manifest_lists_every_file_and_what_was_read(folder):
    listed = set(read_manifest(folder.path)["files"])
    there = {f.relative_to(folder.path).as_posix() for f in files_of(folder)}
    assert listed == there - {NAME}
    assert {"config.json", "environment.json", "status.json", "record.parquet"} < listed
    assert list(read_manifest(folder.path)["read"]) == ["wine"]


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_file_is_named_by_report_and_by_verify(folder, capsys, how):
    whole = {f: f.read_bytes() for f in files_of(folder)}
    assert len(whole) >= 9
    for file, content in whole.items():
        if how != "flip" and "seeds" in file.parts:
            continue
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(flipped if how == "flip" else content[: len(content) // 2])
        optional = how == "gone" and file.name in (NAME, "environment.json")
        for command in ("report", "verify"):
            code = main([command, str(folder.path)])
            said = capsys.readouterr()
            if file.name == NAME and how == "gone":
                # Runs of before have none.
                assert command == "report" or "no manifest.json" in said.out
            else:
                assert code in (1, 2), (command, file)
                assert file.name in said.out.replace("\n", "") + said.err, (command, file)
            if optional and command == "report":
                assert (folder.path / "index.html").exists()
        file.write_bytes(content)
    assert folder.changes == []


def test_a_file_that_was_added_is_named(folder, capsys):
    shutil.copy(next((folder.path / "tables").iterdir()), folder.path / "tables" / "one.more.json")
    assert main(["verify", str(folder.path)]) == 1
    assert "tables/one.more.json was added" in capsys.readouterr().out


def relist(folder, file):
    """Cover a change up: give the list of files the new hash."""
    listed = read_manifest(folder.path)
    listed["files"][file.relative_to(folder.path).as_posix()] = sha256_of(file)
    (folder.path / NAME).write_text(json.dumps(sealed(listed)))


@pytest.mark.parametrize(
    ("field", "value"), [("verdict", "BROKEN"), ("tightness", 0.125), ("statement", "q <= .1^t")]
)
def test_a_certificate_that_its_record_does_not_bear(folder, capsys, field, value):
    file = folder.path / "certificate.json"
    stored = json.loads(file.read_text())
    stored["certificates"][0][field] = value
    file.write_text(json.dumps(stored))
    relist(folder, file)
    assert folder.changes == []
    assert main(["verify", str(folder.path), "--json"]) == 1
    (compared,) = json.loads(capsys.readouterr().out)["certificates"]
    if field == "verdict":
        assert (compared["stored"], compared["again"]) == ("BROKEN", "KEPT")
    else:
        assert compared["differs"] == [field]


def test_a_certificate_that_was_left_out(folder, capsys):
    file = folder.path / "certificate.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"certificates": []}))
    relist(folder, file)
    assert main(["verify", str(folder.path), "--json"]) == 1
    (compared,) = json.loads(capsys.readouterr().out)["certificates"]
    assert (compared["stored"], compared["again"]) == (None, "KEPT")


def test_a_table_that_its_record_does_not_bear(folder, capsys):
    (file,) = (folder.path / "tables").iterdir()
    stored = json.loads(file.read_text())
    stored["data"][0][1] *= 2
    file.write_text(json.dumps(stored))
    relist(folder, file)
    assert main(["verify", str(folder.path)]) == 1
    assert "is not what the record gives" in capsys.readouterr().out


def test_a_record_that_is_not_what_the_seeds_wrote(folder, capsys):
    """The seeds' files and the whole are two copies; a consistent forger changes both, and both lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder.path / "record.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("value")
    values = table["value"].to_numpy().copy()
    values[0] /= 2
    pq.write_table(table.set_column(place, table.schema.field("value"), pa.array(values)), file)
    relist(folder, file)
    assert main(["verify", str(folder.path)]) == 1
    assert "record.parquet does not hold what seed" in " ".join(capsys.readouterr().out.split())


def test_a_record_that_bears_no_certificate(folder, capsys):
    """What the study's own code makes of it is no traceback, and what was stored is not confirmed."""
    module = folder.path.parents[2] / "verified.py"
    module.write_text(module.read_text().replace("return [", "return 1 / 0, ["))
    assert main(["verify", str(folder.path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["certificates"][0]["stored"], said["certificates"][0]["again"]) == ("KEPT", None)
    why = "ZeroDivisionError: division by zero"
    assert said["unchecked"] == [f"part one cannot be concluded from its record: {why}"]


def test_words_in_other_files_keep_no_certificate_from_being_checked(folder, capsys):
    """A forger says that the part had a problem, or takes it out of the run's parts."""
    file = folder.path / "certificate.json"
    stored = json.loads(file.read_text())
    stored["certificates"][0]["verdict"] = "BROKEN"
    file.write_text(json.dumps(stored))
    status = folder.path / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"problems": {"one": "x"}}))
    relist(folder, file)
    relist(folder, status)
    assert folder.changes == []
    assert main(["verify", str(folder.path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["certificates"][0]["again"] == "KEPT"
    config = folder.path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"parts": {}}))
    relist(folder, config)
    assert main(["verify", str(folder.path)]) == 1
    assert "of part 'one', which the run has not" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_checked_is_said(folder, capsys, monkeypatch):
    (folder.path.parents[2] / "verified.py").unlink()
    assert main(["verify", str(folder.path)]) == 0
    assert "not checked: no verdict: unknown study 'verified'" in capsys.readouterr().out
    listed = read_manifest(folder.path)
    listed["read"] = {"wine": "scikit-learn 0.1"}
    (folder.path / NAME).write_text(json.dumps(sealed(listed)))
    assert main(["verify", str(folder.path)]) == 1
    assert "data wine is not what the run read" in capsys.readouterr().out


def test_a_seed_whose_files_were_changed_is_run_again(folder, capsys):
    file = next(folder.seed_folder("one", 1).glob("*.parquet"))
    before = file.read_bytes()
    file.write_bytes(before[:-40] + b"\0" + before[-39:])
    words = ["--backend", "threading", "--jobs", "1", "--resume", str(folder.path)]
    assert main(["run", "verified", *words]) == 0
    assert "seed 1 of part one is run again" in capsys.readouterr().err
    assert folder.changes == []
    assert folder.damage("one", 1) is None


PARTS = {"one": {"title": "One", "seeds": [0, 1]}}


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        ({"parts": {"../../x": {"title": "x", "seeds": [0]}}}, "names a part '../../x'"),
        ({"parts": {"..": {"title": "x", "seeds": [0]}}}, "names a part '..'"),
        ({"parts": {"one": {"title": "x", "seeds": ["../../0"]}}}, "list the seeds"),
        ({"parts": {"one": {"title": "x", "seeds": [True]}}}, "list the seeds"),
        ({"parts": {"one": {"title": "x"}}}, "list the seeds"),
        ({"parts": {"one": {"seeds": [0]}}}, "no title"),
        ({"parts": ["one"]}, "lists no parts"),
        ({"study": "../verified"}, "names a study"),
        ({"config": [1]}, "holds no configuration"),
        ({"parts": {"two": {"title": "x", "seeds": [0]}}}, "unknown part"),
        ({"config": {"size": "huge"}}, "size must be one of"),
        ({"config": {"seed": "0"}}, "seed must be"),
        ({"study": "another"}, "is a run of another"),
    ],
)
def test_a_foreign_run_is_refused_before_anything_is_written(folder, capsys, foreign, says):
    file = folder.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | foreign))
    before = {f: f.read_bytes() for f in folder.path.parents[2].rglob("*") if f.is_file()}
    assert main(["run", "verified", "--backend", "threading", "--resume", str(folder.path)]) == 2
    assert says in capsys.readouterr().err
    after = {f: f.read_bytes() for f in folder.path.parents[2].rglob("*") if f.is_file()}
    changed = {f.name for f in {*before, *after} if before.get(f) != after.get(f)}
    assert all("pyc" in name for name in changed)


@pytest.mark.parametrize("name", ["seeds", "tables", "seeds/one.1"])
def test_a_folder_with_a_link_in_it_is_not_run_on(folder, capsys, name, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(folder.path / name, outside)
    (folder.path / name).symlink_to(outside)
    assert main(["run", "verified", "--backend", "threading", "--resume", str(folder.path)]) == 2
    assert "is a link" in capsys.readouterr().err


def test_a_damaged_run_stops_no_other(folder, capsys):
    for i, (name, text) in enumerate(
        [("status.json", "[]"), ("certificate.json", '{"format": 1, "certificates": [{}]}'),
         ("config.json", '{"format": 1, "study": "verified", "parts": {}, "config": 3}'),
         ("environment.json", "7"), ("manifest.json", '{"files": 3}'),
         ("status.json", '{"state": 1, "seconds": "x"}')]
    ):  # fmt: skip
        copy = folder.path.with_name(f"2020-01-0{i + 1}T00-00-00")
        shutil.copytree(folder.path, copy)
        (copy / name).write_text(text)
        (copy / "index.html").unlink()
    assert main(["report", "runs"]) == 0
    said = capsys.readouterr().err
    index = (folder.path.parents[1] / "index.html").read_text()
    for i in range(6):
        assert f"2020-01-0{i + 1}T00-00-00" in said
        assert f"2020-01-0{i + 1}T00-00-00" in index
    with pytest.raises(FileFormatError, match="is no list of files"):
        _ = RunFolder(folder.path.with_name("2020-01-05T00-00-00")).changes


def test_which_steps_are_drawn_may_differ_and_their_values_may_not():
    """A version that thins a curve in another way has not changed the run."""
    record = Record()
    record.extend(0, "q", 0.99 ** np.arange(3000))
    claim = Guarantee(
        name="rate", statement="q <= 2", source="here", quantity="q", sense="upper", holds_in="every run",
        bound=lambda r: 2.0,
    )  # fmt: skip
    new = certify(record, claim)
    steps = [0, 1, 17, 1234, 2999]
    assert not set(steps) <= set(new.curve.steps)
    values = [0.99**s for s in steps]

    def stored(mean, promised=2.0):
        return replace(new, curve=PlotCurve(steps, mean, values, values, [promised] * len(steps)))

    assert same_curve(stored(values), new, record)
    for i in range(len(steps)):
        assert not same_curve(
            stored([v * (1 + (j == i)) for j, v in enumerate(values)]), new, record
        )
    assert not same_curve(stored(values, promised=1.0), new, record)
    other = replace(new, curve=PlotCurve([5000], [1.0], [1.0], [1.0], [2.0]))
    assert not same_curve(other, new, record)
    assert not same_curve(replace(new, curve=PlotCurve([], [], [], [], [])), new, record)
