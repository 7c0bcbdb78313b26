"""Files of before there were checksums are read, with a warning; and what may be changed by hand may be."""

import json

import numpy as np
import pytest
import torch

for package in ("peft", "transformers", "flwr"):
    pytest.importorskip(package, reason="needs the extras")

from safetensors.torch import save_file
from tests.faults import formats

from surefoot import watch
from surefoot.errors import FileFormatError, WriteError
from surefoot.prototypes._client.site import Site
from surefoot.reparam import Scales

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        ".is_gradient_checkpointing:FutureWarning",
        "fan_in_fan_out is set:UserWarning",
        "Model has `tie_word_embeddings=True`:UserWarning",
    )
]
NO_CHECKSUM = (
    "of an older version, which wrote no checksum: a changed number in it cannot be noticed"
)


def test_scales(tmp_path):
    words = {"format": "surefoot.reparam.scales", "version": "1"}
    save_file({"a/kxk": torch.tensor([1.0, 2.0])}, tmp_path / "s", words)
    with pytest.warns(UserWarning, match=f"s is {NO_CHECKSUM}"):
        found = Scales.load(tmp_path / "s")
    assert found["a"]["kxk"].tolist() == [1.0, 2.0]
    found.save(tmp_path / "s")
    assert Scales.load(tmp_path / "s")["a"]["kxk"].tolist() == [1.0, 2.0]
    save_file({"a/kxk": torch.ones(1)}, tmp_path / "s", {"format": "other"})
    with pytest.raises(FileFormatError, match="holds other of version None"):
        Scales.load(tmp_path / "s")
    save_file({"kxk": torch.ones(1)}, tmp_path / "s", words)
    with (
        pytest.warns(UserWarning, match=NO_CHECKSUM),
        pytest.raises(FileFormatError, match="s: 'kxk' is not the name"),
    ):
        Scales.load(tmp_path / "s")


def test_the_ledger_and_the_notes_of_a_site(tmp_path):
    site = Site(tmp_path, 0, (2, 7))
    site.keep(formats.protos(), {"seed": 7})
    site.write_spent(0.5, 1.25, 1e-5)
    old = {"mu_squared": 0.5, "epsilon": 1.25, "delta": 1e-5, "dealt": [2, 7]}
    sealed = site.ledger.read_bytes()
    site.ledger.write_text(json.dumps(old, indent=1))
    with pytest.warns(UserWarning, match=f"ledger-0.json is {NO_CHECKSUM}"):
        assert site.spent() == 0.5
    # What is neither: a sealed one whose mark was taken off, a number changed in a sealed one.
    for wrong in (json.dumps(old | {"sha": ""}), sealed.replace(b"0.5", b"0.1").decode(), "[]"):
        site.ledger.write_text(wrong)
        with pytest.raises(
            FileFormatError, match=r"ledger-0.json is damaged .* nothing is released"
        ):
            site.spent()
    notes = tmp_path / "upload-0.notes.json"
    said = json.loads(notes.read_bytes())
    said["sha256"] = said.pop("upload")
    notes.write_text(json.dumps(said, indent=1))
    with pytest.warns(UserWarning, match=f"upload-0.notes.json is {NO_CHECKSUM}"):
        assert site.kept()[1] == {"seed": 7}


def test_an_adapter_may_be_renamed_and_not_rescaled(tmp_path):
    from surefoot.zeroth_order.quantised import attach

    weights, config = formats.adapter(tmp_path)
    said = json.loads(config.read_text())
    wanted = formats.attached(tmp_path)
    config.write_text(json.dumps(said | {"base_model_name_or_path": "elsewhere"}))
    assert formats.attached(tmp_path) == wanted
    config.write_text(json.dumps(said | {"lora_alpha": 99}))
    with pytest.raises(FileFormatError, match=r"adapter_config.json is not what was written with"):
        attach(formats.gpt2(), tmp_path / "adapter")
    # One of somebody else carries no digest, and is PEFT's to read.
    from safetensors.torch import load_file

    save_file(load_file(weights), weights, {"format": "pt"})
    config.write_text(json.dumps(said))
    assert formats.attached(tmp_path) == wanted


def test_an_archive_whose_parts_seem_compressed_or_encrypted(tmp_path):
    """What a flipped bit makes of an .npz: the archive's reader has errors of its own for it."""
    from surefoot.prototypes._client.feature_file import read_features

    path = formats.features(tmp_path)[0]
    content = path.read_bytes()
    central = content.rindex(b"PK\x01\x02")
    for at, bit in ((8, 1), (10, 1), (10, 8), (10, 12), (10, 14)):
        changed = bytearray(content)
        changed[central + at] ^= bit
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=r"f.npz is no .npz of plain arrays"):
            read_features(path)
    assert np.load(formats.features(tmp_path)[0])["labels"].tolist() == [0, 1, 2] * 3


def test_a_watched_training_keeps_its_last_good_checkpoint(tmp_path, monkeypatch):
    import os

    def full(descriptor):
        raise OSError(28, "No space left on device")

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=1, checkpoint=tmp_path / "w.pt"):
        for step in range(3):
            model(torch.ones(1, 2)).sum().backward()
            if step < 2:
                optimizer.step()
                continue
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(WriteError, match=r"w.pt could not be written \(No space left on"):
                optimizer.step()
    assert torch.load(tmp_path / "w.pt", weights_only=True)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]
