"""Find the smallest network that predicts a column of a table."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from surefoot.errors import SurefootError

NAME = "architecture"
ALSO = ("compact",)
DISTINCT = 20
"""Whole numbers of at most so many values are classes."""


@dataclass(frozen=True)
class Compact:
    """Fit the smallest network that predicts a column of a CSV file; write its front, C code and certificate.

    Into the folder --out: front.html, the network as model.c and model.pt, and certificate.json.
    """

    data: tyro.conf.Positional[Path]
    """A CSV file with a header; all columns but the target are numbers."""
    target: str
    """The column to predict."""
    max_params: int | None = None
    """Most stored numbers of the network."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto: words, and whole numbers of few values, are classes."""
    time_budget: float = 20.0
    """Seconds for the fit."""
    certify_fraction: float = 0.2
    """Share of the rows kept for limits on the error."""
    confidence: float = 0.95
    """Of these limits."""
    seed: int = 0
    """Of splits and starts."""
    steps: int | None = None
    """Optimiser iterations in place of --time-budget: the result then depends on the seed only."""
    out: Path = Path("compact")
    """The folder to write to; it must not exist, or be empty."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise SurefootError(f"{self.out} exists already; give another folder as --out")
        x, y, names = read_table(self.data, self.target)
        try:
            model, kind = self._fit(x, y)
        except ValueError as error:
            if isinstance(error, SurefootError):
                raise
            raise SurefootError(str(error)) from error
        files = write_results(model, names, self.out)
        if self.json:
            print(jsonlib.dumps(said_as_json(model, kind, files), indent=1))
        else:
            print_results(model, kind, names, files)
        return int(any(c.verdict == "BROKEN" for c in model.certificates()))

    def _fit(self, x: Any, y: Any) -> tuple[Any, str]:
        from surefoot.architecture.estimators import CompactMLPClassifier, CompactMLPRegressor

        kind = self.task if self.task != "auto" else guessed_task(y)
        if kind == "regression" and not _numeric(y):
            raise SurefootError(
                f"{self.target} has words, as {y.iloc[0]!r}: a regression needs numbers"
            )
        estimator = CompactMLPClassifier if kind == "classification" else CompactMLPRegressor
        model = estimator(
            max_params=self.max_params, time_budget=self.time_budget, steps=self.steps,
            certify_fraction=self.certify_fraction, confidence=self.confidence,
            random_state=self.seed,
        )  # fmt: skip
        return model.fit(x.to_numpy(dtype=float), y.to_numpy()), kind


def read_table(path: Path, target: str) -> tuple[Any, Any, list[str]]:
    """Features, target and the names of the features.

    Parameters
    ----------
    path
        A CSV file.
    target
        One of its columns.

    Raises
    ------
    SurefootError
        The file is not there or unreadable, the column is not in it, a feature has words, or a value is
        missing.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise SurefootError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise SurefootError(f"{path} is not readable as CSV: {error}") from error
    if target not in table.columns:
        raise SurefootError(f"{path} has no column {target!r}; it has {', '.join(table.columns)}")
    x, y = table.drop(columns=target), table[target]
    words = [str(c) for c in x.columns if not _numeric(x[c])]
    if words:
        raise SurefootError(
            f"columns {', '.join(words)} have words; encode them as numbers or leave them out"
        )
    if not x.shape[1]:
        raise SurefootError(f"{path} has no column beside {target!r}")
    missing = table.columns[table.isna().any()].tolist()
    if missing:
        raise SurefootError(
            f"columns {', '.join(missing)} lack values; fill them in or leave the rows out"
        )
    return x, y, [str(c) for c in x.columns]


def guessed_task(y: Any) -> str:
    """ "classification" for words, and for whole numbers of few values."""
    if not _numeric(y):
        return "classification"
    few = y.nunique() <= DISTINCT and bool((y == y.round()).all())
    return "classification" if few else "regression"


def _numeric(column: Any) -> bool:
    return column.dtype.kind in "iuf"


