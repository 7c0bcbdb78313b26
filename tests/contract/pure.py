"""Every public function of plain arguments, an example of each, and values that an argument cannot have.

Functions come from the packages' export tables and examples from the names and annotations of their
parameters, so that a new function is covered as it is exported.
"""

import ast
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import torch

import surefoot

ROOT = Path(surefoot.__path__[0])
# Of a function with such a parameter an object must be made or trained first: tested where it lives.
OBJECTS = re.compile(
    r"Module|optim|Record\b|Guarantee|Callable|Task\b|Chain|Study|Result\b|TrainFn|ClientApp|ArrayRecord|State\b"
    r"|Loader|MakeTask|Closure|StepLog|Sketch\b.*chain|Path\b|Entry|source|KAN|Tangent\b|Problem\b"
    r"|MLPSpace|NetworkAutoencoder|PrototypeSet|Adapter\b|ZeroShotHead|Encoder\b|GaussianRelease|DomainTexts|Federation\b|Mixture\b"
)
# Whatever their annotation says: a network of any library, or a problem with one inside.
NETWORKS = {"model", "problem"}
# What is no function of its arguments: it reads or writes files, registers, or needs what is not named above;
# and what takes a word of which any is right.
OTHER = {"available", "cache_dir", "verify", "fetch", "load", "register_opacus", "from_opacus",
         "note_training", "attach_gradient_canaries", "theory_lr", "embed_texts", "sentence_encoder",
         "sentiment_domains", "wordnet_views", "extract_prototypes", "split_domains",
         "pretrained", "finetune", "write_comparison"}  # fmt: skip

