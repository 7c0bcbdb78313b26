"""A pickle is a program; only one that builds arrays may run."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from surefoot import data
from surefoot.data.unpickle import read_arrays
from surefoot.errors import FileFormatError


def as_python_2_wrote_it(array: np.ndarray) -> bytes:
    """The opcodes of an array in a Python 2 pickle of protocol 2, put together by hand."""
    raw = array.tobytes()
    shape = b"".join(b"J" + struct.pack("<i", n) for n in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(" + shape + b"t"
        b"cnumpy\ndtype\n(U\x02" + array.dtype.str[1:].encode() + b"K\x00K\x01tR"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip


def program(*arrays: np.ndarray) -> bytes:
    return b"\x80\x02(" + b"".join(map(as_python_2_wrote_it, arrays)) + b"t."


@given(st_np.arrays(st.sampled_from(["<f4", "<i8"]), st_np.array_shapes(max_dims=3)))
def test_arrays_of_python_2_come_back(array):
    (found,) = read_arrays(program(array))
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()
    assert found.shape == array.shape


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_this_python_come_back(protocol):
    arrays = (np.arange(6.0).reshape(2, 3), np.arange(3))
    found = read_arrays(pickle.dumps(arrays, protocol))
    assert all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True))


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_os_system_is_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "executed"
    evil = pickle.dumps((np.zeros(2), Call(os.system, f"touch '{trace}'")), protocol)
    with pytest.raises(data.DataError, match="which is no constructor of a NumPy array"):
        read_arrays(evil)
    assert not trace.exists()
    # the program is a live one: the ordinary unpickler runs it
    pickle.loads(evil)
    assert trace.exists()


@pytest.mark.parametrize(
    "evil",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"cnumpy\nmemmap\n.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"csurefoot.data.unpickle\npickle\n.",
    ],
)
def test_everything_but_array_constructors_is_refused(evil):
    with pytest.raises(data.DataError, match="refused"):
        read_arrays(evil)


def test_an_evil_image_set_is_refused(tmp_path):
    trace = tmp_path / "executed"
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(Call(os.system, f"touch '{trace}'"), 2)))
    with pytest.raises(data.DataError, match=r"\.system, which is no constructor"):
        data.load("mnist", path=path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "other",
    [b"", b"garbage", program(np.arange(4))[:-9], pickle.dumps("text"), pickle.dumps([1.5]),
     b"\x80\x04N.", b"Pid\n."],
)  # fmt: skip
def test_what_is_no_pickle_of_arrays_is_one_sentence(other):
    with pytest.raises(FileFormatError, match="^the pickle"):
        read_arrays(other)


def test_an_array_of_objects_is_refused():
    with pytest.raises((FileFormatError, data.DataError)):
        read_arrays(pickle.dumps(np.array([{}, "x"], dtype=object), 4))
