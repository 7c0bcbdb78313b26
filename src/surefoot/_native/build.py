"""C files compiled on first use with the system's compiler, into a folder that is the user's alone."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
"""For every file; no value of a result hangs on them."""
NATIVE = ("-march=native", "-mprefer-vector-width=512")
PATIENCE = 300
"""Seconds a compiler may take before it is given up."""


class NoKernel(Exception):
    """Why there is no C kernel here, in one sentence."""


def compiler() -> str:
    """The C compiler: `CC`, else the first of cc, gcc and clang that is installed."""
    chosen = os.environ.get("CC")
    for name in [chosen] if chosen else ["cc", "gcc", "clang"]:
        found = shutil.which(name)
        if found:
            return found
    raise NoKernel(f"no C compiler was found (looked for {chosen or 'cc, gcc, clang'})")


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise NoKernel(f"the compiler {command[0]} failed: {said.strip()[:500]}") from error
    return done.stdout + done.stderr


@functools.cache
def target(cc: str) -> tuple[tuple[str, ...], str]:
    """The flags that the compiler takes for this processor, and what they stand for.

    A home directory may be shared by machines of several kinds, where code for one of them dies on another:
    what `native` resolves to is a part of the library's name.
    """
    flags: list[str] = []
    for flag in NATIVE:
        try:
            _ask(cc, flag, "-E", "-x", "c", os.devnull)
        except NoKernel:
            continue
        flags.append(flag)
    return tuple(flags), _ask(cc, "--version") + _ask(
        cc, *flags, "-dM", "-E", "-x", "c", os.devnull
    )


def folder() -> Path:
    """Where libraries are kept: `surefoot/kernels` in the user's cache directory."""
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    except RuntimeError:
        raise NoKernel("this user has no home directory to keep a compiled kernel in") from None
    return base / "surefoot" / "kernels"


def own(path: Path) -> None:
    """Refuse what somebody else could have written: it would be loaded into this process."""
    if not hasattr(os, "getuid"):
        return
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NoKernel(
            f"{path} is not this user's alone (a link, of another owner, or others may write to it)"
        )


def build(source: Path, name: str, flags: Sequence[str] = ()) -> Path:
    """The compiled library of a C file; compiled if it is not there yet.

    Parameters
    ----------
    source
        The file.
    name
        What the library is called, before what tells source, flags, compiler and processor.
    flags
        Beside those of every file.

    Raises
    ------
    NoKernel
        There is no compiler, it fails, or what it made cannot be kept where nobody else may write.
    """
    if sys.platform == "win32":
        raise NoKernel("the kernel is not built on Windows")
    cc = compiler()
    native, resolved = target(cc)
    own_flags = (*FLAGS, *native, *flags)
    key = "\0".join([source.read_text(encoding="utf-8"), *own_flags, cc, resolved])
    called = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    try:
        at = folder()
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        own(at)
        library = next((p for p in sorted(at.glob(f"{called}-*.so")) if _is_whole(p)), None)
        if library is None:
            library = _compile([cc, *own_flags, str(source), "-lm"], at / called)
        own(library)
    except OSError as error:
        raise NoKernel(f"no compiled kernel can be kept: {error}") from error
    return library


def _is_whole(library: Path) -> bool:
    """Whether it is what the compiler wrote, as its name says: a damaged one would compute something else."""
    own(library)
    return library.stem.endswith(_sum_of(library))


def _sum_of(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:24]


def _compile(command: list[str], start: Path) -> Path:
    # Two processes may compile at once: each writes its own file, and either may be the one that stays.
    with tempfile.TemporaryDirectory(dir=start.parent) as work:
        made = Path(work) / f"{start.name}.so"
        _ask(*command, "-o", str(made))
        made.chmod(0o700)
        library = start.with_name(f"{start.name}-{_sum_of(made)}.so")
        os.replace(made, library)
    return library


def load(library: Path) -> ctypes.CDLL:
    """The library in this process.

    Raises
    ------
    NoKernel
        If it cannot be loaded.
    """
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NoKernel(f"the compiled kernel cannot be loaded: {error}") from error
