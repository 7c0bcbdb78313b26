"""Calls with one bad argument at a time of everything that is exported, and what comes of each.

usage: bad_calls.py [--seed 0] [--calls 1000] [--package NAME ...] [--all] [--show unhelpful silent]

A valid call of each callable is in `valid/` (functions of plain arguments: as `tests/contract/pure.py`
makes it); one argument is replaced by what it cannot be. Helpful: an error of ValueError, TypeError or
SurefootError that names the argument and says more. Unhelpful: any other error. Silent: a result, where the
value is impossible or the result has a NaN that the valid one has not. What is legal in truth stands in
`legal.py`.

Run as a script, without the checks of shapes that the tests bring.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import os
import random
import re
import signal
import sys
import tempfile
import warnings
from collections import Counter
from functools import cache
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from contract import pure

from faults.legal import legal
from faults.valid.fields import Fields
from surefoot.errors import SurefootError

PACKAGES = ("core", "nesterov", "barycenter", "privacy", "audit", "in_context", "reparam", "federated",
            "data", "kan", "lora", "zeroth_order", "prototypes", "architecture")  # fmt: skip
OUTCOMES = ("helpful", "unhelpful", "silent", "legal")
LONGEST = 10
"""Seconds after which a call is given up as unhelpful."""
NAN, INF = float("nan"), float("inf")


class Nothing:
    """An object of no use."""

    def __repr__(self):
        return "Nothing()"


NOTHING = Nothing()
NUMBER = {"words": "a word", "nan": NAN, "bool": True, "complex": 1 + 2j, "list": [1.0, 2.0], "dict": {},
          "inf": INF, "-inf": -INF, "negative": -1.0, "zero": 0.0, "None": None, "object": NOTHING,
          "array": np.array([1.0, 2.0]), "masked": np.ma.masked, "0-d nan": torch.tensor(NAN)}  # fmt: skip
WHOLE = {**NUMBER, "negative": -1, "zero": 0, "half": 2.5}
SHARE = {"above 1": 1.5}
KINDS = {
    "number": NUMBER,
    "whole": WHOLE,
    "word": {"unknown": "nonsense", "number": 3, "None": None, "bool": True, "list": ["a"], "bytes": b"a",
             "object": NOTHING},
    "text": {"number": 3, "None": None, "list": ["a"], "bytes": b"a", "object": NOTHING},
    "flag": {"words": "yes", "number": 2, "None": None, "nan": NAN, "list": [True], "object": NOTHING},
    "callable": {"number": 3, "words": "f", "None": None, "list": [len], "object": NOTHING},
    "thing": {"number": 3, "words": "x", "None": None, "list": [1], "object": NOTHING, "nan": NAN},
    "path": {"number": 3, "None": None, "bytes": b"x", "list": ["a"], "object": NOTHING},
    "mapping": {"number": 3, "words": "x", "None": None, "list": [1], "object": NOTHING,
                "of objects": {"a": NOTHING}},
    "sequence": {"words": "abc", "number": 3, "None": None, "empty": [], "of None": [None],
                 "object": NOTHING, "of words": ["a", "b"]},
}  # fmt: skip
# Of what a result may hold: nothing is computed from it in its constructor.
MEASURED = re.compile(r"nan|inf|-inf|negative|zero|0-d nan|above 1|array|half|empty|more dimensions|"
                      r"nan inside|inf inside|unknown")  # fmt: skip
# Of what an argument so named is a share, a probability or a momentum.
SHARES = re.compile(r"^(momentum|fraction|q|sample_rate|delta|confidence|rho|ratio|share|dampening|"
                    r".*_fraction|label_smoothing|train_error|least_R2)$")  # fmt: skip


def arrays(value):
    """What an array, a tensor or a list of numbers can be made to be."""
    torch_like = isinstance(value, torch.Tensor)
    a = value.detach() if torch_like else np.asarray(value)
    real = a.is_floating_point() if torch_like else a.dtype.kind == "f"
    found = {"words": "abc", "number": 3.0, "None": None, "object": NOTHING, "of words": ["a", "b"]}
    if not a.shape:
        return found
    found["empty"] = a[:0]
    found["more dimensions"] = a[None, None]
    found["complex"] = a * 1j if real else a + 1j
    if not torch_like:
        found["masked"] = np.ma.array(a, mask=np.ones(a.shape, bool))
        found["dtype of words"] = np.full(a.shape, "a")
    if real:
        for label, number in (("nan inside", NAN), ("inf inside", INF)):
            bad = a.clone() if torch_like else a.copy()
            bad.reshape(-1)[0] = number
            found[label] = bad
        found["bool"] = a > 0
    return found


def kind_of(parameter, value):
    """Which bad values an argument gets, by its annotation and by what is right."""
    text = str(parameter.annotation)
    if isinstance(value, bool | np.bool_):
        return "flag"
    if isinstance(value, torch.Tensor | np.ndarray):
        return "array"
    if isinstance(value, int) or (value is None and re.search(r"\bint\b", text)):
        return "number" if "float" in text else "whole"
    if isinstance(value, float) or (value is None and "float" in text):
        return "number"
    if isinstance(value, str):
        path = "Path" in text
        return "path" if path else "word" if is_choice(text, parameter) else "text"
    if isinstance(value, os.PathLike) or (value is None and "Path" in text):
        return "path"
    if isinstance(value, dict):
        return "mapping"
    if isinstance(value, list | tuple):
        numbers = value and all(isinstance(v, int | float) for v in value)
        return "array" if numbers else "sequence"
    if value is None and re.search(r"Tensor|ndarray|Sequence|tuple|Any", text):
        return None if "Any" in text else "sequence"
    if inspect.isfunction(value) or inspect.isbuiltin(value):
        return "callable"
    return "thing"


def is_choice(text, parameter):
    words = ("Literal", "Method", "Sampling", "Form", "Mode", "Kind", "Sketch", "Policy", "Rule", "By",
             "Norm", "Activation", "Size", "Anchor", "Releases", "Sense", "HoldsIn")  # fmt: skip
    free = {
        "name",
        "title",
        "note",
        "source",
        "statement",
        "how",
        "layer",
        "encoder_id",
        "of",
        "path",
    }
    return any(w in text for w in words) or parameter.name not in free


def bad_values(parameter, value):
    kind = kind_of(parameter, value)
    if kind is None:
        return {}
    found = arrays(value) if kind == "array" else dict(KINDS[kind])
    if kind == "number" and SHARES.match(parameter.name):
        found |= SHARE
    if "None" in found and (
        value is None or parameter.default is None or "None" in str(parameter.annotation)
    ):
        del found["None"]
    return found


@cache
def valid_calls(package):
    """{name: (callable, maker of its arguments)} of what a package exports."""
    path = {"core": "surefoot", "audit": "surefoot.privacy.audit"}.get(
        package, f"surefoot.{package}"
    )
    module = importlib.import_module(path)
    try:
        own = importlib.import_module(f"faults.valid.{package}").calls()
    except ModuleNotFoundError as error:
        if "faults.valid" not in str(error):
            raise
        own = {}
    found, without = {}, []
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if name in own:
            found[name] = thing, own[name]
        elif inspect.isfunction(thing) and not pure.needs_an_object(name, thing):
            found[name] = thing, lambda thing=thing: pure.example(thing)
        elif inspect.isfunction(thing) or (
            isinstance(thing, type) and not issubclass(thing, BaseException)
        ):
            without.append(name)
    for name in sorted(set(own) - set(found)):
        found[name] = own[name]
    return found, without


def cases(package):
    """All (callable's name, argument, label of the bad value) of a package."""
    for name, (thing, make) in valid_calls(package)[0].items():
        given = make()
        for parameter in parameters(thing):
            if isinstance(given, Fields) and "Any" == str(parameter.annotation):
                continue
            if parameter.name in given or parameter.default is not parameter.empty:
                value = given.get(parameter.name, parameter.default)
                for label in bad_values(parameter, value):
                    yield name, parameter.name, label


def parameters(thing):
    """Those of a function, or of a class without self."""
    every = inspect.signature(thing).parameters.values()
    return [p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


class TooLongError(Exception):
    """A call that did not return."""


def _late(number, frame):
    raise TooLongError(f"no answer in {LONGEST} seconds")


@contextlib.contextmanager
def quiet():
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(LONGEST)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):  # fmt: skip
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)


