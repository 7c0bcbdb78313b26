"""From a file to a tuned model: every method, what it saves, and the same again after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from surefoot import Verdict
from surefoot.cli import main
from surefoot.finetune import METHODS, FinetuneConfig, FinetuneError, finetune

transformers = pytest.importorskip("transformers", reason="needs the llm extra")
peft = pytest.importorskip("peft", reason="needs the llm extra")

from safetensors.torch import load_file

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:mtime may not be reliable"
)


def config(model, data, out, method, **more):
    given = {"steps": 12, "looks": 4, "batch": 4, "lr": 1e-3, "patience": 10}
    if method not in ("full", "mezo"):
        given["rank"] = 2
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
        forward_only = method in ("lozo", "lozo-m", "mezo")
        # Of an encoder nobody else has the base.
        assert (result.folder / "steps.zo").exists() == (forward_only and model is decoder)
        assert not (result.folder / "state").exists()


def test_of_a_constant_that_nobody_measured_no_condition_is_said_to_fail(
    decoder, reviews, tmp_path
):
    result = finetune(config(decoder, reviews, tmp_path / "out", "rac-lora"))
    of_the_chain = [c for c in result.certificates if "saved file" not in c.name]
    assert of_the_chain
    for claim in of_the_chain:
        assert claim.verdict is Verdict.NOT_PROMISED
        assert "AdamW" in claim.reason
        assert "step size" not in claim.reason
        (step,) = [a for a in claim.assumptions if a.name == "step size"]
        assert (step.holds, step.how) == (None, "a constant of the problem is not told")


def test_the_card_says_how_to_load_it_and_with_which_classes(encoder, reviews, tmp_path):
    text = reviews.read_text(encoding="utf-8") + "the music was a plot,neither\n" * 1
    more = "".join(f"the plot was {w} {n},neither\n" for w in ("a", "and") for n in range(4))
    data = tmp_path / "three.csv"
    data.write_text(text + more, encoding="utf-8")
    result = finetune(config(encoder, data, tmp_path / "out", "lora"))
    card = (result.saved / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    found = {}
    exec(code, found)  # what a reader pastes
    model = found["model"].eval()
    assert model.config.id2label == {0: "bad", 1: "good", 2: "neither"}
    assert model(input_ids=torch.tensor([[3, 4]])).logits.shape == (1, 3)


def test_the_log_makes_the_saved_weights_again_also_where_the_best_came_early(
    decoder, reviews, tmp_path, capsys
):
    given = config(
        decoder, reviews, tmp_path / "out", "lozo", steps=30, looks=10, lr=3e-2, patience=3
    )
    result = finetune(given)
    assert result.best_step < result.steps
    card = (result.saved / "README.md").read_text(encoding="utf-8")
    command = card.split("into a new folder: `")[1].split("`")[0].split()
    assert command[:3] == ["surefoot", "zo", "replay"]
    again = tmp_path / "again"
    assert main([str(again) if word == "AGAIN" else word for word in command[1:]]) == 0
    first, second = weights(result.saved), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_worse_than_the_start_is_said_to_be(decoder, reviews, tmp_path):
    said = []
    given = config(decoder, reviews, tmp_path / "out", "full", steps=4, looks=2, lr=3.0)
    result = finetune(given, said.append)
    assert not result.gained
    assert result.to_dict()["gained"] is False
    assert any("not below that before training" in line for line in said)
    assert not any("best so far" in line for line in said)
    assert "Nothing was gained" in (result.saved / "README.md").read_text(encoding="utf-8")
    assert "the model as it was is better" in str(result)


COMMAND = [sys.executable, "-m", "surefoot", "finetune"]


def told(given):
    words = [given.model, str(given.data)]
    for name in ("method", "out", "steps", "looks", "batch", "lr", "rank", "patience"):
        if getattr(given, name) is not None:
            words += [f"--{name}", str(getattr(given, name))]
    return [*COMMAND, *words, "--json"]


# It may be hit in the middle of a checkpoint, which is then told of and not resumed from.
@pytest.mark.filterwarnings("ignore:.*half-written")
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


@pytest.mark.acceptance
@pytest.mark.parametrize("method", ["lozo", "rac-lora"])
def test_two_processes_are_one_up_to_rounding(method, decoder, reviews, tmp_path):
    one = finetune(config(decoder, reviews, tmp_path / "one", method, steps=16))
    two = config(decoder, reviews, tmp_path / "two", method, steps=16)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*start, "-m", "surefoot", *told(two)[3:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["steps"] == one.steps
    assert found["best_step"] == one.best_step
    assert found["validation"]["loss"] == pytest.approx(one.validation["loss"], abs=1e-4)
    first, second = weights(one.saved), weights(tmp_path / "two" / one.saved.name)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-3)


def test_several_processes_need_what_one_would_find(decoder, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = config(decoder, reviews, tmp_path / "out", "lozo")
    refused = [
        ({"method": None}, "--method must be given"),
        ({"lr": None}, "--lr must be given"),
        ({"batch": 3}, "multiple of the 2 processes"),
        ({"max_memory": 1.0}, "measured by one process"),
    ]
    for change, said in refused:
        with pytest.raises(FinetuneError, match=said):
            finetune(dataclasses.replace(given, **change))
    assert not (tmp_path / "out").exists()
