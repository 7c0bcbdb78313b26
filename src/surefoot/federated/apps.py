"""The ClientApp and the ServerApp of a task: the same two run in simulation and on real nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot._run.files import replacing
from surefoot.errors import need
from surefoot.federated.partition import seed_for
from surefoot.federated.records import FACTS, facts_record, from_arrays, to_arrays
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.strategy import EXTRA, DeterministicFedAvg
from surefoot.federated.task import MakeTask, State, Task, Visit

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

MEMORY, KNOWN = "surefoot-memory", "surefoot-extra"
MakeStrategy = Callable[[Mapping[str, Any], Task], DeterministicFedAvg]


def make_client_app(make_task: MakeTask, settings: Mapping[str, Any] | None = None) -> ClientApp:
    """A ClientApp that trains a task on its partition.

    `settings` are defaults below the run's own configuration.
    """
    app = ClientApp()
    defaults = dict(settings or {})

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = MetricRecord({"partition-id": _node(context)[0]})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        # One thread: the order of a sum, and with it the bits, must not depend on the machine.
        torch.set_num_threads(1)
        task = make_task({**defaults, **context.run_config})
        partition, num_partitions = _node(context)
        config = message.content["config"]
        arrays = message.content["arrays"]
        server_round, seed = int(str(config["server-round"])), int(str(config["seed"]))
        sent = {k: a for k, a in arrays.items() if not k.startswith(EXTRA)}
        new = {k.removeprefix(EXTRA): a for k, a in arrays.items() if k.startswith(EXTRA)}
        if new:
            context.state[KNOWN] = ArrayRecord(new)
        visit = Visit(
            partition, num_partitions, server_round, seed_for(seed, server_round, partition),
            _tensors(context.state.get(MEMORY)), _tensors(context.state.get(KNOWN)),
        )  # fmt: skip
        state, examples, metrics = task.train(_tensors(ArrayRecord(sent)), visit)
        if visit.memory:
            context.state[MEMORY] = to_arrays(visit.memory)
        content = RecordDict(
            {
                "arrays": to_arrays(state),
                "metrics": MetricRecord(
                    {**metrics, "num-examples": examples, "partition-id": partition}
                ),
            }
        )
        facts = facts_record(visit.record)
        if facts is not None:
            content[FACTS] = facts
        return Message(content, reply_to=message)

    return app


def make_server_app(
    make_task: MakeTask,
    make_strategy: MakeStrategy | None = None,
    settings: Mapping[str, Any] | None = None,
    done: Callable[[State, FederationHistory], object] | None = None,
) -> ServerApp:
    """A ServerApp that runs a task: num-server-rounds, num-partitions, seed, out, and the task's own keys.

    With `out`, the final arrays go to that .safetensors file; rounds, facts and certificates to OUT.json
    beside it.

    Parameters
    ----------
    make_task
        make_task(run configuration) -> the task.
    make_strategy
        make_strategy(run configuration, task) -> the strategy; `default_strategy` by default.
    settings
        Defaults below the run's own configuration.
    done
        done(final state, history) is called at the end.
    """
    app = ServerApp()
    defaults = dict(settings or {})

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)
        config = {**defaults, **context.run_config}
        task = make_task(config)
        seed = int(config.get("seed", 0))
        strategy = (make_strategy or default_strategy)(config, task)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            found = task.evaluate(from_arrays(arrays, strategy.state))
            strategy.history.evaluated(server_round, found)
            return MetricRecord(dict(found)) if found else None

        out = str(config.get("out", ""))
        try:
            strategy.start(
                grid,
                to_arrays(task.initial(seed)),
                num_rounds=int(config.get("num-server-rounds", 3)),
                evaluate_fn=evaluate,
            )
            if out:
                with need("safetensors", extra="federated", part="the key out of a federation"):
                    from safetensors.torch import save_file

                with replacing(out) as partial:
                    save_file({k: v.contiguous() for k, v in strategy.state.items()}, partial)
        finally:
            # A run that ends early still says who was missing.
            if out:
                made = [c.to_dict() for c in strategy.certificates()]
                strategy.history.write(Path(f"{out}.json"), certificates=made)
        if done is not None:
            done(strategy.state, strategy.history)

    return app


def default_strategy(config: Mapping[str, Any], task: Task) -> DeterministicFedAvg:
    """Deterministic FedAvg from run-config keys, with the server rule of `server-rule`."""
    strategy = DeterministicFedAvg(**strategy_settings(config))
    theorems = getattr(task, "theorems", None)
    strategy.theorems = theorems() if theorems is not None else ()
    return strategy


def strategy_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What all strategies here read from a run's configuration."""
    return {
        "num_partitions": int(config.get("num-partitions", 2)),
        "seed": int(config.get("seed", 0)),
        "fraction": float(config.get("fraction", 1.0)),
        "min_nodes": int(config.get("min-nodes", 1)),
        "node_timeout": float(config.get("node-timeout", 120.0)),
        "round_timeout": float(config.get("round-timeout", 3600.0)),
        "rule": ServerRule(
            config.get("server-rule", "fedavg"), float(config.get("server-lr", 1.0))
        ),
    }


def _node(context: Context) -> tuple[int, int]:
    try:
        return int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    except KeyError as error:
        raise KeyError(
            f"the node's configuration lacks {error}; start it with "
            '--node-config "partition-id=0 num-partitions=2"'
        ) from None


def _tensors(record: Any) -> State:
    if not isinstance(record, ArrayRecord):
        return {}
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}
