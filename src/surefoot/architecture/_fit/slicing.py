"""Slicing to a fixed point: what computes nothing is dropped, a constant goes into the next bias."""

from __future__ import annotations

import numpy as np

from surefoot.architecture._fit.network import Array, Network, activate


def sliced(network: Network) -> Network:
    """The same function without the entries that do nothing.

    A neuron whose outgoing weights are all zero is dropped; one without an incoming weight is the constant
    act(b), which goes times its outgoing weights into the next bias; an input that nobody reads is no longer
    selected. Each may set off another, so it is done until nothing changes. A layer that would be empty makes
    everything before it a constant: what remains is one layer without inputs.

    Parameters
    ----------
    network
        With zeros where weights were pruned.
    """
    while True:
        smaller = _once(network)
        if smaller is None:
            return network
        network = smaller


def _once(network: Network) -> Network | None:
    """One dead or constant layer's worth of slicing, None where there is nothing to slice."""
    weights, biases = list(network.weights), list(network.biases)
    names = [list(n) for n in network.activations]
    for i in range(network.depth):
        outgoing = (weights[i + 1] != 0).any(axis=0)
        incoming = (weights[i] != 0).any(axis=1)
        keep = outgoing & incoming
        if keep.all():
            continue
        constant = outgoing & ~incoming
        if constant.any():
            value = _constants(biases[i], names[i])
            biases[i + 1] = biases[i + 1] + weights[i + 1][:, constant] @ value[constant]
        if not keep.any():
            # Nothing before this layer reaches the output: the later layers are functions of biases alone.
            return Network(
                np.zeros(0, np.int64),
                (np.zeros((len(biases[i + 1]), 0)), *weights[i + 2 :]),
                tuple(biases[i + 1 :]),
                tuple(tuple(n) for n in names[i + 1 :]),
            )
        weights[i], biases[i] = weights[i][keep], biases[i][keep]
        weights[i + 1] = weights[i + 1][:, keep]
        names[i] = [n for n, k in zip(names[i], keep, strict=True) if k]
        return Network(
            network.inputs, tuple(weights), tuple(biases), tuple(tuple(n) for n in names)
        )
    read = (weights[0] != 0).any(axis=0)
    if read.all():
        return None
    return Network(
        network.inputs[read],
        (weights[0][:, read], *weights[1:]),
        tuple(biases),
        network.activations,
    )


def _constants(bias: Array, names: list[str]) -> Array:
    value = bias[:, None].copy()
    activate(value, tuple(names))
    return value[:, 0]