def tried(package, name, argument, label):
    """(outcome, what was said) of one bad call."""
    thing, make = valid_calls(package)[0][name]
    given = make()
    parameter = next(p for p in parameters(thing) if p.name == argument)
    value = bad_values(parameter, given.get(argument, parameter.default))[label]
    why = legal(package, name, argument, label)
    if isinstance(given, Fields) and MEASURED.fullmatch(label):
        why = "a result holds what was measured"
    try:
        with quiet():
            result = thing(**{**given, argument: value})
    except (ValueError, TypeError, SurefootError) as error:
        said = str(error)
        if why.startswith("theirs"):
            return "legal", why
        good = names(argument, said) and len(said) > len(argument) + 12
        # Not even what is legal may fail without a word.
        return "helpful" if good else "unhelpful", f"{type(error).__name__}: {said}"
    except Exception as error:
        if why.startswith("theirs"):
            return "legal", why
        return "unhelpful", f"{type(error).__name__}: {error}"
    if (
        nan_in(result)
        and "missing" not in why
        and not isinstance(given, Fields)
        and not plain_has_nan(package, name)
    ):
        return "silent", f"NaN in {type(result).__name__}"
    if why:
        return "legal", why
    return "silent", f"accepted: {type(result).__name__}"


def nan_in(result):
    """Whether there is a NaN among the numbers of a result."""
    try:
        return any(v != v for v in pure.numbers_in(result))
    except (TypeError, ValueError):
        return False  # of values that are no numbers


