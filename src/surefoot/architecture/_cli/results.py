"""Files, JSON and text of a fitted estimator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from surefoot._sealed.writing import explained, write_bytes, writing


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

    files = {n: folder / n for n in ("front.html", "model.c", "model.pt", "certificate.json")}
    with explained(files["front.html"]):
        folder.mkdir(parents=True, exist_ok=True)
        write_figure(front_figure(model.pareto_, model.chosen_), files["front.html"])
    write_bytes(files["model.c"], c_file(model, names).encode())
    module = model.export("torch")
    with writing(files["model.pt"]) as file:
        torch.save({"spec": module_spec(module), "state": module.state_dict()}, file)
    with explained(files["certificate.json"]):
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
    """A name that can neither end a comment nor begin another one."""
    return name.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")


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
    front = [
        {
            "n_params": p.n_params, "n_nonzero": p.n_nonzero, "widths": list(p.widths),
            "source": p.source, "val_loss": p.val_loss, "cert_bound": p.cert_bound,
        }
        for p in model.pareto_
    ]  # fmt: skip
    found = {
        "task": kind, "n_params": model.n_params_, "n_nonzero": model.n_nonzero_,
        "hidden_layer_sizes": list(model.hidden_layer_sizes_),
        "used_features": model.used_features_.tolist(), "front": front,
        "certificate": model.certificate_,
        "verdicts": {c.name: str(c.verdict) for c in model.certificates()}, "files": files,
    }  # fmt: skip
    plain: dict[str, Any] = plain_numbers(found)
    return plain


def plain_numbers(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {k: plain_numbers(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
