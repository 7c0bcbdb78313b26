"""Where the cache is, what an error of the disk says, and that nothing half-made is seen."""

import errno
import threading
from pathlib import Path

import pytest

from surefoot.data import DataError, cache_dir, store
from surefoot.data.catalogue import File


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SUREFOOT_DATA", str(folder))
    folder.mkdir()
    return folder


def test_cache_dir_obeys_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUREFOOT_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "surefoot"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/void")
    assert cache_dir() == tmp_path / ".cache" / "surefoot"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "surefoot"
    monkeypatch.setenv("SUREFOOT_DATA", "~/mine")
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUREFOOT_DATA", "here")
    assert cache_dir() == tmp_path / "here"


def test_sha256_is_that_of_the_standard(tmp_path):
    # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.sha256_of(tmp_path / "abc") == expected
    assert store.damage(tmp_path, {"abc": File(expected, 3)}) is None
    (tmp_path / "abc").write_bytes(b"abd")
    assert expected in store.damage(tmp_path, {"abc": File(expected, 3)})
    assert "cannot be read" in store.damage(tmp_path, {"xyz": File(expected, 3)})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_in_one_sentence(cache, number):
    with pytest.raises(DataError) as caught, store.staging("toy") as work:
        (work / "half").write_bytes(b"half")
        raise OSError(number, "no room")
    message = str(caught.value)
    assert message.startswith(f"no room to fetch toy: the disk that holds {cache} is full")
    assert "SUREFOOT_DATA" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_a_forbidden_folder_is_told_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file where a folder should be")
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path / "file"))
    says = r"cannot lock toy in .*; set SUREFOOT_DATA to a folder"
    with pytest.raises(DataError, match=says), store.exclusive("toy", print):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, DataError])
def test_staging_leaves_nothing_whatever_happens(cache, error):
    with pytest.raises(error), store.staging("toy") as work:
        (work / "half").write_bytes(b"half")
        raise error
    assert list(cache.iterdir()) == []


def test_staging_removes_what_a_killed_process_left(cache):
    left = cache / ".toy.abc.part"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    other = cache / ".other.abc.part"
    other.mkdir()
    with store.staging("toy"):
        assert not left.exists()
    assert other.exists(), "another entry may be under way"


def test_put_replaces_a_damaged_folder(cache):
    (cache / "toy").mkdir()
    (cache / "toy" / "a").write_bytes(b"damaged")
    (cache / "toy" / "stale").write_bytes(b"stale")
    with store.staging("toy") as work:
        (work / "kept").mkdir()
        (work / "kept" / "a").write_bytes(b"good")
        assert store.put(work / "kept", "toy", work) == cache / "toy"
    assert [p.name for p in (cache / "toy").iterdir()] == ["a"]
    assert (cache / "toy" / "a").read_bytes() == b"good"
    assert [p.name for p in cache.iterdir()] == ["toy"]


def test_one_at_a_time_and_the_waiting_one_says_so(cache):
    said: list[str] = []
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        def say(line: str) -> None:
            said.append(line)
            waiting.set()

        with store.exclusive("toy", say):
            order.append("second")

    with store.exclusive("toy", said.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(timeout=1200)
        order.append("first")
    thread.join(timeout=1200)
    assert order == ["first", "second"]
    assert said == ["another process is fetching toy: waiting for it"]


def test_two_entries_do_not_wait_for_each_other(cache):
    with store.exclusive("one", pytest.fail), store.exclusive("two", pytest.fail):
        assert {p.name for p in Path(cache).iterdir()} == {".one.lock", ".two.lock"}
