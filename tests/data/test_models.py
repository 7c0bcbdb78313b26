"""Model folders, recognised and described."""

import sys

import pytest

from surefoot import data
from surefoot.errors import FileFormatError, MissingExtraError


def test_an_encoder_is_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert data.load("minilm", path=str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_another_folder_is_refused(tmp_path, name):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileFormatError, match=r"is not a model folder.*config\.json"):
            data.load(name, path=path)


def test_a_language_model_is_a_folder_and_perhaps_a_file(tmp_path):
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF\x03\0\0\0")
    for path in (gguf, tmp_path):
        found = data.load("smollm2", path=path)
        assert (found.folder, found.gguf_file) == (tmp_path, "m.gguf")
    (tmp_path / "config.json").write_text("{}")
    found = data.load("smollm2", path=tmp_path)
    assert (found.folder, found.gguf_file) == (tmp_path, None)


def test_which_of_two_is_not_guessed(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(FileFormatError, match="exactly one .gguf file is needed, it holds 2"):
        data.load("smollm2", path=tmp_path)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(FileFormatError, match="is not a GGUF file"):
        data.load("smollm2", path=tmp_path)


def test_opening_a_model_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    # Once it was imported it has transformers already.
    monkeypatch.delitem(sys.modules, "surefoot.data.doors.transformers", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'surefoot\[llm\]'"):
        data.load("smollm2", path=tmp_path).open()
