"""Archives are hostile until proven otherwise."""

import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from surefoot.data import DataError
from surefoot.data.archives import unpack
from surefoot.data.catalogue import File

ABSOLUTE = "/tmp/surefoot-evil"
EVIL = ("../../evil", ABSOLUTE, "..\\evil", "pkg/../../evil", "C:\\evil")


@pytest.fixture(params=["zipped", "tarred"])
def archive(request, pack, tmp_path):
    """Make an archive of either kind."""
    suffix = {"zipped": "x.whl", "tarred": "x.tar.gz"}[request.param]
    make = getattr(pack, request.param)
    return lambda members: make(tmp_path / suffix, members)


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "deep" / "into"
    folder.mkdir(parents=True)
    return folder


def everything(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_only_the_asked_for_is_written(archive, pack, into, tmp_path):
    path = archive({"pkg/d/a.bin": b"a", "pkg/d/s/b.bin": b"b", "pkg/__init__.py": b"code"})
    unpack(path, "pkg/d", {"a.bin": pack.pin(b"a"), "s/b.bin": pack.pin(b"b")}, into)
    assert everything(into) == ["a.bin", "s/b.bin"]
    assert (into / "s" / "b.bin").read_bytes() == b"b"


def test_paths_that_point_outside_are_never_written(archive, pack, into, tmp_path):
    path = archive({"pkg/a.bin": b"a"} | dict.fromkeys(EVIL, b"evil"))
    before = everything(tmp_path)
    unpack(path, "pkg", {"a.bin": pack.pin(b"a")}, into)
    assert sorted(set(everything(tmp_path)) - set(before)) == ["deep/into/a.bin"]
    assert not Path(ABSOLUTE).exists()


def test_a_missing_member_is_named(archive, pack, into):
    path = archive({"pkg/a.bin": b"a"})
    with pytest.raises(DataError, match=rf"{path.name} holds no file pkg/b\.bin"):
        unpack(path, "pkg", {"b.bin": pack.pin(b"b")}, into)


def test_another_content_is_refused(archive, pack, into):
    path = archive({"pkg/a.bin": b"bad"})
    with pytest.raises(DataError, match="SHA-256 .* expected"):
        unpack(path, "pkg", {"a.bin": pack.pin(b"all")}, into)


def test_a_bomb_is_stopped_at_the_pinned_size(archive, into):
    path = archive({"pkg/a.bin": bytes(64 << 20)})
    tracemalloc.start()
    with pytest.raises(DataError, match="longer than the 10 bytes"):
        unpack(path, "pkg", {"a.bin": File("0" * 64, 10)}, into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert (into / "a.bin").stat().st_size <= 10


def test_a_damaged_archive_is_one_sentence(archive, pack, into):
    path = archive({"pkg/a.bin": bytes(range(256)) * 400})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not an archive", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path.name} is damaged") as caught:
            unpack(path, "pkg", {"a.bin": pack.pin(b"a")}, into)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_links_and_folders_in_place_of_a_file_are_refused(pack, into, tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        other = tarfile.TarInfo("pkg/other")
        other.size = 6
        tar.addfile(other, io.BytesIO(b"secret"))
        info = tarfile.TarInfo("pkg/a.bin")
        info.type = kind
        info.linkname = "pkg/other" if kind == tarfile.LNKTYPE else str(secret)
        tar.addfile(info)
    # even with the hash of what the link points to
    with pytest.raises(DataError, match="holds no file"):
        unpack(path, "pkg", {"a.bin": pack.pin(b"secret")}, into)
    assert everything(into) == []


def test_a_link_in_a_wheel_is_only_its_text(pack, into, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        info = zipfile.ZipInfo("pkg/a.bin")
        info.external_attr = 0o120777 << 16
        wheel.writestr(info, str(secret))
    with pytest.raises(DataError, match="SHA-256|longer"):
        unpack(path, "pkg", {"a.bin": pack.pin(b"secret")}, into)
    assert not (into / "a.bin").is_symlink()
