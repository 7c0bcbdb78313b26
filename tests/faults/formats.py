"""Every file format that surefoot reads back, small: how it is written, and all that is read of it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from tests.faults.damage import Kind
from torch import nn

HERE = Path(__file__).parent


def bits(value: object) -> object:
    """Something that == compares, to the last bit, of nested dictionaries, lists, tensors and arrays."""
    if isinstance(value, torch.Tensor):
        return bits(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()), tuple(
            value.shape
        )
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(str(k), bits(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [bits(v) for v in value]
    return repr(value)


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


# -- zeroth_order ------------------------------------------------------------------------------------------


def step_log(folder: Path, schedule: bool = False) -> list[Path]:
    from surefoot.zeroth_order import LOZO

    model = net()
    optimizer = LOZO(
        model, 1e-2, nu=5, rank=1, seed=1, weight_decay=0.1, log=str(folder / "run.zo")
    )
    for t in range(12):
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + t) if schedule else 1e-2
        optimizer.step(lambda: model(torch.ones(1, 3)).square().sum())
    optimizer.flush()
    return [folder / "run.zo"]


def replayed(folder: Path) -> object:
    from surefoot.zeroth_order import replay

    return bits(list(replay(net(), folder / "run.zo").parameters()))


def old_step_log(folder: Path) -> list[Path]:
    shutil.copy(HERE.parent / "zeroth_order" / "stored" / "format_1.zo", folder / "run.zo")
    return [folder / "run.zo"]


def old_replayed(folder: Path) -> object:
    from surefoot.zeroth_order import replay

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(13, 8), nn.Flatten(), nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 4)
        )
    return bits(list(replay(model, folder / "run.zo").parameters()))


def adapter(folder: Path) -> list[Path]:
    from surefoot.zeroth_order import LOZO
    from surefoot.zeroth_order.quantised import export_adapter

    model = gpt2()
    for name, p in model.named_parameters():
        p.requires_grad_(not name.endswith(("attn.bias", "proj.bias", "fc.bias", "c_attn.bias")))
    optimizer = LOZO(model, 1e-2, nu=2, rank=1, seed=1, fold=False)
    ids = torch.zeros(1, 4, dtype=torch.long)
    for _ in range(3):
        optimizer.step(lambda: model(input_ids=ids, labels=ids).loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_adapter(optimizer, folder / "adapter")
    return [folder / "adapter" / n for n in ("adapter_model.safetensors", "adapter_config.json")]


def gpt2() -> nn.Module:
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=20, n_embd=8, n_layer=1, n_head=1, n_positions=8, bos_token_id=0, eos_token_id=0,
                tie_word_embeddings=False,
            )
        )  # fmt: skip


def attached(folder: Path) -> object:
    from surefoot.zeroth_order.quantised import attach

    return bits(attach(gpt2(), folder / "adapter")(input_ids=torch.arange(8)[None]).logits)


def gguf_model(folder: Path) -> list[Path]:
    from tests.zeroth_order.gguf_files import Q4_1, write

    return [write(folder / "tiny.gguf", Q4_1)]


def gguf_read(folder: Path) -> object:
    from surefoot.zeroth_order.quantised import load_gguf

    model = load_gguf(folder / "tiny.gguf")
    return bits([list(model.buffers()), model(input_ids=torch.arange(8)[None]).logits])


# -- lora --------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def chain(folder: Path) -> list[Path]:
    from peft import LoraConfig, get_peft_model

    from surefoot.lora import ChainOfLora, RacConfig

    lora = LoraConfig(r=2, target_modules=["0"], modules_to_save=["2"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ChainOfLora(get_peft_model(mlp(), lora), RacConfig(steps_per_block=4, seed=3))
        optimizer = torch.optim.AdamW(made.trainable_parameters(), lr=1e-2)
        for i in range(6):
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
            made.model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            made.step(optimizer)
        made.save(folder / "chain", optimizer)
    return sorted(p for p in (folder / "chain").rglob("*") if p.is_file())


def resumed(folder: Path, base: nn.Module | None = None) -> object:
    from surefoot.lora import ChainOfLora

    with torch.random.fork_rng(devices=[]):
        found = ChainOfLora.resume(folder / "chain", mlp() if base is None else base)
        rng = torch.get_rng_state()
    optimizer = torch.optim.AdamW(found.trainable_parameters(), lr=1e-2)
    if base is None:
        found.restore_optimizer(optimizer)
    # Also what only later steps depend on: the adapter's scaling and dropout, the record, the plan.
    adapter = found.model.peft_config[found.state.adapter].to_dict()
    about = [
        found.config.to_dict(),
        found.block,
        found.step_in_block,
        found.total_steps,
        found.steps_per_block,
    ]
    record = found.record
    kept = {q: record.curves(q).values for q in sorted(record.quantities)}
    return bits([
        dict(found.model.state_dict()), rng, optimizer.state_dict(), about, adapter, kept,
        repr(sorted(record.facts.items())), list(map(repr, found.reports)),
        [(p.block, p.trained, dict(p.factors)) for p in found.history],
    ])  # fmt: skip


def old_chain(folder: Path) -> list[Path]:
    shutil.copytree(HERE.parent / "lora" / "stored" / "format_1", folder / "chain")
    return sorted(p for p in (folder / "chain").rglob("*") if p.is_file())


def old_resumed(folder: Path) -> object:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(6, 3)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resumed(folder, Mlp())


# -- architecture, prototypes, reparam, privacy, kan -------------------------------------------------------


def autoencoder(folder: Path) -> list[Path]:
    from surefoot.architecture import MLPSpace, NetworkAutoencoder

    NetworkAutoencoder(MLPSpace(2, 1, 3, 2, ("tanh",)), 4).save(folder / "a.safetensors")
    return [folder / "a.safetensors"]


def autoencoder_read(folder: Path) -> object:
    from surefoot.architecture import NetworkAutoencoder

    found = NetworkAutoencoder.load(folder / "a.safetensors")
    return bits([found.config(), dict(found.state_dict())])


def protos() -> object:
    from surefoot.prototypes import extract_prototypes

    generator = torch.Generator().manual_seed(0)
    return extract_prototypes(
        torch.randn(24, 4, generator=generator),
        torch.arange(24) % 3,
        "cluster_var",
        encoder_id="toy",
    )


def upload(folder: Path) -> list[Path]:
    protos().save(folder / "u.npz")
    return [folder / "u.npz"]


def upload_read(folder: Path) -> object:
    from surefoot.prototypes import PrototypeSet

    found = PrototypeSet.load(folder / "u.npz")
    return bits([found.arrays(), found.about(), dict(found.counts)])


def site(folder: Path) -> list[Path]:
    from surefoot.prototypes._client.site import Site

    made = Site(folder, 0, (2, 7))
    made.write_spent(0.37, 1.25, 1e-5)
    made.keep(protos(), {"seed": 7})
    return [made.ledger, made.upload, made.upload.with_suffix(".notes.json")]


def site_read(folder: Path) -> object:
    from surefoot.prototypes._client.site import Site

    found = Site(folder, 0, (2, 7))
    sent, made_with = found.kept()
    facts = {name: known.all for name, known in sorted(sent.record.facts.items())}
    return bits([found.spent(), sent.arrays(), sent.about(), made_with, facts])


def features(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    np.savez(
        folder / "f.npz", features=rng.standard_normal((9, 4)).astype(np.float32), labels=np.arange(9) % 3,
        encoder=np.array("toy"),
    )  # fmt: skip
    return [folder / "f.npz"]


def features_read(folder: Path) -> object:
    from surefoot.prototypes._client.feature_file import read_features

    found = read_features(folder / "f.npz")
    return bits([found.features, found.labels, found.encoder, found.classes])


def embeddings(folder: Path) -> list[Path]:
    from surefoot.prototypes import text_embedding

    text_embedding._write(folder / "e.npz", embedding())
    return [folder / "e.npz"]


def embedding() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)


def embeddings_read(folder: Path) -> object:
    from surefoot.prototypes import text_embedding

    found = text_embedding._read(folder / "e.npz", 9)
    # What is damaged is embedded anew.
    return bits(embedding() if found is None else found)


def scales(folder: Path) -> list[Path]:
    from surefoot.reparam import Scales

    rows = torch.Generator().manual_seed(0)
    Scales({p: {b: torch.rand(5, generator=rows) for b in ("kxk", "identity")} for p in "ab"}).save(
        folder / "s.safetensors"
    )
    return [folder / "s.safetensors"]


def scales_read(folder: Path) -> object:
    from surefoot.reparam import Scales

    return bits(sorted(Scales.load(folder / "s.safetensors").arrays().items()))


def opacus(folder: Path) -> list[Path]:
    state = {
        "privacy_accountant_state_dict": {
            "history": [(1.1, 0.01, 300), (0.9, 0.02, 40)],
            "mechanism": "rdp",
        }
    }
    torch.save(state, folder / "c.pt")
    return [folder / "c.pt"]


def opacus_read(folder: Path) -> object:
    from surefoot.privacy.doors.opacus_history import from_opacus

    return repr(from_opacus(str(folder / "c.pt"), 1e-5, sampling="poisson"))


KINDS = {
    k.name: k
    for k in (
        Kind("step log", step_log, replayed),
        Kind("step log, a rate a step", lambda f: step_log(f, schedule=True), replayed),
        Kind("step log of format 1", old_step_log, old_replayed, unsealed="it has no checksum"),
        Kind("exported adapter", adapter, attached),
        Kind("GGUF model", gguf_model, gguf_read, unsealed="the format of others has no checksum"),
        Kind("chain state", chain, resumed),
        Kind("chain state of format 1", old_chain, old_resumed, unsealed="it has no checksum"),
        Kind("autoencoder", autoencoder, autoencoder_read),
        Kind("upload", upload, upload_read),
        Kind("site: ledger, upload, notes", site, site_read),
        Kind("features", features, features_read),
        Kind("embeddings cache", embeddings, embeddings_read, heals=True),
        Kind("scales", scales, scales_read),
        Kind("Opacus checkpoint", opacus, opacus_read),
    )
}
