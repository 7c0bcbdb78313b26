"""The ClientApp and the ServerApp of a task: the same two run in simulation and on real nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice
from surefoot._run.files import sha256_of
from surefoot._sealed.tensors import write_tensors
from surefoot.errors import SurefootError, need
from surefoot.federated._nodes import log
from surefoot.federated._payload import unpacked
from surefoot.federated.checkpoint import load_round, save_round, why_not
from surefoot.federated.kept_task import KeptTask
from surefoot.federated.partition import seed_for
from surefoot.federated.records import FACTS, facts_record, state_of, to_arrays
from surefoot.federated.robust import MAX_EXAMPLES
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.run_config import node_of, number, whole
from surefoot.federated.server_rule import ServerRule
from surefoot.federated.strategy import UNIFORM, WEIGHT, DeterministicFedAvg
from surefoot.federated.task import MakeTask, State, Task, Visit

with need("flwr", extra="federated", part="surefoot.federated"):
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.clientapp.typing import Mod
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import Strategy

MEMORY, KNOWN = "surefoot-memory", "surefoot-extra"
MakeStrategy = Callable[[Mapping[str, Any], Task], Strategy]
# Mods that look and do not touch.
WATCHING = frozenset({"message_size_mod", "arrays_size_mod"})


@checked
def make_client_app(
    make_task: MakeTask,
    settings: Mapping[str, Any] | None = None,
    mods: Sequence[Mod] = (),
) -> ClientApp:
    """A ClientApp that trains a task on its partition.

    Parameters
    ----------
    make_task
        make_task(run configuration) -> the task. It is kept for the next message of the run: what it changes
        in itself another partition, or the next round, would see.
    settings
        Defaults below the run's own configuration.
    mods
        Flower's mods around the training, such as `fixedclipping_mod` and `LocalDpMod`; not around the
        query for the partition, which carries no arrays. Where one may change a reply, the record says
        that the client's rule is unknown.
    """
    app = ClientApp()
    defaults, kept = dict(settings or {}), KeptTask(make_task)
    changing = [name for name in map(_name_of, mods) if name not in WATCHING]

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = MetricRecord({"partition-id": node_of(context)[0]})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    @app.train(mods=list(mods))
    def train(message: Message, context: Context) -> Message:
        # One thread: the order of a sum, and with it the bits, must not depend on the machine.
        torch.set_num_threads(1)
        partition, num_partitions = node_of(context)
        config, (key, arrays) = _read(message)
        server_round, seed = int(str(config["server-round"])), int(str(config["seed"]))
        extra = unpacked(config)
        if extra:
            context.state[KNOWN] = to_arrays(extra)
        visit = Visit(
            partition, num_partitions, server_round, seed_for(seed, server_round, partition),
            _kept(context, MEMORY), extra or _kept(context, KNOWN),
        )  # fmt: skip
        if changing:
            visit.record.note(client=f"unknown ({', '.join(changing)} after it)")
        with kept.of(context.run_id, {**defaults, **context.run_config}) as task:
            state, examples, metrics = task.train(state_of(arrays), visit)
        visit.note_memory()
        if visit.memory:
            context.state[MEMORY] = to_arrays(visit.memory)
        content = RecordDict(
            {
                key: to_arrays(state),
                "metrics": MetricRecord(
                    {
                        **metrics,
                        str(config.get(WEIGHT, "num-examples")): 1
                        if config.get(UNIFORM)
                        else examples,
                        "partition-id": partition,
                    }
                ),
            }
        )
        facts = facts_record(visit.record)
        if facts is not None:
            content[FACTS] = facts
        return Message(content, reply_to=message)

    return app


@checked
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
        make_strategy(run configuration, task) -> a `DeterministicFedAvg`, or one inside Flower's wrappers;
        `default_strategy` by default.
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
        seed = whole(config, "seed", 0)
        strategy = (make_strategy or default_strategy)(config, task)
        inner = _inner(strategy)
        out, initial = str(config.get("out", "")), to_arrays(task.initial(seed))
        rounds = whole(config, "num-server-rounds", 3, 0)
        checkpoint = str(config.get("checkpoint", ""))
        lacks = why_not(inner, strategy is not inner)
        if checkpoint and lacks:
            log(WARNING, "no checkpoint is kept: %s", lacks)
        if check_choice("resume", config.get("resume", False), (True, False)):
            rounds, initial = _going_on(strategy, inner, config, rounds)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            done, state = server_round + inner.rounds_done, state_of(arrays)
            if done and not server_round:
                return None  # the run before has evaluated it
            found = task.evaluate(state)
            inner.history.evaluated(done, found)
            if checkpoint and done and not lacks:
                inner.state = state
                save_round(checkpoint, inner, done, config)
            if out and done:
                inner.history.tell(f"{out}.rounds", done)
            return MetricRecord(dict(found)) if found else None

        ended: dict[str, str] = {}
        try:
            result = strategy.start(
                grid,
                initial,
                num_rounds=rounds,
                timeout=inner.round_timeout,
                evaluate_fn=evaluate,
            )
            # What is kept is what the strategy returned, whatever was done to it on the way.
            inner.take(result.arrays or initial)
            inner.history.refuse_nothing()
            if out:
                write_tensors(out, inner.state, {})
                ended["sha256"] = sha256_of(Path(out))
        except Exception as error:
            ended["error"] = str(error)
            raise
        finally:
            # A run that ends early still says who was missing, and why it ended.
            if out:
                made = [c.to_dict() for c in inner.certificates()]
                inner.history.write(Path(f"{out}.json"), certificates=made, **ended)
        if done is not None:
            done(inner.state, inner.history)

    return app


def _going_on(
    strategy: Strategy, inner: DeterministicFedAvg, config: Mapping[str, Any], rounds: int
) -> tuple[int, ArrayRecord]:
    """How many rounds are left of a run that was killed, and the arrays that they begin with."""
    if not config.get("checkpoint"):
        raise SurefootError("resume needs checkpoint, the file of the run that was killed")
    why = why_not(inner, strategy is not inner)
    if why:
        raise SurefootError(f"resume is not possible: {why}; start anew without it")
    done = load_round(str(config["checkpoint"]), inner, config)
    if rounds < done:
        raise SurefootError(f"{done} rounds are done already, and num-server-rounds is {rounds}")
    return rounds - done, to_arrays(inner.state)


def default_strategy(config: Mapping[str, Any], task: Task) -> DeterministicFedAvg:
    """Deterministic FedAvg from run-config keys, with the server rule of `server-rule`."""
    strategy = DeterministicFedAvg(
        **strategy_settings(config), task=task,
        uniform=check_choice("uniform", config.get("uniform", False), (True, False)),
        secret_draw=check_choice("secret-draw", config.get("secret-draw", False), (True, False)),
    )  # fmt: skip
    theorems = getattr(task, "theorems", None)
    strategy.theorems = theorems() if theorems is not None else ()
    return strategy


def strategy_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What all strategies here read from a run's configuration.

    Raises
    ------
    ValueError
        A value that is no number, or out of range; the key is named.
    """
    return {
        "num_partitions": whole(config, "num-partitions", 2, 1),
        "seed": whole(config, "seed", 0),
        "fraction": number(config, "fraction", 1.0, above=0),
        "min_nodes": whole(config, "min-nodes", 1, 1),
        "node_timeout": number(config, "node-timeout", 120.0, least=0),
        "round_timeout": number(config, "round-timeout", 3600.0, above=0),
        "rule": ServerRule(
            config.get("server-rule", "fedavg"), number(config, "server-lr", 1.0, above=0)
        ),
        "robust": config.get("robust", "") or None,
        "max_examples": number(config, "max-examples", MAX_EXAMPLES, above=0),
    }


def _read(message: Message) -> tuple[ConfigRecord, tuple[str, ArrayRecord]]:
    """The one configuration of a message, and its one record of arrays with its key."""
    configs = list(message.content.config_records.values())
    arrays = list(message.content.array_records.items())
    if len(configs) != 1 or len(arrays) != 1:
        raise ValueError(
            "a message to train holds one ConfigRecord and one ArrayRecord, "
            f"got {len(configs)} and {len(arrays)}"
        )
    return configs[0], arrays[0]


def _inner(strategy: Strategy) -> DeterministicFedAvg:
    """The strategy inside Flower's wrappers."""
    found: Any = strategy
    while found is not None and not isinstance(found, DeterministicFedAvg):
        found = getattr(found, "strategy", None)
    if found is None:
        raise TypeError(
            "make_strategy must return a DeterministicFedAvg, or one inside a wrapper that has it as "
            f"`strategy`, got {type(strategy).__name__}"
        )
    return found


def _name_of(mod: Mod) -> str:
    return getattr(mod, "__name__", type(mod).__name__)


def _kept(context: Context, name: str) -> State:
    record = context.state.get(name)
    return state_of(record) if isinstance(record, ArrayRecord) else {}
