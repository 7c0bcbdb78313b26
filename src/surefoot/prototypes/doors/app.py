"""MPFT as a Flower app: the two components of `apps/mpft`, from a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.errors import need
from surefoot.prototypes.configured import mpft_task
from surefoot.prototypes.doors.client import make_client_app
from surefoot.prototypes.doors.keys import KEYS as KEYS
from surefoot.prototypes.doors.messages import parameters
from surefoot.prototypes.doors.strategy import MPFTStrategy
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.task import MakePrototypeTask, PrototypeTask

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    from surefoot.federated.apps import make_server_app
    from surefoot.federated.run_config import number, refuse_unknown, refuse_unused, whole
    from surefoot.federated.task import State, Task, Visit

Config = Mapping[str, Any]


class _OnServer:
    """A task of prototypes as `make_server_app` takes it; clients never see it."""

    def __init__(self, inner: PrototypeTask, config: Config) -> None:
        self.inner, self.strategy = inner, mpft_strategy(config, inner)

    def initial(self, seed: int) -> State:
        """The adapter before training."""
        return parameters(self.strategy.initial_adapter())

    def train(self, state: State, visit: Visit) -> tuple[State, int, dict[str, float]]:
        """Nobody trains a model at a client here."""
        raise NotImplementedError

    def evaluate(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Clients evaluate."""
        return {}


def mpft_server_app(
    task: MakePrototypeTask | None = None, settings: Config | None = None
) -> ServerApp:
    """The ServerApp: one round of uploads, an adapter in `out`, all that happened in OUT.json.

    Parameters
    ----------
    task
        task(configuration) -> a `PrototypeTask`; by default that of `mpft_task`.
    settings
        Defaults below the run's configuration.
    """

    def on_server(config: Config) -> Task:
        return _OnServer((task or mpft_task)(_of_server(config)), config)

    def strategy(config: Config, made: Task) -> MPFTStrategy:
        assert isinstance(made, _OnServer)
        return made.strategy

    return make_server_app(on_server, strategy, {"num-server-rounds": 1, **(settings or {})})


def mpft_client_app(
    task: MakePrototypeTask | None = None, settings: Config | None = None
) -> ClientApp:
    """The ClientApp of the same task.

    Parameters
    ----------
    task, settings
        As in `mpft_server_app`.
    """
    return make_client_app(task or mpft_task, settings)


def _of_server(config: Config) -> dict[str, Any]:
    """The server may have its head in a file of its own, and needs no records."""
    found = dict(config)
    if found.get("head-path"):
        found["data-path"] = found["head-path"]
    return found


def mpft_strategy(config: Config, task: PrototypeTask) -> MPFTStrategy:
    """The strategy of a run's configuration.

    Parameters
    ----------
    config
        Of the run; a key that nobody reads is refused.
    task
        Gives head, encoder and names of classes.

    Raises
    ------
    ValueError
        A key or its value; it is named.
    """
    refuse_unknown(config, KEYS)
    kind = check_choice("release", config.get("release", "client"), ("client", "sum"))
    if kind == "sum":
        raise ValueError(
            'release = "sum" needs a secure sum: Flower 1.41 has SecAgg and SecAgg+ for its legacy API only, '
            "so the app refuses it instead of simulating trust; every client makes its own release "
            '(release = "client")'
        )
    dp = _release(config)
    rounds = whole(config, "num-server-rounds", 1, 1)
    shots = whole(config, "adapt-shots", 0, 0)
    if not shots:
        unused = {"kd-weight": 1.0, "adapt-epochs": 10}
        refuse_unused(config, unused, "without adapt-shots")
    if rounds != (2 if shots else 1):
        raise ValueError(
            f"num-server-rounds must be {2 if shots else 1} with adapt-shots = {shots}, got {rounds}: MPFT "
            "uploads once; a second round adapts at the sites"
        )
    partitions = whole(config, "num-partitions", 2, 1)
    sampler = check_choice("sampler", config.get("sampler", "none"), ("none", "additive"))
    residual = _word(config, "residual", "auto")
    _refuse_without_use(config, sampler)
    return MPFTStrategy(
        task.head(), partitions, whole(config, "min-clients", 0, 0) or None,
        number(config, "node-timeout", 120.0, least=0), _auto(config, "epochs"),
        whole(config, "seed", 0, 0), None if sampler == "none" else "additive",
        method=str(config.get("method", "cluster_var")), ratio=number(config, "ratio", 0.1, above=0),
        min_cluster=whole(config, "min-cluster", 2, 1), dp=dp, encoder_id=task.encoder_id,
        classes=task.classes, lr=number(config, "lr", 1e-3, above=0),
        batch_size=whole(config, "batch-size", 10, 1), solver=config.get("solver", "adamw"),
        steps=_auto(config, "steps"), residual=True if residual is None else residual,
        adapt_shots=shots, kd_weight=number(config, "kd-weight", 1.0, least=0),
        adapt_epochs=whole(config, "adapt-epochs", 10, 1), evaluate=_word(config, "evaluate", "auto"),
        round_timeout=number(config, "round-timeout", 3600.0, above=0),
    )  # fmt: skip


def _release(config: Config) -> GaussianRelease | None:
    epsilon = config.get("epsilon", "none")
    if epsilon == "none":
        refuse_unused(
            config,
            {"delta": 1e-5, "clip": 1.0, "max-epsilon": "none", "max-delta": "none"},
            "without epsilon",
        )
        return None
    if config.get("max-epsilon", "none") == "none":
        refuse_unused(config, {"max-delta": "none"}, "without max-epsilon")
    elif config.get("evaluate", "auto") is True:
        raise ValueError(
            "evaluate = true asks for accuracies, which a site with a max-epsilon keeps: leave one out"
        )
    epsilon = check_number("epsilon", epsilon, above=0, finite=False)
    return GaussianRelease(epsilon, number(config, "delta", 1e-5), number(config, "clip", 1.0))


def _refuse_without_use(config: Config, sampler: str) -> None:
    """Refuse keys that the others leave without effect."""
    method = config.get("method", "cluster_var")
    if method in ("mean", "gauss"):
        refuse_unused(config, {"ratio": 0.1}, f"with method {method}")
    if method not in ("cluster", "cluster_var"):
        refuse_unused(config, {"min-cluster": 2}, f"with method {method}")
    if config.get("solver", "adamw") == "certified":
        refuse_unused(config, {"batch-size": 10}, "with solver certified, which takes all rows")
    if sampler != "additive" and config.get("residual", "auto") is True:
        raise ValueError("residual = true is not used without sampler additive; leave it out")


def _auto(config: Config, key: str) -> int | None:
    given = config.get(key, "auto")
    return None if given == "auto" else check_number(key, given, least=1, whole=True)


def _word(config: Config, key: str, default: str) -> bool | None:
    """True or false; None where it is left to the rest."""
    given = config.get(key, default)
    if given == "auto":
        return None
    if not isinstance(given, bool):
        raise ValueError(f'{key} must be true, false or "auto", got {given!r}')
    return given
