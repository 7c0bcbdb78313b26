"""Fetching with the real pip, from a folder instead of a network."""

import dataclasses
import re
import shutil
import sys
import time
import zipfile

import pytest

from surefoot import data
from surefoot.data import catalogue, download
from surefoot.data.catalogue import Debian, File

PACKAGED = "surefoot_toy_data-1.2.3"


def test_fetch_puts_the_pinned_files_in_place(make_toy):
    toy, said = make_toy(), []
    where = data.fetch("toy", progress=said.append)
    assert where == toy.cache / "toy"
    assert (where / "a.bin").read_bytes() == b"first"
    assert (where / "sub" / "b.bin").read_bytes() == b"second"
    assert toy.left_behind() == ["a.bin", "b.bin", "sub", "toy"]
    assert [line.split()[0] for line in said] == ["downloading", "checking", "toy"]
    assert data.verify("toy") == where
    # what other users of a shared cache may see is what the umask says, as for any new folder
    ordinary = toy.root / "ordinary"
    ordinary.mkdir()
    assert where.stat().st_mode == ordinary.stat().st_mode


def test_what_is_there_is_not_fetched_again(make_toy):
    toy = make_toy()
    where = toy.place()
    shutil.rmtree(toy.links)
    assert data.fetch("toy") == where


@pytest.mark.parametrize("content", [b"FIRST", b"fir"])
def test_a_damaged_copy_is_replaced(make_toy, content):
    where = make_toy().place()
    (where / "a.bin").write_bytes(content)
    said = []
    assert data.fetch("toy", progress=said.append) == where
    assert (where / "a.bin").read_bytes() == b"first"
    assert "replacing it" in said[0]


def test_a_damaged_copy_stays_when_it_cannot_be_replaced(make_toy):
    toy = make_toy()
    where = toy.place()
    (where / "a.bin").write_bytes(b"FIRST")
    shutil.rmtree(toy.links)
    toy.links.mkdir()
    with pytest.raises(data.DataError, match="could not download"):
        data.fetch("toy")
    assert toy.left_behind() == ["a.bin", "b.bin", "sub", "toy"]


def one_sentence(error, toy):
    message = str(error.value)
    assert "\n" not in message
    assert toy.left_behind() == []
    return message


def test_no_network(make_toy):
    toy = make_toy()
    for archive in toy.links.iterdir():
        archive.unlink()
    with pytest.raises(data.DataError) as caught:
        data.fetch("toy")
    message = one_sentence(caught, toy)
    assert "could not download surefoot-toy-data==1.2.3: check the network" in message
    assert "set PIP_FIND_LINKS" in message


@pytest.mark.parametrize("sdist", [False, True])
def test_another_archive_than_the_pinned_one(make_toy, sdist):
    toy = make_toy(sdist=sdist)
    pinned = toy.item.archive.content.sha256
    make_other = next(toy.links.iterdir())
    make_other.unlink()
    make_toy({"a.bin": b"other"}, sdist=sdist)
    catalogue.CATALOGUE["toy"] = toy.item
    with pytest.raises(data.DataError) as caught:
        data.fetch("toy")
    message = one_sentence(caught, toy)
    found, expected = re.findall("[0-9a-f]{64}", message)
    assert expected == pinned
    assert found != pinned


def test_our_own_check_does_not_rely_on_the_client(make_toy, monkeypatch):
    toy = make_toy()

    def lying_client(archive, work, instead):
        (work / archive.file).write_bytes(b"forged")

    monkeypatch.setattr(download, "_pip", lying_client)
    with pytest.raises(data.DataError) as caught:
        data.fetch("toy")
    assert "it is not the file that is pinned" in one_sentence(caught, toy)