def names(argument, message):
    words = (argument, argument.replace("_", " "), argument.removesuffix("s"))
    return any(pure.names(word, message) for word in words)


@cache
def plain_has_nan(package, name):
    """Whether the valid call has a NaN in its result already."""
    thing, make = valid_calls(package)[0][name]
    with quiet():
        return nan_in(thing(**make()))


def valid_fails(package):
    """Valid calls that fail: a fault of `valid/`."""
    for name, (thing, make) in valid_calls(package)[0].items():
        try:
            with quiet():
                thing(**make())
        except BaseException as error:
            yield f"{package}.{name}: {type(error).__name__}: {error}"


def drawn(seed, count, packages):
    """`count` cases, package by package in turn."""
    draw, pools = random.Random(seed), {p: list(cases(p)) for p in packages}
    for pool in pools.values():
        draw.shuffle(pool)
    turn = [p for p in packages if pools[p]]
    for i in range(count):
        package = turn[i % len(turn)]
        if not pools[package]:
            pools[package] = list(cases(package))
            draw.shuffle(pools[package])
        yield package, *pools[package].pop()


def table(counts):
    """Lines of package, tried, helpful, unhelpful, silent, legal."""
    lines = [f"{'package':14}{'tried':>8}" + "".join(f"{o:>11}" for o in OUTCOMES)]
    total = Counter()
    for package, count in counts.items():
        total += count
        lines.append(
            f"{package:14}{count.total():>8}" + "".join(f"{count[o]:>11}" for o in OUTCOMES)
        )
    lines.append(f"{'all':14}{total.total():>8}" + "".join(f"{total[o]:>11}" for o in OUTCOMES))
    return lines


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--package", nargs="*", default=PACKAGES)
    parser.add_argument("--all", action="store_true", help="every case once")
    parser.add_argument("--valid", action="store_true", help="only that the valid calls are")
    parser.add_argument("--show", nargs="*", default=["unhelpful", "silent"], choices=OUTCOMES)
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    os.chdir(tempfile.mkdtemp())
    if asked.valid:
        for package in asked.package:
            print(*valid_fails(package), sep="\n", end="")
            print(f"{package}: without a valid call: {', '.join(valid_calls(package)[1])}")
        return 0
    every = ((p, *c) for p in asked.package for c in cases(p))
    counts = {p: Counter() for p in asked.package}
    for package, name, argument, label in (
        every if asked.all else drawn(asked.seed, asked.calls, asked.package)
    ):
        outcome, said = tried(package, name, argument, label)
        counts[package][outcome] += 1
        if outcome in asked.show:
            print(
                f"{outcome} {package}.{name}({argument}={label}) | {' '.join(said.split())[:200]}",
                flush=True,
            )
    print(*table(counts), sep="\n")
    bad = (
        sum((c["unhelpful"] for c in counts.values()), 0),
        sum(c["silent"] for c in counts.values()),
    )
    return int(bad[1] > 0 or bad[0] > 0.03 * sum(c.total() for c in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