g = np.random.default_rng(0)
X = g.standard_normal((3, 2, 4))
COVS = X @ X.transpose(0, 2, 1)
PARAMS = "surefoot.nesterov.agnes_parameters(0.5, 2.0)"
# A value by the name of a parameter; of a name that is not here by its annotation.
BY_NAME = {
    "covs": COVS, "C": COVS, "X": COVS, "A": COVS[0], "B": COVS[1], "S": None, "means": X[:, :, 0],
    "m": 8, "tau": 1.0, "taus": [0.5, 1.0], "mass_tau": None, "weights": None, "sample_weight": None,
    "upsilon": np.array([1.0, 2.0, 3.0]), "temperature": 1.0, "eps": 0.1, "rho": 0.5, "alpha": 0.5,
    "beta": 2.0, "F0": 5.0, "Flow": 1.0, "K": 10, "F": 2.0, "grad_norm2": 1.0, "eta": 0.1,
    "labels": np.arange(12) % 3, "domains": np.arange(12) % 3, "num_partitions": 3, "partitions": range(4),
    "fraction": 0.5, "seed": 1, "server_round": 2, "gamma": 0.1, "lam": 0.5, "lam_max": 1.0, "mu": 0.5,
    "L": 2.0, "gap0": 1.0, "T": 10, "sketch": "orthonormal", "dim": 8, "r": 2, "n": 10, "nu": 2,
    "layer": "a", "shape": (2, 8), "block": 1, "f0_gap": 1.0, "dist0_sq": 1.0, "s": 0.1, "tol": 1e-3,
    "mu_aim": np.array([0.5, 1.0]), "gap_y": np.array([1.0, 2.0]), "g_sq": np.array([3.0, 4.0]),
    "lams": [0.5, 2.0], "x0": [1.0, 1.0], "sigma_mult": 0.5, "target_epsilon": 2.0, "delta": 1e-5,
    "sample_rate": 0.1, "steps": 10, "noise_multiplier": 2.0, "number": 3, "tp": 8, "fp": 2, "runs": 10,
    "guesses": 6, "correct": 5, "scores": np.linspace(3.0, 0.2, 12),
    "included": np.arange(12) < 6, "shapes": [(4, 6)], "sigma2": 1.0,
    "delta0": 1.0, "depths": (1, 1), "widths": (4, 4), "replies": None,
    "samples": [(1.0, 2.0), (2.0, 3.5), (3.0, 5.0)],
}  # fmt: skip
# Words are names of examples there.
WORDS = {
    ("lda_partition", "labels"), ("domain_partition", "domains"), ("shared_sketch", "layer"),
}  # fmt: skip
# Measurements, of which one that could not be taken is NaN and gives NaN.
MEASURED = {"growth_constant", "certified_aiming"}
LOOPED = {"b": 0.5, "A": None, "sigma": None, "samples": 100, "d": 3, "loops": 2}
# Where a name means something else.
OF = {
    "suot_bures_barycenter": {"m": X[:, :, 0], "eps": 1e-8}, "lozo_bound": {"r": 2},
    "suot_dual_gap": {"S": np.eye(2)}, "weighted_mean": {"replies": {0: ({"w": torch.ones(2)}, 1.0)}},
    "blocks_to": {"mu": 0.5, "eps": 0.1}, "lozo_contraction": {"m": 4, "n": 6, "alpha": 0.01},
    "influence_bound": {"weights": np.full(3, 1 / 3)}, "p_value_one_run": {"eps": 1.0},
    "population_loss": {**LOOPED}, "dominance_ratio": {**LOOPED}, "bias_excess": {**LOOPED, "u": np.ones(3)},
    "flow_times": {"b": np.array([0.0, 0.2]), "d": 3, "loops": 2},
    "prompt_contraction": {"X": torch.ones(2, 3, 4), "A": np.eye(3)},
    "ols": {"X": torch.ones(2, 3, 4), "y": torch.ones(2, 4), "xq": torch.ones(2, 3)},
    "ridge": {"X": torch.ones(2, 3, 4), "y": torch.ones(2, 4), "xq": torch.ones(2, 3)},
    "comm_cost": {"rows_per_client": [3, 4], "d": 8},
    "distillation_loss": {"local_logits": torch.ones(2, 3), "global_logits": torch.zeros(2, 3)},
    "fedpft": {"feats": X.reshape(6, 4), "y": np.arange(6) % 2},
    "build_module": {"spec": {"select": None, "n_features": None, "widths": [3, 2, 1],
                              "activations": [[["tanh", 2]]], "dtype": "float32"}},
    "quantile_upper_bound": {"values": np.linspace(0.1, 1, 100), "q": 0.5, "confidence": 0.9},
    "clopper_pearson_upper": {"k": 2, "n": 10, "confidence": 0.9},
    "clopper_pearson_lower": {"k": 2, "n": 10, "confidence": 0.9},
    "occam_bound": {"train_error": 0.1, "n_params": 3, "bits": 16, "n": 100, "positions": 50,
                    "confidence": 0.9},
    "compare": {"weights": np.ones(10)}, "mean_suot": {"X": COVS},
    "prompt_assumptions": {"X": np.random.default_rng(0).normal(size=(6, 2, 5)),
                           "y": np.random.default_rng(1).normal(size=(6, 5))},
}  # fmt: skip


def functions():
    """{"package.name": function} of all functions in export tables whose arguments are plain."""
    found = {}
    for stub in sorted(ROOT.rglob("__init__.pyi")):
        package = ".".join(("surefoot", *stub.parent.relative_to(ROOT).parts))
        module = importlib.import_module(package)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            names = [a.asname or a.name for a in getattr(node, "names", ())]
            for name in names if isinstance(node, ast.ImportFrom) else ():
                thing = getattr(module, name)
                if inspect.isfunction(thing) and not needs_an_object(name, thing):
                    found[f"{package}.{name}"] = thing
    return found


def needs_an_object(name, function):
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return name in OTHER or any(
        p.name in NETWORKS or OBJECTS.search(str(p.annotation)) for p in required
    )


def example(function):
    """Arguments that the function takes, by the names of its parameters."""
    found = {}
    for name, p in inspect.signature(function).parameters.items():
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            continue
        own = OF.get(function.__name__, {})
        if name in own:
            found[name] = own[name]
        elif p.default is not p.empty:
            found[name] = p.default
        elif name == "params":
            from surefoot.nesterov import agnes_parameters

            found[name] = agnes_parameters(0.5, 2.0)
        elif name in BY_NAME:
            found[name] = BY_NAME[name]
        else:
            found[name] = 3 if "int" in str(p.annotation) else 0.5
    return found


