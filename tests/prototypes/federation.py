"""Sites of synthetic embeddings, as a file for apps/mpft, and the same run as a loop without Flower."""

import numpy as np
import torch
from tests.federated.grid import InProcessGrid
from tests.prototypes.clients import clients, directions

from surefoot.prototypes import extract_prototypes, train_global_adapter
from surefoot.prototypes.configured import mpft_task
from surefoot.prototypes.doors.app import mpft_client_app, mpft_strategy

ENCODER = "toy"


def feature_file(path, count=3, n=48, **more):
    """Embeddings of all sites in one file."""
    found = clients(count, n)
    np.savez(
        path,
        **{
            "features": torch.cat([z for z, _ in found]).numpy(),
            "labels": torch.cat([y for _, y in found]).numpy(),
            "domains": np.repeat(np.arange(count), n), "head": directions().numpy(),
            "encoder": np.array(ENCODER), **more,
        },
    )  # fmt: skip
    return path


def config_of(path, count=3, **more):
    """A run of a few epochs."""
    return {
        "data": "features", "data-path": str(path), "num-partitions": count, "scale": 5.0,
        "epochs": 3, "node-timeout": 0.0, **more,
    }  # fmt: skip


def private(path, **more):
    """A run of a few steps on class means with noise."""
    return config_of(
        path, **{"method": "mean", "epsilon": 4.0, "epochs": "auto", "steps": 5, **more}
    )


def verdicts(strategy):
    """Of each guarantee, by its number."""
    return {c.name.partition(":")[0]: c.verdict for c in strategy.certificates()}


def ways(config):
    """Everything that a run over a Grid needs: the client app and the strategy."""
    server = {**config, "data-path": config.get("head-path") or config["data-path"]}
    return mpft_client_app(), mpft_strategy(config, mpft_task(server))


def run(config, faults=None, grid=None, shuffle=0):
    """The strategy after a run in one process."""
    app, strategy = ways(config)
    grid = grid or InProcessGrid(app, config["num-partitions"], config, shuffle, faults)
    grid.run_config = config
    for context in grid.contexts.values():
        context.run_config = dict(config)
    if faults is not None:
        grid.faults = faults
    strategy.start(grid, strategy.initial_arrays(), num_rounds=config.get("num-server-rounds", 1))
    return strategy


def uploads(config, **more):
    """The same uploads, without Flower."""
    task = mpft_task(config)
    options = {"method": config.get("method", "cluster_var"), "ratio": config.get("ratio", 0.1)}
    return [
        extract_prototypes(
            *task.records(p, config["num-partitions"], ()), **options, seed=config.get("seed", 0),
            encoder_id=task.encoder_id, **more,
        )
        for p in range(config["num-partitions"])
    ]  # fmt: skip


def loop(config, sets=None, **more):
    """The adapter of the same run, without Flower."""
    task = mpft_task(config)
    sets = uploads(config) if sets is None else sets
    if config["epochs"] != "auto":
        more["epochs"] = config["epochs"]
    adapter, _ = train_global_adapter(sets, task.head(), seed=config.get("seed", 0), **more)
    return adapter.state_dict()


def same(state, expected):
    return set(state) == set(expected) and all(torch.equal(state[k], expected[k]) for k in state)
