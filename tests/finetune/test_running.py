"""From a file to a tuned model: every method, what it saves, and the same again after a kill."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from surefoot import Verdict
from surefoot.finetune import METHODS, FinetuneConfig, finetune

transformers = pytest.importorskip("transformers", reason="needs the llm extra")
peft = pytest.importorskip("peft", reason="needs the llm extra")

from safetensors.torch import load_file

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def config(model, data, out, method, **more):
    given = {"steps": 12, "looks": 4, "batch": 4, "lr": 1e-3, "rank": 2, "patience": 10}
    return FinetuneConfig(str(model), data, method=method, out=out, **{**given, **more})


def weights(folder):
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_and_a_language_model_are_tuned_and_load_as_anybody_loads_them(
    method, encoder, decoder, reviews, tmp_path
):
    for model in (encoder, decoder):
        result = finetune(config(model, reviews, tmp_path / model.name, method))
        assert result.steps == 12
        assert result.sizes == {"train": 56, "validation": 12, "test": 12}
        assert result.best_step in (3, 6, 9, 12)
        (claim,) = [c for c in result.certificates if "saved file" in c.name]
        assert claim.verdict is Verdict.KEPT
        assert result.page.is_file()
        auto = transformers.AutoModelForSequenceClassification
        more = {"num_labels": 2}
        if model is decoder:
            auto, more = transformers.AutoModelForCausalLM, {}
        if result.saved.name == "adapter":
            loaded = peft.PeftModel.from_pretrained(
                auto.from_pretrained(model, **more), result.saved
            )
        else:
            loaded = auto.from_pretrained(result.saved)
        ids = torch.tensor([[3, 4, 5]])
        assert loaded.eval()(input_ids=ids).logits.isfinite().all()
        assert (result.folder / "steps.zo").exists() == (method in ("lozo", "lozo-m", "mezo"))
        assert not (result.folder / "state").exists()


COMMAND = [sys.executable, "-m", "surefoot", "finetune"]


def told(given):
    words = [given.model, str(given.data)]
    for name in ("method", "out", "steps", "looks", "batch", "lr", "rank", "patience"):
        words += [f"--{name}", str(getattr(given, name))]
    return [*COMMAND, *words, "--json"]


@pytest.mark.parametrize("method", ["lozo", "rac-lora", "full"])
def test_killed_in_the_middle_the_same_command_ends_with_the_same_bits(
    method, decoder, reviews, tmp_path
):
    """SIGKILL at a moment that no handler sees; the second command is the first once more."""
    whole = finetune(config(decoder, reviews, tmp_path / "whole", method, steps=40, looks=10))
    killed = config(decoder, reviews, tmp_path / "killed", method, steps=40, looks=10)
    with subprocess.Popen(
        told(killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 12 of 40"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    lines = []
    again = finetune(killed, lines.append)
    assert any(line.startswith("going on after step") for line in lines)
    first, second = weights(whole.saved), weights(again.saved)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    one, two = whole.to_dict(), again.to_dict()
    for name in ("validation", "test", "best_step", "steps"):
        assert one[name] == two[name]