def write_results(model: Any, names: list[str], folder: Path) -> dict[str, str]:
    """Write the front's picture, the network and the certificate.

    Parameters
    ----------
    model
        A fitted estimator.
    names
        Of its features.
    folder
        To write to.
    """
    import torch

    from surefoot.architecture.picture import front_figure
    from surefoot.architecture.plain_modules import module_spec
    from surefoot.certificate import write_certificates
    from surefoot.report.figures import write_figure

    folder.mkdir(parents=True, exist_ok=True)
    files = {n: folder / n for n in ("front.html", "model.c", "model.pt", "certificate.json")}
    write_figure(front_figure(model.pareto_, model.chosen_), files["front.html"])
    files["model.c"].write_text(c_file(model, names), encoding="utf-8")
    module = model.export("torch")
    torch.save({"spec": module_spec(module), "state": module.state_dict()}, files["model.pt"])
    write_certificates(model.certificates(), files["certificate.json"])
    return {name: str(path) for name, path in files.items()}


def c_file(model: Any, names: list[str]) -> str:
    """The C source below a comment that says what goes in and comes out."""
    inputs = "".join(f"\n   x[{i}] = {_plain(n)}" for i, n in enumerate(names))
    if hasattr(model, "classes_"):
        several = len(model.classes_) > 2
        classes = [_plain(str(c)) for c in model.classes_]
        outputs = (
            "".join(f"\n   out[{i}] = logit of {c}" for i, c in enumerate(classes))
            if several
            else f"\n   out[0] > 0 means {classes[-1]}, else {classes[0]}"
        )
    else:
        outputs = "\n   out[0] = the prediction"
    return f"/*{inputs}{outputs}\n*/\n{model.export('c')}"


def _plain(name: str) -> str:
    """A name that cannot end a comment."""
    return name.replace("*/", "* /").replace("\n", " ")


def said_as_json(model: Any, kind: str, files: dict[str, str]) -> dict[str, Any]:
    """What --json prints.

    Parameters
    ----------
    model
        A fitted estimator.
    kind
        The task.
    files
        What was written.
    """
    import math

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    front = [
        {
            "n_params": p.n_params, "n_nonzero": p.n_nonzero, "widths": list(p.widths),
            "source": p.source, "val_loss": plain(p.val_loss), "cert_bound": plain(p.cert_bound),
        }
        for p in model.pareto_
    ]  # fmt: skip
    return {
        "task": kind, "n_params": model.n_params_, "n_nonzero": model.n_nonzero_,
        "hidden_layer_sizes": list(model.hidden_layer_sizes_),
        "used_features": model.used_features_.tolist(), "front": front,
        "certificate": {k: plain(v) for k, v in model.certificate_.items()},
        "verdicts": {c.name: str(c.verdict) for c in model.certificates()}, "files": files,
    }  # fmt: skip


def print_results(model: Any, kind: str, names: list[str], files: dict[str, str]) -> None:
    """The front as a table, the chosen network, the verdicts and the files.

    Parameters
    ----------
    model
        A fitted estimator.
    kind
        The task.
    names
        Of its features.
    files
        What was written.
    """
    from surefoot.architecture.picture import front_rows

    rows = front_rows(model.pareto_)
    wide = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.rjust(w) for text, w in zip(row, wide, strict=True)).rstrip())
    shape = ", ".join(map(str, model.hidden_layer_sizes_)) or "no hidden layer"
    used = [names[i] for i in model.used_features_]
    print(
        f"\n{kind}: {model.n_params_} parameters, {model.n_nonzero_} not zero, {shape}; "
        f"reads {len(used)} of {len(names)} columns: {', '.join(used) or 'none'}"
    )
    for note in model.certificate_["notes"]:
        print(f"note: {note}")
    for c in model.certificates():
        print(f"{c.verdict!s:12} {c.name}")
    for name, path in files.items():
        print(f"{name}: {path}")


# A mapping, as a union of one is no union and would make no subcommand.
COMMAND = {"compact": Compact}