NUMBER = re.compile(r"\b(int|float|PerStep|Steps|Blocks|Values)\b")
ARRAY = re.compile(r"Float|Int\[|Shaped|Bool\[|ndarray|Sequence")
NAN, INF = math.nan, math.inf
BAD = {
    "number": [NAN, INF, -INF, -1, 0, True, "nonsense", 1 + 2j, np.array([True]), b"3", [NAN]],
    "whole": [3.0, 2.5],
    "word": ["nonsense", 3, True, NAN, b"gd", ["gd"]],
    "array": [
        NAN,
        "nonsense",
        np.array([1j, 2j]),
        np.array(["a", "b"]),
        None,
        np.array([NAN, NAN]),
    ],
}


def kind_of(name, p, value):
    text = str(p.annotation)
    if "bool" in text and "ndarray" not in text and "Sequence" not in text:
        return None
    if isinstance(value, str) or "Literal" in text or text in ("'str'", "str"):
        return "word"
    if ARRAY.search(text) or isinstance(value, np.ndarray | list):
        return "array"
    if NUMBER.search(text) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return "number"
    return None


def bad_values(name, p, value):
    """What an argument is tried with."""
    kind = kind_of(name, p, value)
    if kind is None:
        return []
    values = list(BAD[kind])
    if kind == "number" and re.search(r"\bint\b", str(p.annotation)) and isinstance(value, int):
        values += BAD["whole"]
    if kind == "array" and isinstance(value, np.ndarray) and value.dtype != bool:
        values += [value * 1j, np.where(True, NAN, value), np.full(value.shape, "a"), value > 1e9]
    if kind == "array" and p.default is None:
        values = [v for v in values if v is not None]
    return values


def numbers_in(result, depth=0):
    """All numbers of a result."""
    if isinstance(result, bool | str | bytes) or result is None or depth > 3:
        return
    if isinstance(result, int | float | complex | np.number):
        yield complex(result)
    elif isinstance(result, torch.Tensor):
        yield from (complex(v) for v in result.detach().flatten().tolist())
    elif isinstance(result, np.ndarray) and result.dtype.kind in "fciub":
        yield from (complex(v) for v in result.ravel().tolist())
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from numbers_in(value, depth + 1)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from numbers_in(value, depth + 1)
    elif is_dataclass(result):
        for value in vars(result).values():
            yield from numbers_in(value, depth + 1)


def same(one, two):
    a, b = list(numbers_in(one)), list(numbers_in(two))
    return (
        type(one) is type(two) and np.allclose(a, b, equal_nan=True) if len(a) == len(b) else False
    )


def never_right(value):
    """Values of which no number, word or array comes out right."""
    array = isinstance(value, np.ndarray)
    if array and value.dtype.kind in "cU":
        return True
    if (array and value.dtype.kind == "f") or isinstance(value, list):
        return any(
            isinstance(v, float) and math.isnan(v) for v in np.ravel(np.asarray(value, object))
        )
    return (
        isinstance(value, str | bytes | complex)
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, float) and value == 2.5)
    )


def fault(function, base, name, value):
    """What is wrong with how a function takes a value, "" where it is right."""
    expected = base["__result__"]
    arguments = {k: v for k, v in base.items() if k != "__result__"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(**{**arguments, name: value})
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
        sound = isinstance(error, ValueError | TypeError | surefoot.errors.SurefootError)
        if not sound:
            return f"{type(error).__name__}: {error}"
        return (
            "" if names(name, str(error)) else f"does not name it: {type(error).__name__}: {error}"
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    words = isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind == "U")
    if words and (function.__name__, name) in WORDS:
        return ""
    if function.__name__ in MEASURED and np.ravel(np.asarray(value)).dtype.kind == "f":
        return ""
    if never_right(value):
        return f"gave {result!r}"
    if isinstance(value, bool) or (isinstance(value, float) and value == 3.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = function(**{**arguments, name: int(value)})
        return "" if same(result, plain) else f"gave {result!r}, not what {int(value)} gives"
    if any(np.isnan(v) for v in numbers_in(result)) and not any(
        np.isnan(v) for v in numbers_in(expected)
    ):
        return f"gave NaN: {result!r}"
    return ""


def names(name, message):
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", message) is not None