def test_another_file_inside_the_pinned_archive(make_toy):
    toy = make_toy()
    files = dict(toy.item.files) | {"a.bin": File("0" * 64, 5)}
    catalogue.CATALOGUE["toy"] = dataclasses.replace(toy.item, files=files)
    with pytest.raises(data.DataError) as caught:
        data.fetch("toy")
    assert "a.bin of surefoot_toy_data-1.2.3-py3-none-any.whl has SHA-256" in one_sentence(
        caught, toy
    )


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize(
    ("content", "stage"),
    [
        # does not compress, so the archive itself is too large
        (b"".join(i.to_bytes(4, "big") for i in range(0, 2**32, 7919)), "download"),
        # compresses to next to nothing, so the disk fills up while unpacking
        (bytes(3_000_000), "fetch"),
    ],
    ids=["while downloading", "while unpacking"],
)
def test_a_full_disk(make_toy, content, stage):
    toy = make_toy({"a.bin": content})
    process = toy.start(LIMIT.format(400_000))
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (2, "")
    assert out.splitlines()[-1].startswith(f"no room to {stage} ")
    assert f"the disk that holds {toy.cache} is full" in out
    assert toy.left_behind() == []


def test_two_processes_at_once_download_once(make_toy, monkeypatch, tmp_path):
    toy = make_toy()
    # pip itself counts: it writes every archive it saves to this log
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    ready, gate = tmp_path / "ready", tmp_path / "gate"
    ready.mkdir()
    wait = (
        "import os, time\n"
        f"open(os.path.join({str(ready)!r}, str(os.getpid())), 'w').close()\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.002)"
    )
    processes = [toy.start(wait) for _ in range(3)]
    while len(list(ready.iterdir())) < 3:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    gate.touch()
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert {out.splitlines()[-1] for out, _ in outputs} == {str(toy.cache / "toy")}
    assert (tmp_path / "pip.log").read_text().count("Saved ") == 1
    assert sum("- downloading" in out for out, _ in outputs) == 1
    assert toy.left_behind() == ["a.bin", "b.bin", "sub", "toy"]


def test_a_killed_process_leaves_nothing_that_counts(make_toy):
    toy = make_toy()
    # killed between the first and the second file
    process = toy.start(
        "import os, signal\n"
        "from surefoot.data import archives\n"
        "copy = archives._copy\n"
        "def once(*given):\n"
        "    copy(*given)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "archives._copy = once\n"
    )
    process.communicate(timeout=600)
    assert process.returncode == -9
    assert not (toy.cache / "toy").exists()
    assert any(name.endswith(".part") for name in toy.left_behind())
    data.fetch("toy")
    assert toy.left_behind() == ["a.bin", "b.bin", "sub", "toy"]


def install(toy, site, monkeypatch):
    """What an installer does with a wheel."""
    with zipfile.ZipFile(next(toy.links.iterdir())) as wheel:
        wheel.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    return site / "surefoot_toy_data" / "inner"


def test_an_installed_package_is_used_in_place(make_toy, tmp_path, monkeypatch):
    toy = make_toy(more={"surefoot_toy_data/__init__.py": b"raise SystemExit('imported')"})
    inside = install(toy, tmp_path / "site", monkeypatch)
    assert data.fetch("toy") == inside
    assert data.verify("toy") == inside
    assert not toy.cache.exists()
    assert "surefoot_toy_data" not in sys.modules


def test_an_installed_package_of_other_content_is_not_used(make_toy, tmp_path, monkeypatch):
    toy = make_toy()
    inside = install(toy, tmp_path / "site", monkeypatch)
    (inside / "a.bin").write_bytes(b"FIRST")
    assert data.fetch("toy") == toy.cache / "toy"


TRACE = "import pathlib; pathlib.Path({!r}).touch()\n"


def test_a_source_archive_is_not_executed(make_toy, tmp_path):
    trace = tmp_path / "executed"
    setup = TRACE.format(str(trace)) + "from setuptools import setup\nsetup()\n"
    toy = make_toy({"a.bin": b"a"}, {f"{PACKAGED}/setup.py": setup.encode()}, sdist=True)
    assert (data.fetch("toy") / "a.bin").read_bytes() == b"a"
    assert not trace.exists()
    assert toy.left_behind() == ["a.bin", "toy"]


