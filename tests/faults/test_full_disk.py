"""A full disk where surefoot writes: one sentence that names the file, and nothing half-written left."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the llm extra")
ROOT = Path(__file__).parents[2]

# A limit on file sizes answers as a full disk does, from the same places; a file of 4 KB still fits.
SCRIPT = """
import resource, sys, warnings
from pathlib import Path
import torch
from torch import nn
from surefoot import watch
from surefoot.errors import WriteError
from surefoot.lora import RacCallback
from surefoot.zeroth_order import LOZO
from tests.faults import formats, trainings

warnings.simplefilter("ignore")
here = Path(sys.argv[1])
big = nn.Linear(80, 80)


def a_log():
    optimizer = LOZO(big, 1e-3, rank=1, num_directions=40, log=str(here / "run.zo"))
    for _ in range(200):
        optimizer.step(lambda: big(torch.ones(1, 80)).square().sum())


def a_chain():
    formats.chain(here)


def watched():
    optimizer = torch.optim.SGD(big.parameters(), 0.1)
    with watch(big, optimizer, every=1, checkpoint=here / "watched.pt"):
        big(torch.ones(1, 80)).sum().backward()
        optimizer.step()


def a_checkpoint(kind):
    trainer = trainings.MAKE[kind](here / kind, max_steps=2)
    trainer.train()


def an_upload():
    from surefoot.prototypes import extract_prototypes
    z = torch.randn(200, 60, generator=torch.Generator().manual_seed(0))
    extract_prototypes(z, torch.arange(200) % 3, "random", 1.0).save(here / "upload.npz")


def an_adapter():
    formats.adapter(here)


def scales():
    from surefoot.reparam import Scales
    Scales({"a": {"kxk": torch.ones(9000)}}).save(here / "scales.safetensors")


def an_autoencoder():
    from surefoot.architecture import MLPSpace, NetworkAutoencoder
    NetworkAutoencoder(MLPSpace(2, 1, 3, 2, ("tanh",)), 4).save(here / "autoencoder.safetensors")


ways = {
    "run.zo": a_log, "chain_state.safetensors": a_chain, "watched.pt": watched,
    "checkpoint-2": lambda: a_checkpoint("zo"), "upload.npz": an_upload, "scales.safetensors": scales,
    "adapter_model.safetensors": an_adapter, "autoencoder.safetensors": an_autoencoder,
    "rac/checkpoint-2": lambda: a_checkpoint("rac"),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for name, way in ways.items():
    try:
        way()
        print(name, "|", "written")
    except WriteError as error:
        print(name, "|", error)
    except Exception as error:
        print(name, "|", type(error).__name__, error)
"""


@pytest.mark.acceptance
def test_one_sentence_and_nothing_left(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert len(said) == 9, done.stdout
    for name, sentence in said.items():
        assert sentence.startswith(str(tmp_path)), (name, sentence)
        assert name in sentence
        assert "could not be written (" in sentence
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    # Of a checkpoint under a Trainer of others what it wrote stays, and is set aside when it is resumed.
    assert {p for p in left if not p.startswith("rac/checkpoint-2/")} <= {
        "chain/lora/adapter_config.json", "run.zo", "zo/run.zo",
    }  # fmt: skip
    assert not [p for p in left if p.endswith(".part")]
    assert not (tmp_path / "zo" / "checkpoint-2").exists()
