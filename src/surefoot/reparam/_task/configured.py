"""The task of `apps/repopt`, and the images of the study, without Flower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from surefoot.federated.partition import lda_partition
from surefoot.reparam._task.networks import build_of, statistics_of
from surefoot.reparam.scales import Scales
from surefoot.reparam.task import RepOptTask


def repopt_task(config: Mapping[str, Any]) -> RepOptTask:
    """The task of `apps/repopt`, from its run-config.

    Keys: data ("mnist5k", "mnist", "fashion", "digits"), data-path, examples (how many to train on, 0: all),
    arm, alpha, bn ("average", "local", "group_norm"), scales (a file, "" for the initial ones), lr, momentum,
    local-epochs, batch-size, weight-decay, proximal-mu; and of the network those of `build_of`.
    """
    seed, count = int(config.get("seed", 0)), int(config.get("num-partitions", 2))
    x, y, test = load_images(
        str(config.get("data", "mnist5k")), str(config.get("data-path", "")) or None, seed,
        int(config.get("examples", 0)),
    )  # fmt: skip
    path = str(config.get("scales", ""))
    return RepOptTask(
        build_of(config, x.shape[-1]), x, y,
        lda_partition(y.numpy(), count, float(config.get("alpha", 0.1)), seed), test,
        Scales.load(path) if path else None, config.get("arm", "fedrepopt"),
        epochs=int(config.get("local-epochs", 1)), batch_size=int(config.get("batch-size", 32)),
        lr=float(config.get("lr", 0.1)), momentum=float(config.get("momentum", 0.0)),
        weight_decay=float(config.get("weight-decay", 0.0)),
        proximal_mu=float(config.get("proximal-mu", 0.0)),
        bn="local" if statistics_of(config) == "local" else "average",
    )  # fmt: skip


def load_images(
    name: str, path: str | None = None, seed: int = 0, examples: int = 0
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """(training images, labels, (test images, labels)); sets without a test part keep a fifth apart."""
    from surefoot import data

    if name == "digits":
        table = data.load("digits")
        x = np.asarray(table.x, dtype=np.float32).reshape(-1, 8, 8) / 16
        y = np.asarray(table.y, dtype=np.int64)
        x_test, y_test = x[:0], y[:0]
    else:
        found = data.load(name, path=path) if path else data.load(name)
        x, y, x_test, y_test = found.x_train, found.y_train, found.x_test, found.y_test
    order = np.random.default_rng(seed).permutation(len(x))
    if not len(x_test):
        cut = len(x) // 5
        x_test, y_test = x[order[:cut]], y[order[:cut]]
        order = order[cut:]
    order = order[:examples] if examples else order

    def tensors(a: np.ndarray, b: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(a)[:, None], torch.tensor(b)

    return *tensors(x[order], y[order]), tensors(x_test, y_test)
