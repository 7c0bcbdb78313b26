"""A fold=False run as an ordinary LoRA adapter of PEFT, and such an adapter on a model."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot.errors import FileFormatError, need
from surefoot.zeroth_order._engine.tensors import TrainedTensor
from surefoot.zeroth_order.optimizer import ZerothOrder

with need("peft", extra="llm", part="an adapter of surefoot.zeroth_order"):
    import peft
from surefoot._sealed.tensors import read_tensors, write_tensors
from surefoot._sealed.writing import write_bytes

ROOT = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# In the header of the weights: what the configuration must say.
WORDS = "adapter_config"
# What may be changed by hand.
FREE = ("base_model_name_or_path", "revision", "inference_mode", "task_type")


@checked
@torch.no_grad()
def export_adapter(optimizer: ZerothOrder, folder: str | Path) -> Path:
    """Write what a `fold=False` run has learned as a LoRA adapter, for the full or the quantised model.

    Of a matrix lora_B is the B of all periods side by side and lora_A the V, so that W + lora_B lora_A is the
    trained weight: r = lora_alpha. Tensors without a rank (norms) are saved whole, as modules_to_save. A tied
    embedding is adapted in both its places; PEFT warns that it must then not be merged.

    Parameters
    ----------
    optimizer
        The optimizer, at the iterate: not between estimate() and apply().
    folder
        Where to; made if it is not there.

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        With fold=True, before the first step, or where a tensor cannot be in a LoRA adapter: a bias beside
        a matrix that is adapted, or a matrix of a module that PEFT does not adapt.
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    MissingExtraError
        Without the extra `llm`.
    """
    model = optimizer.model
    if optimizer.settings.fold or model is None:
        raise ValueError(
            "an adapter is what a run with fold=False keeps apart: make the optimizer with fold=False"
        )
    if optimizer.t == 0:
        raise ValueError("no step was taken yet: there is nothing to export")
    owners = _owners(model)
    matrices = [x for x in optimizer.tensors if not x.dense]
    adapted: dict[str, int] = {}
    state: dict[str, Tensor] = {}
    transposed: set[bool] = set()
    for tensor in matrices:
        for name, module in owners[id(tensor.param)]:
            state |= _pair(tensor, name, module, transposed)
            adapted[name] = sum(b.shape[1] for b, _ in tensor.factors())
    whole = sorted(_whole(optimizer, owners, set(adapted), state))
    rank = Counter(adapted.values()).most_common(1)[0][0] if adapted else 1
    others = {name: r for name, r in adapted.items() if r != rank}
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=sorted(adapted), rank_pattern=others,
        alpha_pattern=dict(others), modules_to_save=whole or None, fan_in_fan_out=True in transposed,
        inference_mode=True, base_model_name_or_path=getattr(model, "name_or_path", None),
    )  # fmt: skip
    folder = Path(folder)
    held = {ROOT + name: value for name, value in state.items()}
    with tempfile.TemporaryDirectory() as beside:
        config.save_pretrained(beside)
        words = (Path(beside) / CONFIG).read_text(encoding="utf-8")
    write_tensors(folder / WEIGHTS, held, {"format": "pt", WORDS: words})
    write_bytes(folder / CONFIG, words.encode())
    return folder


def _owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """The modules that own each parameter, a tied one in all its places."""
    found: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            found.setdefault(id(parameter), []).append((name, module))
    return found


def _pair(
    tensor: TrainedTensor, name: str, module: nn.Module, transposed: set[bool]
) -> dict[str, Tensor]:
    """The factors of one matrix under PEFT's names."""
    if tensor.storage == "written":
        raise ValueError(
            f"{tensor.name} is read outside its module, where no adapter reaches: freeze it"
        )
    left = torch.cat([b for b, _ in tensor.factors()], 1)
    right = torch.cat([v for _, v in tensor.factors()], 1)
    if isinstance(module, nn.Embedding):
        return {f"{name}.lora_embedding_A": left.T, f"{name}.lora_embedding_B": right}
    if isinstance(module, nn.Linear):
        transposed.add(False)
        return {f"{name}.lora_A.weight": right.T, f"{name}.lora_B.weight": left}
    if type(module).__name__ == "Conv1D":
        # Its weight is (inputs, outputs).
        transposed.add(True)
        return {f"{name}.lora_A.weight": left.T, f"{name}.lora_B.weight": right}
    raise ValueError(
        f"{tensor.name} belongs to a {type(module).__name__}, which PEFT does not adapt: freeze it"
    )


def _whole(
    optimizer: ZerothOrder,
    owners: dict[int, list[tuple[str, nn.Module]]],
    adapted: set[str],
    state: dict[str, Tensor],
) -> set[str]:
    """The modules that are saved whole, whose tensors are added to the state."""
    found = set()
    for tensor in optimizer.tensors:
        if not tensor.dense:
            continue
        for name, module in owners[id(tensor.param)]:
            if name in adapted:
                raise ValueError(
                    f"{tensor.name} moved beside a weight of low rank, which a LoRA adapter cannot hold: "
                    "freeze biases of adapted modules"
                )
            found.add(name)
            for key, value in module.state_dict().items():
                state[f"{name}.{key}"] = value.detach().clone()
    return found


@checked
def attach(model: nn.Module, adapter: str | Path) -> Any:
    """A model with an adapter on it, for inference: the full model or one that stays quantised.

    Parameters
    ----------
    model
        The base.
    adapter
        A folder of `export_adapter`, or of any LoRA adapter whose targets the base has.

    Returns
    -------
    A `peft.PeftModel`; modules of the base are wrapped in place. It cannot be merged into a quantised base.

    Raises
    ------
    surefoot.errors.FileFormatError
        If the folder holds no adapter, a file of it cannot be read, or one that surefoot wrote is not what
        was written.
    MissingExtraError
        Without the extra `llm`.
    """
    folder = Path(adapter)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileFormatError(f"{folder} holds no adapter: there is no {missing[0]}")
    _check(folder)
    found: Any = peft.PeftModel.from_pretrained(model, str(folder), trust_remote_code=False)
    return found.eval()


def _check(folder: Path) -> None:
    """Adapters of others carry no checksum; of ours, both files must be what was written."""
    found = read_tensors(folder / WEIGHTS)
    try:
        now = _meant((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{folder / CONFIG} cannot be read: {error}") from error
    if found.sealed and WORDS in found.words and now != _meant(found.words[WORDS]):
        raise FileFormatError(f"{folder / CONFIG} is not what was written with {folder / WEIGHTS}")


def _meant(text: str) -> dict[str, Any]:
    return {k: v for k, v in json.loads(text).items() if k not in FREE}
