"""The one atomic write: what is left when a writer fails, is killed, or is not alone."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from surefoot._run.files import replacing, write_bytes, write_json, write_text


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_bytes_text_and_json_come_back(tmp_path):
    write_bytes(tmp_path / "a", b"\x00\r\n\xff")
    write_text(tmp_path / "b", "γ\n")
    write_json(str(tmp_path / "c"), {"x": [1, None], "path": Path("p")})
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"
    assert (tmp_path / "b").read_bytes() == "γ\n".encode()
    assert json.loads((tmp_path / "c").read_text()) == {"x": [1, None], "path": "p"}
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {("a", "tuple"): 1})
    assert names(tmp_path) == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_nothing_has_the_name_before_the_end(tmp_path):
    with replacing(tmp_path / "new") as partial:
        partial.write_text("whole")
        assert partial.name.startswith(".")
        assert not (tmp_path / "new").exists()
        assert [n for n in names(tmp_path) if not n.startswith(".")] == []
    assert (tmp_path / "new").read_text() == "whole"


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")
    script = (
        "import os, sys\n"
        "from surefoot._run.files import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n"
        "    partial.write_text('half')\n"
        "    os._exit(9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == 9
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_reader_beside_many_writers_sees_whole_files(tmp_path):
    path = tmp_path / "shared"
    contents = [str(i) * 200_000 for i in range(4)]
    write_text(path, contents[0])
    failures, done = [], threading.Event()

    def keep_writing(content):
        try:
            for _ in range(15):
                write_text(path, content)
        except Exception as error:
            failures.append(error)

    def keep_reading():
        while not done.is_set():
            if path.read_text() not in contents:
                failures.append("a torn file")

    reader = threading.Thread(target=keep_reading)
    writers = [threading.Thread(target=keep_writing, args=(c,)) for c in contents]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert names(tmp_path) == ["shared"]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        order.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(
        os, "replace", lambda a, b: (order.append(("replace", Path(b).name)), replace(a, b))
    )
    write_bytes(tmp_path / "log", b"12345")
    assert order == [("fsync", 5), ("replace", "log")]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_file_may_be_read_by_whom_the_umask_lets(tmp_path, umask):
    from safetensors.torch import save_file
    from torch import ones

    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
        with replacing(tmp_path / "b") as partial:  # a library that puts a 0600 file in its place
            save_file({"w": ones(2)}, partial)
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_a_read_only_folder_is_an_error_that_names_the_file():
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        folder.chmod(0o555)
        if user == 0:  # whom no mode holds back
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=re.escape(repr(str(folder / "log")))):
            write_text(folder / "log", "x")
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_a_missing_folder_and_a_folder_in_its_place_are_errors_that_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        write_text(tmp_path / "no" / "file", "x")
    assert str(missing.value).endswith(repr(str(tmp_path / "no" / "file")))
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as taken:
        write_text(tmp_path / "taken", "x")
    assert str(taken.value).endswith(repr(str(tmp_path / "taken")))
    assert names(tmp_path) == ["taken"]


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    for name in ("n" * 255, "γ" * 127):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"


def test_it_needs_the_standard_library_alone():
    script = (
        "import sys; import surefoot._run.files; "
        "print([m for m in ('torch', 'pandas', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
