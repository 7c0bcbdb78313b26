"""Whether a value can be the array that a shape annotation speaks of: its dtype and its dimensions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# Kinds of NumPy dtypes that an annotation of jaxtyping takes: whole numbers are real ones as well.
KINDS = {"Float": "fiu", "Int": "iu", "UInt": "u", "Integer": "iu", "Bool": "b", "Complex": "c",
         "Inexact": "fc", "Real": "fiu", "Num": "fiuc", "Shaped": "fiucbSUOV", "Key": "u"}  # fmt: skip
WORDS = {"Float": "real numbers", "Int": "whole numbers", "UInt": "whole numbers", "Bool": "booleans",
         "Integer": "whole numbers", "Real": "real numbers", "Num": "numbers",
         "Shaped": "values"}  # fmt: skip


def is_tensor(value: Any) -> bool:
    """Of torch, which need not be imported to know that."""
    return any(t.__module__ == "torch" and t.__name__ == "Tensor" for t in type(value).__mro__)


def is_array(value: Any) -> bool:
    """Of NumPy, or a scalar of it."""
    return type(value).__module__.partition(".")[0] == "numpy" or _sub(value)


def _sub(value: Any) -> bool:
    np = sys.modules.get("numpy")
    return np is not None and isinstance(value, (np.ndarray, np.generic))


def hidden(value: Any) -> bool:
    """Whether a mask hides some of it."""
    np = sys.modules.get("numpy")
    return np is not None and isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


def kind_of(value: Any) -> str | None:
    """The kind of a dtype in NumPy's letters; None where it has none."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or type(dtype).__module__ != "torch":
        return getattr(dtype, "kind", None)
    if dtype.is_complex:
        return "c"
    if dtype.is_floating_point:
        return "f"
    return "b" if str(dtype) == "torch.bool" else "i"


def array_rule(annotation: Any, nan: bool) -> tuple[Callable[[Any], bool], str]:
    """What decides about a value, and the words for what is allowed, of a jaxtyping annotation."""
    of, dims = annotation.array_type, _dimensions(annotation)
    word = annotation.__name__.split("[")[0].rstrip("0123456789")
    kinds = KINDS.get(word, KINDS["Shaped"])
    torch_only = getattr(of, "__module__", "") == "torch"
    finite = not nan and "f" in kinds and word != "Shaped"

    def fits(value: Any) -> bool:
        if torch_only and not is_tensor(value):
            return False
        if not torch_only and not hasattr(value, "dtype"):
            value = _as_array(value)
        kind = kind_of(value)
        if kind is None:
            # A frame, or what else turns itself into an array.
            return hasattr(value, "__array__") or hasattr(value, "__array_interface__")
        if kind not in kinds or hidden(value):
            return False
        if dims is not None and len(value.shape) != dims:
            return False
        return not (finite and kind == "f") or _finite(value)

    what = "a tensor" if torch_only else "an array"
    size = "" if dims is None else f" of {dims} dimension{'s' * (dims != 1)}"
    each = f"{'finite ' if finite else ''}{WORDS.get(word, 'numbers')}"
    return fits, f"{what}{size} of {each}"


def unfinished(value: Any) -> str:
    """What to add about an array that holds NaN or infinity."""
    number = kind_of(value) == "f" and getattr(value, "shape", ()) != ()
    return " that holds NaN or infinity" if number and not _finite(value) else ""


def _finite(value: Any) -> bool:
    if is_tensor(value):
        # Of a sparse one, or one without storage, the function itself has to see.
        dense = str(value.layout) == "torch.strided" and value.device.type != "meta"
        return not dense or bool(value.detach().isfinite().all())
    import numpy as np

    return bool(np.isfinite(value).all())


def _as_array(value: Any) -> Any:
    """A list as NumPy reads it; anything else as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    import numpy as np

    if any(map(np.ma.is_masked, value)):
        return None
    try:
        return np.asarray([v.detach() if is_tensor(v) else v for v in value])
    except (TypeError, ValueError, RuntimeError):
        return None


def _dimensions(annotation: Any) -> int | None:
    """How many there must be; None where that is open."""
    dims = getattr(annotation, "dims", None)
    if not isinstance(dims, tuple):
        return None
    named = str(getattr(annotation, "dim_str", ""))
    return None if "..." in named or "*" in named else len(dims)
