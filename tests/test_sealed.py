"""Files that say of themselves whether they are what was written, and writing that fails in one sentence."""

import base64
import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot._sealed import lines, writing
from surefoot._sealed.tensors import DTYPES, read_tensors, write_tensors
from surefoot.architecture._autoencoder import files
from surefoot.errors import FileFormatError, WriteError


def tensors():
    found = {name: torch.randint(0, 2, (2, 3)).to(kind) for name, kind in DTYPES.items()}
    return found | {
        "empty": torch.empty(0, 4),
        "one": torch.tensor(1.5),
        "strided": torch.arange(6)[::2],
    }


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()


@pytest.mark.parametrize("each", [True, False])
def test_tensors_come_back_in_every_dtype_and_for_the_library_too(tmp_path, each):
    from safetensors import safe_open

    held = tensors()
    write_tensors(tmp_path / "t", held, {"said": "γ"}, each=each)
    found = read_tensors(tmp_path / "t")
    assert found.sealed
    assert found.words == {"said": "γ"}
    assert set(found.tensors) == set(held)
    assert all(same(found.tensors[k], v) for k, v in held.items())
    with safe_open(tmp_path / "t", framework="pt") as file:
        assert all(same(file.get_tensor(k), v) for k, v in held.items())


def test_a_file_of_the_library_is_read_and_carries_no_digest(tmp_path):
    from safetensors.torch import save_file

    held = {k: v.contiguous() for k, v in tensors().items()}
    save_file(held, tmp_path / "t", metadata={"a": "b"})
    found = read_tensors(tmp_path / "t")
    assert not found.sealed
    assert found.words == {"a": "b"}
    assert all(same(found.tensors[k], v) for k, v in held.items())


def test_every_bit_of_a_file_of_tensors_counts(tmp_path):
    path = tmp_path / "t"
    write_tensors(path, {"a": torch.arange(3.0), "b": torch.tensor([True])}, {"x": "y"}, each=True)
    content = path.read_bytes()
    for at in range(0, 8 * len(content), 29):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=str(path)):
            read_tensors(path)
    path.write_bytes(content[:-1] + b"\2")
    with pytest.raises(FileFormatError, match="b is not what was written"):
        read_tensors(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": 3},
        [],
        {"__metadata__": 3},
    ],
)
def test_a_header_that_claims_what_is_not_there_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "t").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(FileFormatError, match="is not a whole file of tensors"):
        read_tensors(tmp_path / "t")


def test_a_dtype_that_the_format_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tensors must be of .* got torch.complex128"):
        write_tensors(tmp_path / "t", {"a": torch.zeros(1, dtype=torch.complex128)}, {})
    assert list(tmp_path.iterdir()) == []


OLD = (
    "CAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6IHsiY29uZmlnIjogIntcInhcIjogWzEsIFwiXFx1MDNiM1wiXX0iLCAic2hhMjU2"
    "IjogIjgwZTBmODc3OGRkNjdkMDFjNTBhMTA5NjA4OTY3NTM0MGM0ZTgxOWNjNmMyOGJkNzMxZjk2MWEzODNmOGIwMWYifSwg"
    "ImEiOiB7ImR0eXBlIjogIkk2NCIsICJzaGFwZSI6IFszXSwgImRhdGFfb2Zmc2V0cyI6IFswLCAyNF19LCAiYiI6IHsiZHR5"
    "cGUiOiAiRjMyIiwgInNoYXBlIjogWzJdLCAiZGF0YV9vZmZzZXRzIjogWzI0LCAzMl19fSAgICAAAAAAAAAAAAEAAAAAAAAA"
    "AgAAAAAAAAAAAIA/AAAAQA=="
)


def test_the_digest_is_that_of_the_files_there_are(tmp_path):
    """An autoencoder's file in small, as the version before wrote it."""
    (tmp_path / "old").write_bytes(base64.b64decode(OLD))
    found, config = files.read_tensors(tmp_path / "old")
    assert config == {"x": [1, "γ"]}
    assert same(found["b"], torch.tensor([1.0, 2.0]))
    assert same(found["a"], torch.arange(3))


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.floats(allow_nan=False)),
    st.binary(max_size=50),
    st.data(),
)
def test_a_sealed_line_and_its_body(head, body, data):
    head = {k: v for k, v in head.items() if k not in (lines.LINE, lines.BODY)}
    content = lines.seal(head, body)
    found, rest = lines.unseal_line(content)
    lines.check_body(found, rest)
    assert (found, rest) == (head, body)
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    cut = data.draw(st.integers(0, len(content) - 1))
    for damaged in (bytes(changed), content[:cut], content + b"\n", b" " + content):
        with pytest.raises(ValueError, match="not what was written"):
            lines.check_body(*lines.unseal_line(damaged))


