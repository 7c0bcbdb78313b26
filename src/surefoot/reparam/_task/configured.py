"""The task of `apps/repopt`, and the images of the study, without Flower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from surefoot.federated.partition import lda_partition
from surefoot.federated.run_config import (
    FLOOR,
    GOING_ON,
    RULE,
    number,
    refuse_unknown,
    refuse_unused,
    whole,
)
from surefoot.reparam._task.networks import NETWORK, build_of, statistics_of
from surefoot.reparam.scales import Scales
from surefoot.reparam.task import RepOptTask

KEYS = frozenset(
    {"data", "data-path", "examples", "arm", "alpha", "scales", "lr", "momentum", "local-epochs",
     "batch-size", "weight-decay", "proximal-mu"}
)  # fmt: skip


def repopt_task(config: Mapping[str, Any]) -> RepOptTask:
    """The task of `apps/repopt`, from its run-config.

    Keys: data ("mnist5k", "mnist", "fashion", "digits"), data-path, examples (how many to train on, 0: all),
    arm, alpha, bn ("average", "local", "group_norm"), scales (a file, "" for the initial ones), lr, momentum,
    local-epochs, batch-size, weight-decay, proximal-mu; and of the network those of `build_of`.
    """
    refuse_unknown(config, FLOOR | GOING_ON | RULE | KEYS | NETWORK)
    seed, count = whole(config, "seed", 0), whole(config, "num-partitions", 2, 1)
    arm, path = config.get("arm", "fedrepopt"), str(config.get("scales", ""))
    if arm in ("rep", "inf"):
        refuse_unused(config, {"scales": ""}, f"by arm = {arm!r}, which has no scales")
    if config.get("server-rule") == "fedprox" and not config.get("proximal-mu"):
        raise ValueError(
            "server-rule = 'fedprox' needs proximal-mu above 0: the clients' term is all that it is"
        )
    x, y, test = load_images(
        str(config.get("data", "mnist5k")), str(config.get("data-path", "")) or None, seed,
        whole(config, "examples", 0, 0),
    )  # fmt: skip
    return RepOptTask(
        build_of(config, x.shape[-1]), x, y,
        lda_partition(y.numpy(), count, number(config, "alpha", 0.1, above=0), seed), test,
        Scales.load(path) if path else None, arm,
        epochs=whole(config, "local-epochs", 1, 1), batch_size=whole(config, "batch-size", 32, 1),
        lr=number(config, "lr", 0.1, above=0), momentum=number(config, "momentum", 0.0, least=0),
        weight_decay=number(config, "weight-decay", 0.0, least=0),
        proximal_mu=number(config, "proximal-mu", 0.0, least=0),
        bn="local" if statistics_of(config) == "local" else "average",
    )  # fmt: skip


def load_images(
    name: str, path: str | None = None, seed: int = 0, examples: int = 0
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """(training images, labels, (test images, labels)); sets without a test part keep a fifth apart.

    Parameters
    ----------
    name
        "mnist5k", "mnist", "fashion" or "digits".
    path
        One's own images of that kind, relative to the folder of the caller.
    seed, examples
        Of the order, and how many of them to train on, 0: all.

    Raises
    ------
    ValueError
        There are not so many examples, or the table at `path` holds no 8 x 8 images.
    """
    from surefoot import data

    found = data.load(name, path=path) if path else data.load(name)
    if name == "digits":
        x: np.ndarray = np.asarray(found.x, dtype=np.float32)
        y: np.ndarray = np.asarray(found.y, dtype=np.int64)
        if x.ndim != 2 or x.shape[1] != 64:
            raise ValueError(
                f"data-path {path!r} must hold 64 numbers a row for data = 'digits', got {x.shape}"
            )
        x = x.reshape(-1, 8, 8) / 16
        x_test, y_test = x[:0], y[:0]
    else:
        x, y, x_test, y_test = found.x_train, found.y_train, found.x_test, found.y_test
    order = np.random.default_rng(seed).permutation(len(x))
    if not len(x_test):
        cut = len(x) // 5
        x_test, y_test = x[order[:cut]], y[order[:cut]]
        order = order[cut:]
    if examples > len(order):
        raise ValueError(
            f"examples must be at most {len(order)} for data = {name!r}, got {examples}"
        )
    order = order[:examples] if examples else order

    def tensors(a: np.ndarray, b: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(a)[:, None], torch.tensor(b)

    return *tensors(x[order], y[order]), tensors(x_test, y_test)
