"""The fitted network without torch: as a NumPy function, as C, as scikit-learn's own MLP."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from torch import nn

from surefoot.architecture._export.c_source import c_source
from surefoot.architecture._fit.network import Network, blocks
from surefoot.architecture.compaction import network_of

SKLEARN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


class NumpyNetwork:
    """A plain network as a function of NumPy arrays; it computes without torch, and pickles.

    Parameters
    ----------
    network
        Its numbers.
    n_features : int
        Columns of X.
    """

    def __init__(self, network: Network, n_features: int) -> None:
        self.inputs, self.n_features = network.inputs, n_features
        self.weights, self.biases = network.weights, network.biases
        self.activations = network.activations

    def __call__(self, X: Shaped[np.ndarray, "n features"]) -> Float64[np.ndarray, "n outputs"]:
        """The module's outputs in float64: logits of a classifier, values of a regressor."""
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ValueError(f"X must have shape (n, {self.n_features}), got {x.shape}")
        h = x[:, self.inputs]
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ w.T + b
            if i < len(self.activations):
                for name, start, stop in blocks(self.activations[i]):
                    h[:, start:stop] = _numpy(name, h[:, start:stop])
        return h


def _numpy(name: str, z: np.ndarray) -> np.ndarray:
    if name == "tanh":
        return np.asarray(np.tanh(z))
    if name == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))
    if name == "identity":
        return z
    slope = {"relu": 0.0, "leaky_relu": 0.01, "leaky_relu_0.1": 0.1}[name]
    return np.asarray(np.where(z > 0, z, slope * z))


def export_numpy(module: nn.Module, n_features: int) -> NumpyNetwork:
    """A plain network as a function of NumPy arrays.

    Parameters
    ----------
    module
        nn.Sequential of [Select,] Linear, activation, ..., Linear.
    n_features
        Columns of X.
    """
    return NumpyNetwork(network_of(module), n_features)


def export_c(module: nn.Module) -> str:
    """A plain network as C: `static void surefoot_predict(const double *x, double *out)`, zeros skipped.

    Parameters
    ----------
    module
        nn.Sequential of [Select,] Linear, activation, ..., Linear.
    """
    return c_source(network_of(module))


def export_sklearn(module: nn.Module, n_features: int, classes: np.ndarray | None) -> Any:
    """A plain network as scikit-learn's MLPClassifier or MLPRegressor.

    Parameters
    ----------
    module
        nn.Sequential of [Select,] Linear, activation, ..., Linear.
    n_features
        Columns of X.
    classes
        Of a classifier; None of a regressor.

    Raises
    ------
    ValueError
        scikit-learn's networks have one activation, none of them leaky, and no single class.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import LabelBinarizer

    network = network_of(module)
    names = sorted({n for layer in network.activations for n in layer})
    if len(names) > 1 or not set(names) <= set(SKLEARN):
        raise ValueError(
            f"scikit-learn's networks have one activation of {', '.join(SKLEARN)}; this one has "
            f"{', '.join(names)}; export as numpy, torch or c"
        )
    if classes is not None and len(classes) < 2:
        raise ValueError("scikit-learn's MLPClassifier has two classes or more; this one has one")
    kind = MLPRegressor if classes is None else MLPClassifier
    # By keyword: the first positional parameter of MLPRegressor is its loss.
    found = kind(
        hidden_layer_sizes=network.widths, activation=SKLEARN[names[0]] if names else "identity"
    )
    first = np.zeros((n_features, len(network.biases[0])))
    first[network.inputs] = network.weights[0].T
    found.coefs_ = [first, *(w.T.copy() for w in network.weights[1:])]
    found.intercepts_ = [b.copy() for b in network.biases]
    found.n_features_in_ = n_features
    found.n_layers_, found.n_outputs_ = network.depth + 2, len(network.biases[-1])
    found.n_iter_ = found.t_ = 0
    found.loss_ = found.best_loss_ = float("nan")
    found.loss_curve_ = []
    if classes is None:
        found.out_activation_ = "identity"
    else:
        found.out_activation_ = "logistic" if found.n_outputs_ == 1 else "softmax"
        found.classes_ = classes
        found._label_binarizer = LabelBinarizer().fit(classes)
    return found
