"""A chain's state as files: `chain_state.safetensors` holds all of it, `chain.json` is for people.

One file is replaced in one go, so that a kill during a save leaves the state before or after it.
`chain.json` is the mark by which a folder is known to hold a chain, and a readable copy.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot._run.files import replacing, write_text
from surefoot.lora.config import RacConfig
from surefoot.lora.errors import ChainStateError
from surefoot.lora.state import State, to_json

if TYPE_CHECKING:
    from surefoot.lora.chain import ChainOfLora

TENSORS, META, LORA, ADAPTER = (
    "chain_state.safetensors",
    "chain.json",
    "lora",
    "adapter_config.json",
)
OPTIMIZER = "optimizer"  # the bytes of torch.save, as a tensor among the others


def write_state(chain: ChainOfLora, folder: Path, more: dict[str, Tensor] | None = None) -> None:
    """Write the two files, each whole or not at all."""
    from safetensors.torch import save_file

    state = chain.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    text = to_json(state["meta"])
    with replacing(folder / TENSORS) as partial:
        save_file({**state["tensors"], **(more or {})}, partial, metadata={"chain": text})
    write_text(folder / META, text)


def read_state(folder: Path) -> State:
    """Read what `write_state` wrote; a missing or torn file is a ChainStateError."""
    from safetensors import safe_open

    for name in (META, TENSORS):
        if not (folder / name).is_file():
            raise ChainStateError(
                f"{folder} holds no {name}: without it every merged block would be lost. Resume from "
                "a checkpoint that a chain wrote (a Trainer needs RacCallback for that)"
            )
    try:
        json.loads((folder / META).read_text(encoding="utf-8"))
        with safe_open(folder / TENSORS, framework="pt") as file:
            meta = json.loads(file.metadata()["chain"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ChainStateError(f"the chain state in {folder} is not readable: {error}") from error
    return {"meta": meta, "tensors": tensors}


def write_all(chain: ChainOfLora, folder: Path, optimizer: Any) -> None:
    """State, extras, buffers, generators, adapter configuration and optimizer."""
    more = {f"extra.{k}": p.detach().cpu().clone() for k, p in chain.extras().items()}
    more |= {f"buffer.{k}": b.detach().cpu().clone() for k, b in _buffers(chain.model).items()}
    more["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        more |= {f"rng.cuda.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    if optimizer is not None:
        held = io.BytesIO()
        torch.save(optimizer.state_dict(), held)
        more[OPTIMIZER] = torch.frombuffer(bytearray(held.getvalue()), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as work:
        chain.model.peft_config[chain.adapter_name].save_pretrained(work)
        text = (Path(work) / ADAPTER).read_text(encoding="utf-8")
    (folder / LORA).mkdir(parents=True, exist_ok=True)
    write_text(folder / LORA / ADAPTER, text)
    write_state(chain, folder, more)


def read_all(
    kind: type[ChainOfLora],
    folder: Path,
    base_model: nn.Module,
    config: RacConfig | None,
    rng: bool,
) -> ChainOfLora:
    """A chain in the state that `write_all` stored."""
    from peft import LoraConfig, get_peft_model

    state = read_state(folder)
    meta, tensors = state["meta"], state["tensors"]
    if not (folder / LORA).is_dir():
        raise ChainStateError(
            f"{folder} is a Trainer checkpoint; resume it with trainer.train(resume_from_checkpoint=...)"
        )
    lora = LoraConfig.from_pretrained(str(folder / LORA))
    lora.inference_mode = False
    if config is None:
        stored = dict(meta["config"])
        if str(stored["sketch"]).startswith("callable:"):
            raise ChainStateError(
                f"the chain was made with the sketch {stored['sketch'][9:]!r}, which a file cannot hold; "
                "pass config= with that callable"
            )
        config = RacConfig(**{f.name: stored[f.name] for f in dataclasses.fields(RacConfig)})
    name = meta["adapter_name"]
    chain = kind(get_peft_model(base_model, lora, adapter_name=name), config, name)
    chain.load_state_dict(state)
    with torch.no_grad():
        for key, parameter in chain.extras().items():
            parameter.copy_(_take(tensors, f"extra.{key}", folder))
        for key, buffer in _buffers(chain.model).items():
            buffer.copy_(_take(tensors, f"buffer.{key}", folder))
    if rng:
        torch.set_rng_state(tensors["rng.cpu"])
        for i in range(torch.cuda.device_count()):
            if f"rng.cuda.{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"rng.cuda.{i}"], i)
    chain.resumed_from = folder
    return chain


def read_optimizer(chain: ChainOfLora, optimizer: Any) -> None:
    """Load the optimizer state that was saved with the chain."""
    if chain.resumed_from is None:
        raise ChainStateError("restore_optimizer needs a chain that came from ChainOfLora.resume")
    state = read_state(chain.resumed_from)
    if state["meta"]["total_steps"] != chain.total_steps:
        raise ChainStateError(
            f"{chain.resumed_from} was written again since the chain came from it, or the chain has "
            "moved; restore the optimizer at once after resume"
        )
    if OPTIMIZER not in state["tensors"]:
        raise ChainStateError(
            f"{chain.resumed_from} holds no optimizer; pass it to save(folder, optimizer)"
        )
    held = io.BytesIO(state["tensors"][OPTIMIZER].numpy().tobytes())
    optimizer.load_state_dict(torch.load(held, weights_only=True))


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    persistent = set(model.state_dict())
    return {name: b for name, b in model.named_buffers() if name in persistent}


def _take(tensors: dict[str, Tensor], name: str, folder: Path) -> Tensor:
    if name not in tensors:
        raise ChainStateError(f"the chain state in {folder} lacks {name}; is it another model?")
    return tensors[name]