def test_sealed_json_is_json_for_people():
    content = lines.seal_json({"a": [1, None], "b": "γ"})
    assert json.loads(content)["a"] == [1, None]
    assert content.startswith(b'{\n "a": [\n')
    assert lines.unseal_json(content) == {"a": [1, None], "b": "γ"}
    assert lines.is_sealed(content)
    assert not lines.is_sealed(json.dumps({"sha256": "1"}, indent=1).encode())
    for damaged in (content[:-1], content + b" ", content.replace(b"1", b"2", 1), b""):
        with pytest.raises(ValueError, match="not what was written"):
            lines.unseal_json(damaged)


# ------------------------------------------------------------------ writing

LIMITED = """
import resource, sys, torch
from pathlib import Path
from surefoot._sealed.tensors import write_tensors
from surefoot._sealed.writing import new_folder, write_bytes, writing
from surefoot.errors import WriteError
here = Path(sys.argv[1])
def by_torch():
    with writing(here / "torch.pt") as file:
        torch.save({"a": torch.zeros(50_000)}, file)
def a_folder(save):
    with new_folder(here / "folder") as partial:
        save(partial / "inside")
def by_safetensors(path):
    from safetensors.torch import save_file
    save_file({"a": torch.zeros(50_000)}, path)
ways = {
    "bytes": lambda: write_bytes(here / "deep" / "bytes", bytes(90_000)),
    "tensors": lambda: write_tensors(here / "tensors", {"a": torch.zeros(50_000)}, {}),
    "torch.pt": by_torch,
    "folder": lambda: a_folder(lambda p: p.write_bytes(bytes(90_000))),
    "folder of safetensors": lambda: a_folder(by_safetensors),
    "folder of torch": lambda: a_folder(lambda p: torch.save({"a": torch.zeros(50_000)}, p)),
}
by_safetensors(here.parent / "before")  # imports what it needs
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name, way in ways.items():
    try:
        way()
        print(name, "| written")
    except WriteError as error:
        print(name, "|", error)
"""


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path):
    """A limit on file sizes stands for the disk: the system's answer comes from the same places."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "tensors").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(here)], capture_output=True, text=True, check=True
    )
    said = dict(line.split(" | ") for line in done.stdout.splitlines())
    assert len(said) == 6
    for name, sentence in said.items():
        assert sentence.startswith(f"{here}/"), (name, sentence)
        assert name.split()[0] in sentence
        assert "could not be written (" in sentence
    assert all("File too large" in s for n, s in said.items() if n != "folder of torch")
    assert (here / "tensors").read_bytes() == b"old"
    assert sorted(str(p.relative_to(here)) for p in here.rglob("*")) == ["deep", "tensors"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users are a matter of POSIX")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    script = (
        "import os, sys\n"
        "from surefoot._sealed.writing import new_folder, write_bytes\n"
        "from surefoot.errors import WriteError\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "for path in ('file', 'deep/file'):\n"
        "    try: write_bytes(f'{sys.argv[1]}/{path}', b'x')\n"
        "    except WriteError as error: print(error, error.errno, error.filename)\n"
        "try:\n"
        "    with new_folder(f'{sys.argv[1]}/new'): pass\n"
        "except WriteError as error: print(error)\n"
    )
    shut = tmp_path / "shut"
    shut.mkdir()
    shut.chmod(0o555)
    # Another user must get to it.
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o111)
    done = subprocess.run(
        [sys.executable, "-c", script, str(shut)], capture_output=True, text=True, check=True
    )
    lines_ = done.stdout.splitlines()
    assert [line.partition(" could")[0] for line in lines_] == [
        str(shut / p) for p in ("file", "deep/file", "new")
    ]
    assert all(
        "Permission denied); what was there is as it was: choose a folder" in x for x in lines_
    )


def test_errors_of_others_pass(tmp_path):
    for error in (ValueError("no"), OSError(2, "No such file", "/elsewhere/x"), WriteError("said")):
        with pytest.raises(type(error)) as raised, writing.explained(tmp_path / "a"):
            raise error
        assert raised.value is error


def test_a_new_folder_appears_whole(tmp_path):
    with writing.new_folder(tmp_path / "a" / "b") as partial:
        (partial / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"
    with pytest.raises(RuntimeError), writing.new_folder(tmp_path / "c"):
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
