"""Where C kernels come from, what happens where they cannot be had, and their threads."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading

import pytest

from surefoot._native import build, threads

CODE = "int answer(void) { return ANSWER; }\n"


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache folder that is empty, and a compiler that was not asked yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = build.target
    asked.cache_clear()
    yield tmp_path / "cache" / "surefoot" / "kernels"
    asked.cache_clear()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "answer.c"
    path.write_text(CODE)
    return path


def test_the_name_tells_source_flags_compiler_and_processor(fresh, source, monkeypatch):
    found = [build.build(source, "a", ["-DANSWER=1"])]
    assert found[0].parent == fresh
    assert fresh.stat().st_mode & 0o077 == 0
    assert build.load(found[0]).answer() == 1
    stamp = found[0].stat().st_mtime_ns
    assert build.build(source, "a", ["-DANSWER=1"]) == found[0]
    assert found[0].stat().st_mtime_ns == stamp
    found.append(build.build(source, "a", ["-DANSWER=2"]))
    assert build.load(found[1]).answer() == 2
    source.write_text(CODE + "\n")
    found.append(build.build(source, "a", ["-DANSWER=1"]))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DNOTHING"))
    found.append(build.build(source, "a", ["-DANSWER=1"]))
    monkeypatch.setattr(build, "target", lambda cc: ((), "another processor"))
    found.append(build.build(source, "a", ["-DANSWER=1"]))
    assert len(set(found)) == len(found)
    assert {path.name for path in fresh.iterdir()} == {path.name for path in found}


def test_without_a_compiler_or_with_one_that_fails(fresh, source, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(build.NoKernel, match="no C compiler was found .looked for no-such-comp"):
        build.build(source, "a")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(build.NoKernel, match="out of luck"):
        build.build(source, "a")


def test_what_is_no_library_is_not_loaded(tmp_path):
    (tmp_path / "a.so").write_bytes(b"no library")
    with pytest.raises(build.NoKernel, match="cannot be loaded"):
        build.load(tmp_path / "a.so")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners of files are a matter of POSIX")
@pytest.mark.parametrize("which", ["folder", "library", "link"])
def test_what_others_could_have_written_is_not_loaded(fresh, source, which, tmp_path, monkeypatch):
    def touch(command, start):
        library = start.with_name(f"{start.name}-{hashlib.sha256(b'').hexdigest()[:24]}.so")
        library.touch(0o700)
        return library

    monkeypatch.setattr(build, "_compile", touch)
    library = build.build(source, "a")
    if which == "folder":
        fresh.chmod(0o777)
    elif which == "library":
        library.chmod(0o722)
    else:
        shutil.move(library, tmp_path / "elsewhere.so")
        library.symlink_to(tmp_path / "elsewhere.so")
    try:
        with pytest.raises(build.NoKernel, match="not this user's alone"):
            build.build(source, "a")
    finally:
        fresh.chmod(0o700)


@pytest.mark.parametrize(("rows", "many"), [(0, 1), (7, 1), (7, 2), (7, 3), (3, 3)])
def test_rows_are_shared_out_whole_and_in_order(rows, many):
    assert [
        i for share in threads.shared(lambda a, b: range(a, b), rows, many) for i in share
    ] == list(range(rows))


def test_shares_run_beside_each_other_and_errors_come_back():
    meet = threading.Barrier(3, timeout=60)
    assert threads.shared(lambda a, b: meet.wait() >= 0, 3, 3) == [True] * 3

    def fails(a, b):
        if a:
            raise ValueError("in another thread")

    with pytest.raises(ValueError, match="in another thread"):
        threads.shared(fails, 2, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_threads_of_its_own():
    script = (
        "import os, sys, warnings\n"
        "from surefoot._native.threads import shared\n"
        "warnings.simplefilter('ignore')\n"
        "def work():\n"
        "    return shared(lambda a, b: b - a, 9, 3) == [3, 3, 3]\n"
        "assert work()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if work() else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
