"""Image sets in the three formats they come in."""

import gzip
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from jaxtyping import Float32, Int64

from surefoot import data
from surefoot.data.images import _idx, _unit
from surefoot.errors import FileFormatError

PIXELS = np.arange(3 * 4 * 4).reshape(3, 4, 4) * 5
LABELS = np.array([7, 0, 9])


def idx(array):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder, zip_it=True):
    folder.mkdir(exist_ok=True)
    parts = {"train": slice(0, 2), "t10k": slice(2, 3)}
    for part, rows in parts.items():
        for kind, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            raw = idx(array[rows])
            name = f"{part}-{kind}-ubyte" + (".gz" if zip_it else "")
            (folder / name).write_bytes(gzip.compress(raw) if zip_it else raw)
    return folder


def write_pickle(path, pairs):
    path.write_bytes(gzip.compress(pickle.dumps(pairs, protocol=4)))
    return path


def is_a_set(found):
    for part in ("train", "val", "test"):
        x, y = getattr(found, f"x_{part}"), getattr(found, f"y_{part}")
        assert isinstance(x, Float32[np.ndarray, "n 4 4"])
        assert isinstance(y, Int64[np.ndarray, "n"])
        assert len(x) == len(y)


@pytest.mark.parametrize("zip_it", [True, False])
def test_idx_folder(tmp_path, zip_it):
    found = data.load("fashion", path=write_idx(tmp_path / "idx", zip_it))
    is_a_set(found)
    assert [len(found.x_train), len(found.x_val), len(found.x_test)] == [2, 0, 1]
    assert np.array_equal(np.rint(found.x_train * 255), PIXELS[:2])
    assert np.array_equal(np.concatenate([found.y_train, found.y_test]), LABELS)
    assert found.classes[7] == "Sneaker"


def test_csv_with_the_label_last(tmp_path):
    rows = np.column_stack([PIXELS.reshape(3, 16), LABELS])
    np.savetxt(tmp_path / "mine.csv", rows, fmt="%d", delimiter=",")
    for path in (tmp_path / "mine.csv", str(tmp_path)):
        found = data.load("mnist5k", path=path)
        is_a_set(found)
        assert np.array_equal(np.rint(found.x_train * 255), PIXELS)
        assert found.x_train.max() == np.float32(PIXELS.max()) / np.float32(255)
        assert found.y_train.tolist() == [7, 0, 9]
        assert found.classes == tuple("0123456789")


@pytest.mark.parametrize("scale", [1, 255, 256])
def test_pickle_of_any_scale_comes_back_to_the_same_images(tmp_path, scale):
    flat = (PIXELS.reshape(3, 16) / scale).astype(np.float32)
    pairs = tuple((flat[i : i + 1], LABELS[i : i + 1]) for i in range(3))
    found = data.load("mnist", path=write_pickle(tmp_path / "mine.pkl.gz", pairs))
    is_a_set(found)
    for i, x in enumerate((found.x_train, found.x_val, found.x_test)):
        assert np.allclose(x, PIXELS[i : i + 1] / 255, rtol=3e-7, atol=0)


@given(st_np.arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(9))))
def test_pixels_over_256_are_recovered_exactly(pixels):
    assert np.array_equal(_unit(pixels.astype(np.float32) / 256), pixels)


@given(st_np.arrays(np.uint8, st_np.array_shapes(max_dims=4)))
def test_idx_round_trip(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(idx(array))
    assert np.array_equal(_idx(path), array)


def test_white_is_one_and_black_is_zero(tmp_path):
    x = np.array([[0, 255, 128, 255]])
    pairs = ((x / np.float32(256), np.array([3])),) * 3
    found = data.load("mnist", path=write_pickle(tmp_path / "m.pkl.gz", pairs))
    assert found.x_train.ravel().tolist() == [0, 1, np.float32(128) / np.float32(255), 1]


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (((np.zeros((2, 4)), np.zeros(2)),) * 2, "holds 4 arrays; three pairs are needed"),
        (((np.zeros((2, 4)), np.zeros(3)),) * 3, "are no set"),
        (((np.zeros((2, 5)), np.zeros(2)),) * 3, "not a readable set of images"),
        (((np.full((2, 4), 300.0), np.zeros(2)),) * 3, "pixels must be 0 to 255"),
        (((np.full((2, 4), np.nan), np.zeros(2)),) * 3, "pixels must be 0 to 255"),
        (((np.zeros((2, 4)), np.full(2, 10)),) * 3, "labels must be 0 to 9, got 10"),
    ],
)
def test_bad_pickles(tmp_path, pairs, says):
    with pytest.raises(FileFormatError, match=says):
        data.load("mnist", path=write_pickle(tmp_path / "bad.pkl.gz", pairs))


def test_bad_files(tmp_path):
    with pytest.raises(FileFormatError, match=r"is not a set of images: a \.pkl\.gz"):
        data.load("mnist", path=tmp_path)
    with pytest.raises(FileFormatError, match="is not a set of images"):
        data.load("mnist", path=tmp_path / "nowhere")
    folder = write_idx(tmp_path / "idx", zip_it=False)
    images = folder / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    for damaged in (whole[:-1], whole[:3], b"\0\0\x0d" + whole[3:], b""):
        images.write_bytes(damaged)
        with pytest.raises(FileFormatError):
            data.load("fashion", path=folder)
    (tmp_path / "bad.pkl.gz").write_bytes(b"not gzip")
    with pytest.raises(FileFormatError, match="not a readable set"):
        data.load("mnist", path=tmp_path / "bad.pkl.gz")
