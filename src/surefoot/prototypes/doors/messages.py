"""What server and sites say to each other beside arrays."""

from __future__ import annotations

from typing import Any

import torch

from surefoot.errors import need
from surefoot.prototypes.adapter import ResidualAdapter
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.head import ZeroShotHead

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from surefoot.federated.records import from_arrays, state_of, to_arrays

CONFIG, HEAD, ARRAYS, METRICS, DRY = "config", "head", "arrays", "metrics", "dry-run"
RELEASE = ("epsilon", "delta", "clip")


def head_words(head: ZeroShotHead) -> dict[str, Any]:
    """What a head is beside its rows."""
    return {"head-scale": float(head.scale), "head-normalize": bool(head.normalize)}


def head_record(head: ZeroShotHead) -> ArrayRecord:
    """Its rows, as they are multiplied with."""
    return to_arrays({"weight": head.weight})


def rebuilt_head(rows: ArrayRecord, config: ConfigRecord) -> ZeroShotHead:
    """The head of the server, to the last bit: its rows are not normalised again."""
    weight = state_of(rows)["weight"]
    head = ZeroShotHead(
        weight, scale=float(str(config["head-scale"])), normalize=bool(config["head-normalize"])
    )
    head.load_state_dict({"weight": weight})
    return head


def release_words(dp: GaussianRelease | None) -> dict[str, float]:
    """A release in a message; nothing where there is none."""
    return {} if dp is None else {name: float(getattr(dp, name)) for name in RELEASE}


def release_of(config: ConfigRecord) -> GaussianRelease | None:
    """The release that a message asks for."""
    if RELEASE[0] not in config:
        return None
    epsilon, delta, clip = (float(str(config[name])) for name in RELEASE)
    return GaussianRelease(epsilon, delta, clip)


def classes_of(config: ConfigRecord) -> tuple[str, ...]:
    """The server's names of the classes; () where it has none."""
    found = config.get("classes", [])
    return tuple(map(str, found)) if isinstance(found, list) else ()


def adapter_of(content: RecordDict) -> ResidualAdapter:
    """The adapter in a message, on the shape that its arrays have."""
    record = content.array_records[ARRAYS]
    shape = state_of(record)["down.weight"]
    adapter = ResidualAdapter(shape.shape[1], shape.shape[0], seed=0, dtype=shape.dtype)
    adapter.load_state_dict(from_arrays(record, adapter.state_dict()))
    return adapter


def config_of(message: Message) -> ConfigRecord:
    """The configuration of a message.

    Raises
    ------
    ValueError
        It has none: another strategy sent it.
    """
    found = message.content.config_records.get(CONFIG)
    if found is None:
        raise ValueError(
            f'a message has a ConfigRecord "{CONFIG}", got {sorted(map(str, message.content))}; this client '
            "works with MPFTStrategy"
        )
    return found


def parameters(adapter: ResidualAdapter) -> dict[str, torch.Tensor]:
    """Its weights by name."""
    return {name: value.detach().clone() for name, value in adapter.state_dict().items()}
