"""The C kernel of quantised blocks beside torch's operations, bit for bit."""

import ctypes
import subprocess
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surefoot._native import build
from surefoot.data.quantised._kernel import native
from surefoot.data.quantised.blocks import (
    KINDS,
    SIZE,
    _Scratch,
    by_torch,
    split,
    unpack_columns,
    unpack_rows,
)

kernel_here = pytest.mark.skipif(not native.available(), reason="there is no C compiler here")
# Subnormal, smallest, largest, negative, zeros of both signs, infinite, not a number.
SCALES = np.array(
    [0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0, 0x8000, 0x7C00, 0xFC00, 0x7E01], "<u2"
)


def blocks(kind, out, count, seed, *, every_scale=False):
    """Random bytes; scales are any float16, or finite ones of a weight's size."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (out, count, kind.bytes), dtype=np.uint8)
    scales = rng.standard_normal((out, count, kind.scales)).astype("<f2").view("<u2")
    if every_scale:
        scales = rng.integers(0, 1 << 16, scales.shape, dtype="<u2")
        scales.reshape(-1)[: len(SCALES)] = SCALES[: scales.size]
    raw[..., : 2 * kind.scales] = scales.view(np.uint8).reshape(out, count, 2 * kind.scales)
    return torch.from_numpy(raw)


def torchs(quants, scales, kind, layout, dtype):
    if layout == "rows":
        out = torch.empty(len(quants), SIZE * quants.shape[1], dtype=dtype)
        by_torch(quants, scales, kind, out.view(len(quants), -1, SIZE), 2)
    else:
        out = torch.empty(SIZE * len(quants), quants.shape[2], dtype=dtype)
        by_torch(quants, scales, kind, out.view(-1, SIZE, quants.shape[2]), 1)
    return out


def same_bits(a, b):
    """All bits, but for those of a NaN."""
    if not torch.equal(a.isnan(), b.isnan()):
        return False
    kind = torch.int32 if a.element_size() == 4 else torch.int16
    return torch.equal(a.nan_to_num(0.0, torch.inf, -torch.inf).view(kind),
                       b.nan_to_num(0.0, torch.inf, -torch.inf).view(kind))  # fmt: skip


@kernel_here
@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS.values())),
    layout=st.sampled_from(["rows", "columns"]),
    dtype=st.sampled_from(native.DTYPES),
    out=st.integers(1, 70),
    count=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    every_scale=st.booleans(),
)
@example(KINDS[3], "columns", torch.float32, 2048 + 9, 1, 0, True)
@example(KINDS[8], "columns", torch.bfloat16, 2048 * 2 + 1, 1, 0, False)
def test_it_is_torch_bit_for_bit(kind, layout, dtype, out, count, seed, every_scale):
    quants, scales = split(blocks(kind, out, count, seed, every_scale=every_scale), kind, layout)
    shape = (out, SIZE * count) if layout == "rows" else (SIZE * count, out)
    room = torch.full((SIZE * count * out + 2,), 7.0, dtype=dtype)
    # One number off: an address that no vector is aligned to.
    found = room[1:-1].view(shape)
    assert native.possible(quants, scales, found)
    (unpack_rows if layout == "rows" else unpack_columns)(quants, scales, kind, found)
    assert same_bits(found, torchs(quants, scales, kind, layout, dtype))
    assert float(room[0]) == float(room[-1]) == 7.0


@kernel_here
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_scale_and_every_byte(kind):
    """All 65,536 float16 against all bytes of a place: the closed form, in float64."""
    raw = torch.zeros(1 << 16, 1, kind.bytes, dtype=torch.uint8)
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    raw[:, 0, :2] = every.view(torch.uint8).view(-1, 2)
    raw[:, 0, 2 * kind.scales :] = torch.arange(1 << 16).view(-1, 1).to(torch.uint8)
    quants, scales = split(raw, kind, "columns")
    found = unpack_columns(quants, scales, kind, torch.empty(SIZE, 1 << 16))
    d = every.view(torch.float16).double()
    byte = quants[0].to(torch.int64)
    if kind.name == "Q8_0":
        q = byte.to(torch.uint8).view(torch.int8).expand(SIZE, -1)
    else:
        q = torch.cat([byte & 15, byte >> 4]) - (8 if kind.name == "Q4_0" else 0)
    m = 0.0 if kind.name == "Q4_1" else -0.0
    assert same_bits(found, (q.double() * d + m).float())


@kernel_here
def test_no_rows_and_some_rows():
    kind = KINDS[8]
    quants, scales = split(blocks(kind, 6, 2, 0), kind, "rows")
    wanted = torchs(quants, scales, kind, "rows", torch.float32)
    for which in (torch.empty(0, dtype=torch.long), torch.tensor([4, 4, 0]), slice(2, 5)):
        some = wanted[which]
        assert torch.equal(
            unpack_rows(quants[which], scales[which], kind, torch.empty_like(some)), some
        )


@kernel_here
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_threads_and_flushed_subnormals_change_nothing(layout):
    kind = KINDS[3]
    # Enough for more than one thread, and blocks that do not divide by three.
    quants, scales = split(
        blocks(kind, 1024, 4 * native.A_THREAD // 1024 // SIZE + 1, 0), kind, layout
    )
    wanted = torchs(quants, scales, kind, layout, torch.float32)
    before = torch.get_num_threads()
    try:
        for many in (1, 3):
            torch.set_num_threads(many)
            torch.set_flush_denormal(True)
            found = torch.empty_like(wanted)
            native.unpack(quants, scales, kind.name, found, columns=layout == "columns")
            assert torch.equal(found, wanted)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


class Named(torch.Tensor):
    pass


@kernel_here
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_c_is_not_called_beyond_what_it_is_given(layout):
    """Blocks that do not belong together: an address and a count are all that C would know."""
    kind = next(iter(KINDS.values()))
    quants, scales = split(blocks(kind, 8, 4, 0), kind, layout)
    out = torch.empty((8, 128) if layout == "rows" else (128, 8))
    columns = layout == "columns"
    native.unpack(quants, scales, kind.name, out, columns=columns)
    for wrong in (
        (quants[:-1], scales, out), (quants, scales[:-1], out), (quants, scales, out[:-1]),
        (quants, scales.repeat(1, 2, 1), out), (quants, scales, out.repeat(2, 1)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must have shapes"):
            native.unpack(*wrong[:2], kind.name, wrong[2], columns=columns)


def test_what_c_cannot_see_is_left_to_torch():
    kind = KINDS[3]
    quants, scales = split(blocks(kind, 6, 2, 0), kind, "columns")
    wanted = torchs(quants, scales, kind, "columns", torch.float32)
    strided = torch.empty(6, 2 * SIZE).T
    double = torch.empty(2 * SIZE, 6, dtype=torch.float64)
    half = torch.empty(2 * SIZE, 6, dtype=torch.float16)
    own = torch.empty(2 * SIZE, 6).as_subclass(Named)
    for out in (double, half, own):
        assert not native.possible(quants, scales, out)
        assert torch.equal(unpack_columns(quants, scales, kind, out).as_subclass(torch.Tensor).float(),
                           wanted.to(out.dtype).float())  # fmt: skip
    assert not native.possible(quants, scales, strided)
    apart = torch.stack([quants, quants], -1)[..., 0]
    assert not apart.is_contiguous()
    assert not native.possible(apart, scales, torch.empty(2 * SIZE, 6))
    assert torch.equal(unpack_columns(apart, scales, kind, torch.empty(2 * SIZE, 6)), wanted)


def test_a_room_that_was_made_in_inference_mode_serves_elsewhere():
    room = _Scratch()
    with torch.inference_mode():
        first = room((4, 4), torch.float32, torch.device("cpu"))
    assert room((4, 4), torch.float32, torch.device("cpu")).zero_().data_ptr() == first.data_ptr()


def test_without_a_compiler_torch_takes_over_and_says_so_once(monkeypatch, tmp_path):
    kind = KINDS[3]
    quants, scales = split(blocks(kind, 6, 2, 0), kind, "columns")
    for cached in (native.kernel, native.available, build.target):
        cached.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        with pytest.warns(
            RuntimeWarning, match="unpacked by torch, which is slower: no C compiler"
        ):
            found = unpack_columns(quants, scales, kind, torch.empty(2 * SIZE, 6))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            unpack_columns(quants, scales, kind, torch.empty(2 * SIZE, 6))
        assert torch.equal(found, torchs(quants, scales, kind, "columns", torch.float32))
    finally:
        monkeypatch.undo()
        for cached in (native.kernel, native.available, build.target):
            cached.cache_clear()


@kernel_here
def test_c_for_processors_without_avx2_gives_the_same(tmp_path):
    """The lines that are compiled where there are no such instructions, with this compiler."""
    made = tmp_path / "plain.so"
    flags = [f for f in build.FLAGS if f != "-O3"]
    subprocess.run(
        [build.compiler(), "-O1", *flags, str(native.SOURCE), "-o", str(made)], check=True
    )
    library = ctypes.CDLL(str(made))
    library.surefoot_unpack.argtypes = native.kernel().surefoot_unpack.argtypes
    for kind in KINDS.values():
        quants, scales = split(blocks(kind, 21, 3, 1, every_scale=True), kind, "columns")
        for dtype in native.DTYPES:
            found = torch.empty(3 * SIZE, 21, dtype=dtype)
            library.surefoot_unpack(
                native.KINDS[kind.name], dtype == torch.bfloat16, 3, 21,
                quants.data_ptr(), scales.data_ptr(), found.data_ptr(),
            )  # fmt: skip
            assert same_bits(found, torchs(quants, scales, kind, "columns", dtype))
