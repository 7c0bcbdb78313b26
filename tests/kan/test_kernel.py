"""Where the C kernel comes from, and what happens where it cannot be had."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.kan.test_layer import relative, rows, seeded

from surefoot._native import build as core
from surefoot.kan import KANLinear
from surefoot.kan._kernel import build


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache folder that is empty, and a process that has not asked yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caches = [build.kernel, build.why_not, build.tell, core.target]
    for cached in caches:
        cached.cache_clear()
    yield tmp_path / "cache" / "surefoot" / "kernels"
    for cached in caches:
        cached.cache_clear()


def test_it_is_compiled_into_a_folder_of_ones_own_and_found_again(fresh):
    library = build.build(3)
    assert library.parent == fresh
    assert fresh.stat().st_mode & 0o077 == 0
    stamp = library.stat().st_mtime_ns
    assert build.build(3) == library
    assert library.stat().st_mtime_ns == stamp
    assert [p.name for p in fresh.iterdir()] == [library.name]
    assert build.build(2) != library


@pytest.mark.acceptance
def test_the_name_tells_source_flags_compiler_and_processor(fresh, monkeypatch):
    first = build.build(1)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DNOTHING"))
    assert build.build(1) != first
    monkeypatch.undo()
    monkeypatch.setattr(core, "target", lambda cc: ((), "another processor"))
    assert build.build(1) != first


def test_without_a_compiler_torch_takes_over_and_says_so_once(fresh, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    layer, x = seeded(3, 2), rows(9, 3, spread=0.9)
    with pytest.warns(RuntimeWarning, match="computed by torch, which is slower: no C compiler"):
        y = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KANLinear(3, 2)(x)
    exact = layer.double()(x.double())
    assert relative(y.double(), exact) < 1e-6
    with pytest.raises(RuntimeError, match="kernel='c' cannot be had: no C compiler"):
        KANLinear(3, 2, kernel="c")(x)


def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert "out of luck" in build.why_not(3)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners of files are a matter of POSIX")
@pytest.mark.parametrize("which", ["folder", "library", "link"])
def test_what_others_could_have_written_is_not_loaded(fresh, which, tmp_path, monkeypatch):
    # Whatever stands there: it must not come to loading it.
    def touch(command, start):
        library = start.with_name(f"{start.name}-{hashlib.sha256(b'').hexdigest()[:24]}.so")
        library.touch(0o700)
        return library

    monkeypatch.setattr(core, "_compile", touch)
    library = build.build(3)
    if which == "folder":
        fresh.chmod(0o777)
    elif which == "library":
        library.chmod(0o722)
    else:
        moved = tmp_path / "elsewhere.so"
        shutil.move(library, moved)
        library.symlink_to(moved)
    try:
        assert "not this user's alone" in build.why_not(3)
    finally:
        fresh.chmod(0o700)


@pytest.mark.acceptance
def test_two_processes_may_compile_at_once(fresh):
    script = (
        "import torch; from surefoot.kan import KANLinear; torch.manual_seed(0);"
        "print(KANLinear(2, 2, kernel='c')(torch.full((1, 2), .5)).sum().item())"
    )

    def run(_):
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert len(list(fresh.iterdir())) == 1


def test_nothing_is_called_in_the_loops_over_rows():
    """A thread-local workspace would be looked up by a call in every row, spilling all vector registers."""
    if not shutil.which("objdump"):
        pytest.skip("objdump is not installed")
    command = ["objdump", "-d", "--no-show-raw-insn", str(build.build(3))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "__tls_get_addr" not in shown
    bodies = re.split(r"\n\n", shown)
    loops = [b for b in bodies if re.search(r"<(forward|slope|weight)_cell[^>]*>:", b)]
    assert len(loops) == 3
    assert not any(re.search(r"\tcall", body) for body in loops)


@pytest.mark.acceptance
def test_a_forked_child_has_threads_of_its_own():
    """A pool of threads does not live on in a fork; a child that waited for it would wait for ever."""
    script = """
import os, sys, warnings, torch
from surefoot._native import build as core
from surefoot.kan import KANLinear
warnings.simplefilter("ignore")
torch.set_num_threads(2)
layer, x = KANLinear(2, 2), torch.rand(4000, 2) * 1.8 - 0.9
with torch.no_grad():
    y = layer(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(layer(x), y) else 3)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("out", [1, 3, 40])
def test_many_cells_and_one_row(out):
    layer = seeded(5, out, grid_size=1000)
    x = rows(1, 5, spread=0.9)
    exact = seeded(5, out, grid_size=1000).double()
    exact.load_state_dict(layer.state_dict())
    assert relative(layer(x).double(), exact(x.double())) < 1e-6


def test_a_layer_without_inputs_needs_no_rows():
    layer = seeded(2, 3)
    x = torch.empty(0, 2, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, 2)
    assert not layer.weight.grad.any()


def test_the_process_may_have_other_defaults():
    """The workspace is written by C: as long in bytes, and in memory, whatever new tensors are by default."""
    script = """
import torch
from surefoot._native import build as core
from surefoot.kan import KANLinear
torch.manual_seed(0)
layer, x = KANLinear(40, 70), torch.rand(300, 40) * 1.8 - 0.9
exact = layer.double()(x.double())
layer = layer.float()
torch.set_default_dtype(torch.bfloat16)
torch.set_default_device("meta")
y = layer(x)
y.sum().backward()
assert (y.double() - exact).abs().max() < 1e-5
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_damaged_library_is_not_loaded(fresh):
    library = build.build(2)
    content = library.read_bytes()
    for damage in (content[:-1], content[:200] + b"\0" + content[201:], b"", content + b"\n"):
        if damage == content:
            continue
        library.write_bytes(damage)
        assert build.build(2).read_bytes() == content
