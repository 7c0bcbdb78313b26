"""The C kernel of a spline order."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, ClassVar

from surefoot._native import build as native
from surefoot._native.build import NoKernel
from surefoot.errors import warn
from surefoot.kan._basis.bspline import local_polynomials

SOURCE = Path(__file__).with_name("spline.c")
# NaN must stay NaN, so no -ffinite-math-only; sums may be reordered, which vectors need.
FLAGS = ("-fno-signed-zeros", "-fassociative-math")


class Shape(Structure):
    """What the kernel is told of a layer, as in the C file."""

    _fields_: ClassVar = [
        ("in_features", c_int64),
        ("out_features", c_int64),
        ("size", c_int64),
        ("base", c_int64),
        ("policy", c_int64),
    ]


def table(order: int) -> str:
    """The local polynomials as a C initialiser."""

    def number(value: float) -> str:
        return f"{value:.17g}f" if value % 1 else f"{value:.1f}f"

    rows = (",".join(number(value) for value in row) for row in local_polynomials(order))
    return "{" + ",".join("{" + row + "}" for row in rows) + "}"


def build(order: int) -> Path:
    """The compiled kernel of that spline order; compiled if it is not there yet."""
    defines = (f"-DORDER={order}", f"-DTABLE={table(order)}")
    return native.build(SOURCE, f"spline{order}", (*FLAGS, *defines))


@functools.cache
def kernel(order: int) -> ctypes.CDLL:
    """The loaded library.

    Raises
    ------
    NoKernel
        As in `surefoot._native.build`.
    """
    library = native.load(build(order))
    shape = POINTER(Shape)
    grid: tuple[Any, ...] = (c_int64, c_void_p, c_void_p)
    library.kan_floats.argtypes = [shape, c_int]
    library.kan_floats.restype = c_int64
    library.kan_forward.argtypes = [shape, *grid, *[c_void_p] * 5]
    library.kan_forward.restype = None
    library.kan_backward.argtypes = [shape, *grid, *[c_void_p] * 6]
    library.kan_backward.restype = None
    return library


@functools.cache
def why_not(order: int) -> str | None:
    """Why there is no kernel of that order; None where there is one. Asked once a process."""
    try:
        kernel(order)
    except NoKernel as error:
        return str(error)
    return None


@functools.cache
def tell(why: str) -> None:
    """Warn once that the slower road is taken."""
    warn(
        f"spline layers are computed by torch, which is slower: {why}",
        RuntimeWarning,
    )
