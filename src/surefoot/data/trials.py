"""Recordings of brain activity and of motions, cut into trials: sets in the `.ts` text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from surefoot._numerics.arguments import checked
from surefoot.errors import FileFormatError, UnknownNameError

# samples per second, from the description that comes with each set
RATES = {
    "BasicMotions": 10.0,
    "Blink": 255.0,
    "EyesOpenShut": 128.0,
    "FingerMovements": 100.0,
    "HandMovementDirection": 400.0,
    "KDD_Example": 112.5,
    "SelfRegulationSCP1": 256.0,
    "SelfRegulationSCP2": 256.0,
}


@checked(nan=True)
@dataclass(frozen=True)
class Trials:
    """One set of trials, in the split of its source."""

    name: str
    """Of the set, as in its file."""
    x: Float64[np.ndarray, "n channels time"]
    """In the units of the recording, which differ: microvolts for the SelfRegulation sets."""
    y: Int64[np.ndarray, "n"]
    """Class numbers, which index `classes`."""
    x_test: Float64[np.ndarray, "t channels time"]
    """As `x`; empty where the source has no test set."""
    y_test: Int64[np.ndarray, "t"]
    """Their class numbers."""
    classes: tuple[str, ...]
    """The label of each class number, in the order in which the file declares them."""
    rate: float | None
    """Samples per second; None where it is not known."""


@checked
class TrialSets(Mapping[str, Trials]):
    """Sets of trials by name; each is read when it is asked for.

    ```python
    sets = data.load("eeg")
    list(sets)                                # the names
    trials = sets["SelfRegulationSCP1"]       # trials.x has the shape (268, 6, 896)
    ```
    """

    def __init__(self, files: Mapping[str, tuple[Path, Path | None]]) -> None:
        self._files = dict(sorted(files.items()))

    def __getitem__(self, name: str) -> Trials:
        if name not in self._files:
            raise UnknownNameError("set of trials", name, self._files)
        train, test = self._files[name]
        x, y, classes = read_ts(train)
        x_test, y_test = np.empty((0, *x.shape[1:])), np.empty(0, dtype=np.int64)
        if test:
            x_test, y_test, test_classes = read_ts(test)
            if test_classes != classes or x_test.shape[1:] != x.shape[1:]:
                raise FileFormatError(f"{test} has other classes or shapes than {train}")
        return Trials(name, x, y, x_test, y_test, classes, RATES.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        # Mapping asks by __getitem__, which would read the whole set
        return name in self._files

    def __repr__(self) -> str:
        return f"TrialSets({', '.join(self)})"


def read(path: Path) -> TrialSets:
    """A `.ts` file, or a folder in which each set has a `NAME_TRAIN.ts` and perhaps a `NAME_TEST.ts`.

    Files lie in the folder itself or one level below.
    """
    if path.is_file():
        return TrialSets({path.stem: (path, None)})
    files = {}
    for train in [*path.glob("*_TRAIN.ts"), *path.glob("*/*_TRAIN.ts")]:
        name = train.name.removesuffix("_TRAIN.ts")
        test = train.with_name(f"{name}_TEST.ts")
        files[name] = (train, test if test.is_file() else None)
    if not files:
        raise FileFormatError(f"{path} holds no file NAME_TRAIN.ts")
    return TrialSets(files)


def read_one(path: Path) -> Trials:
    """The only set of a `.ts` file or of a folder as `read` takes it.

    Raises FileFormatError where there are several.
    """
    sets = read(path)
    if len(sets) != 1:
        raise FileFormatError(f"{path} must hold one set of trials, got {', '.join(sets)}")
    (trials,) = sets.values()
    return trials


def read_ts(
    path: Path,
) -> tuple[Float64[np.ndarray, "n channels time"], Int64[np.ndarray, "n"], tuple[str, ...]]:
    """Trials of equal length, class numbers and class labels of one `.ts` file.

    After `@data` each line is one trial: channels between colons, samples between commas, the
    label last. Shapes are taken from the trials: what the headers say of them is not reliable
    (EyesOpenShut declares 127 samples and has 128). A missing sample (`?`) becomes NaN.
    """
    classes: tuple[str, ...] = ()
    trials: list[list[np.ndarray]] = []
    labels: list[str] = []
    in_data = False
    try:
        with path.open(encoding="utf-8") as lines:
            for line in map(str.strip, lines):
                if not line or line.startswith("#"):
                    continue
                if in_data:
                    *channels, label = line.replace("?", "nan").split(":")
                    trials.append([np.array(c.split(","), dtype=np.float64) for c in channels])
                    labels.append(label)
                elif line.lower().startswith("@classlabel"):
                    classes = tuple(line.split()[2:])
                elif line.lower() == "@data":
                    in_data = True
        if not trials or not classes:
            raise ValueError("it declares no classes or holds no trials")
        if len({c.shape for trial in trials for c in trial}) != 1:
            raise ValueError("its trials are not of equal length")
        x = np.array(trials)
        y = np.array([classes.index(label) for label in labels], dtype=np.int64)
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path} is not a readable set of trials: {error}") from error
    return x, y, classes