def test_a_forged_source_archive_is_refused_before_it_can_run(make_toy, tmp_path):
    trace = tmp_path / "executed"
    toy = make_toy({"a.bin": b"a"}, sdist=True)
    make_toy(
        {"a.bin": b"a"},
        {
            f"{PACKAGED}/pyproject.toml": (
                b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
            ),
            f"{PACKAGED}/own.py": TRACE.format(str(trace)).encode(),
        },
        sdist=True,
    )
    catalogue.CATALOGUE["toy"] = toy.item
    with pytest.raises(data.DataError, match="it is not the file that is pinned"):
        data.fetch("toy")
    assert not trace.exists()


def test_constraints_of_a_project_do_not_interfere(make_toy, tmp_path, monkeypatch):
    make_toy()
    (tmp_path / "constraints.txt").write_text("surefoot-toy-data==9.9\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert (data.fetch("toy") / "a.bin").exists()


def test_no_pip(make_toy):
    toy = make_toy()
    process = toy.start("import sys; sys.modules['pip'] = None")
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "pip, which is not installed here; run: python -m ensurepip" in out
    assert toy.left_behind() == []


def without_wordnet(monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path / "cache"))
    item = catalogue.CATALOGUE["wordnet"]
    archive = dataclasses.replace(item.archive, package="surefoot-toy-wordnet")
    debian = Debian("wordnet-base", str(tmp_path / "debian"), item.debian.files)
    monkeypatch.setitem(
        catalogue.CATALOGUE, "wordnet", dataclasses.replace(item, archive=archive, debian=debian)
    )


def test_no_npm(monkeypatch, tmp_path):
    without_wordnet(monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(data.DataError) as caught:
        data.load("wordnet")
    message = str(caught.value)
    assert "npm, which is not installed here: install npm, or run: sudo apt-get install" in message
    assert "wordnet-base, or pass path= with a folder that holds data.noun" in message
    assert "\n" not in message


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_npm_without_a_network(monkeypatch, tmp_path):
    without_wordnet(monkeypatch, tmp_path)
    monkeypatch.setenv("npm_config_offline", "true")
    with pytest.raises(data.DataError) as caught:
        data.fetch("wordnet")
    message = str(caught.value)
    assert "could not download surefoot-toy-wordnet@3.1.14: check the network" in message
    assert "sudo apt-get install wordnet-base" in message
    assert "npm said: npm" in message
    assert "\n" not in message


def test_a_debian_package_is_found_and_its_absence_told(make_toy, pack, tmp_path, monkeypatch):
    toy = make_toy()
    folder = tmp_path / "usr" / "share" / "toy"
    debian = Debian("dataset-toy", str(folder), {"train.idx": pack.pin(b"images")})
    item = dataclasses.replace(toy.item, archive=None, files={}, debian=debian)
    monkeypatch.setitem(catalogue.CATALOGUE, "toy", item)
    with pytest.raises(data.DataError, match="sudo apt-get install dataset-toy, or pass path="):
        data.fetch("toy")
    folder.mkdir(parents=True)
    (folder / "train.idx").write_bytes(b"images")
    assert data.fetch("toy") == folder
    (folder / "train.idx").write_bytes(b"IMAGES")
    with pytest.raises(data.DataError, match="not on this machine"):
        data.fetch("toy")


def test_a_node_module_is_used_in_place(pack, tmp_path, monkeypatch):
    without_wordnet(monkeypatch, tmp_path)
    item = catalogue.CATALOGUE["wordnet"]
    content = b"nouns"
    monkeypatch.setitem(
        catalogue.CATALOGUE, "wordnet",
        dataclasses.replace(item, files={"data.noun": pack.pin(content)}),
    )  # fmt: skip
    folder = tmp_path / "node_modules" / "surefoot-toy-wordnet" / "dict"
    folder.mkdir(parents=True)
    (folder / "data.noun").write_bytes(content)
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
    assert data.fetch("wordnet") == folder
