"""torch-pruning takes whole neurons by the norm of their group; what is left is fitted again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch

from surefoot.architecture._fit.candidates import Candidate
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._peers.dense import FIT, TRAINING, Peer
from surefoot.architecture.compaction import module_of, network_of
from surefoot.errors import need

RATIOS = (0.25, 0.5, 0.75)


def structured_pruning(peer: Peer) -> None:
    """A grid for half of the budget, then groups of least L2 norm go from the best networks.

    Parameters
    ----------
    peer
        Filled.

    Raises
    ------
    MissingExtraError
        torch-pruning is not installed.
    """
    with need("torch_pruning", extra="bench"):
        import torch_pruning as tp

    peer.grid(TRAINING)
    peer.budget.share = 1.0
    hidden = [c for c in peer.best() if c.network.depth]
    for c, ratio in itertools.product(hidden, RATIOS):
        if peer.budget.over():
            return
        n = len(c.network.inputs)
        body = module_of(replace(c.network, inputs=np.arange(n)), n, torch.float32)
        linears = [m for m in body if isinstance(m, torch.nn.Linear)]
        pruner = tp.pruner.BasePruner(
            body, torch.zeros(1, n, dtype=torch.float32),
            importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
            ignored_layers=[linears[-1]],
        )  # fmt: skip
        pruner.step()
        network = replace(network_of(body), inputs=c.network.inputs)
        fitted = fit_network(
            network, peer.train, peer.validation, c.alpha, FIT, peer.budget, keep_zeros=False
        )
        peer.found.append(Candidate(fitted.network, fitted.val_loss, "peer", c.alpha))
