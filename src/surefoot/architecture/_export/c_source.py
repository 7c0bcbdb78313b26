"""A network as C: tables of its entries that are not zero, and three loops."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from surefoot.architecture._fit.network import Network, blocks

C = {
    "tanh": "tanh(v)",
    "sigmoid": "1.0 / (1.0 + exp(-v))",
    "relu": "v > 0.0 ? v : 0.0",
    "leaky_relu": "v > 0.0 ? v : 0.01 * v",
    "leaky_relu_0.1": "v > 0.0 ? v : 0.1 * v",
    "identity": "v",
}


def c_source(network: Network) -> str:
    """The text of `static void surefoot_predict(const double *x, double *out)`; only <math.h> is needed.

    Parameters
    ----------
    network
        On raw rows: x has all their columns, out the outputs.
    """
    lines = [
        f"/* {len(network.inputs)} inputs read, hidden layers {list(network.widths)}, "
        f"{len(network.biases[-1])} outputs. */",
        "#include <math.h>",
        "",
        "static void surefoot_predict(const double *x, double *out)",
        "{",
    ]
    here = "x"
    for i, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
        columns = network.inputs if i == 0 else np.arange(w.shape[1])
        there = "out" if i == network.depth else f"h{i + 1}"
        lines += _layer(i + 1, w, b, columns, here, there, last=i == network.depth)
        if i < network.depth:
            for name, start, stop in blocks(network.activations[i]):
                if name != "identity":
                    lines += [
                        f"    for (int j = {start}; j < {stop}; j++) {{ "
                        f"const double v = {there}[j]; {there}[j] = {C[name]}; }}"
                    ]
        here = there
    unused = ["    (void)x;"] if not network.weights[0].any() else []
    return "\n".join([*lines, *unused, "}", ""])


def _layer(
    at: int, w: np.ndarray, b: np.ndarray, columns: np.ndarray, here: str, there: str, last: bool
) -> list[str]:
    row, column = np.nonzero(w)
    ends = np.searchsorted(row, np.arange(len(b)), side="right")
    lines = [_table("double", f"b{at}", (f"{v:.17g}" for v in b))]
    if not last:
        lines.append(f"    double {there}[{len(b)}];")
    if not len(row):
        return [*lines, f"    for (int j = 0; j < {len(b)}; j++) {there}[j] = b{at}[j];"]
    lines += [
        _table("double", f"w{at}", (f"{v:.17g}" for v in w[row, column])),
        _table("int", f"c{at}", map(str, columns[column])),
        _table("int", f"e{at}", map(str, ends)),
        f"    for (int j = 0, k = 0; j < {len(b)}; j++) {{",
        f"        double v = b{at}[j];",
        f"        for (; k < e{at}[j]; k++) v += w{at}[k] * {here}[c{at}[k]];",
        f"        {there}[j] = v;",
        "    }",
    ]
    return lines


def _table(kind: str, name: str, entries: Iterable[str]) -> str:
    body, line = [], "       "
    for entry in entries:
        if len(line) + len(entry) > 98:
            body.append(line)
            line = "       "
        line += f" {entry},"
    return "\n".join([f"    static const {kind} {name}[] = {{", *body, line.rstrip(","), "    };"])
