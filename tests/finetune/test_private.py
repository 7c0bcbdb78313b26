"""Private fine-tuning: what leaves, what is promised, and what is refused before anything is loaded."""

import json
import math

import pytest
import torch

from surefoot.errors import ArgumentError
from surefoot.finetune import FinetuneConfig, finetune
from surefoot.finetune.errors import FinetuneError

pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable")
pytest.importorskip("opacus", reason="needs the privacy extra")
pytest.importorskip("dp_accounting", reason="needs the privacy extra")


def config(model, data, out, **how):
    chosen = {
        "method": "lozo", "private": 4.0, "delta": 1e-3, "steps": 12, "batch": 8, "looks": 3,
        "test": 0.2, **how,
    }  # fmt: skip
    return FinetuneConfig(str(model), str(data), out=str(out), **chosen)


def by_claim(result):
    return {c.details.get("claim", c.name): c for c in result.certificates}


@pytest.mark.parametrize("method", ["lozo", "lozo-m", "mezo", "lora"])
def test_each_method_keeps_its_epsilon_and_saves_what_loads(encoder, reviews, tmp_path, method):
    from surefoot.privacy import standard

    said = []
    result = finetune(config(encoder, reviews, tmp_path / "out", method=method), say=said.append)
    claims = by_claim(result)
    epsilon = claims["P"].details["epsilon"]
    assert 3.99 < epsilon <= 4.0
    # Nobody has audited this run: the claim cannot be more than not refuted.
    assert claims["P"].verdict == "UNDECIDED"
    assert "not audited" in claims["P"].reason
    assert all(a.holds for a in claims["P"].assumptions), claims["P"].summary()
    told = next(line for line in said if line.startswith("private:"))
    sigma = float(told.split("noise multiplier ")[1].split(",")[0])
    rate = 8 / result.sizes["train"]
    assert standard(sigma, rate, 12).epsilon(1e-3).value == pytest.approx(epsilon, rel=1e-3)
    saved = claims["the saved file is the model that was measured"]
    assert saved.verdict == "KEPT", saved.summary()
    if method != "lora":
        assert claims["H"].verdict == "NOT_PROMISED"


def test_nothing_of_the_training_texts_is_written_but_through_the_mechanism(
    decoder, reviews, tmp_path
):
    result = finetune(config(decoder, reviews, tmp_path / "out"))
    assert result.tried == {}
    assert result.best_step == result.steps == 12
    kept = json.loads((tmp_path / "out" / "result.json").read_text())
    assert "training loss" not in json.dumps(kept)
    card = (result.saved / "README.md").read_text()
    assert "had the lowest validation loss" not in card
    assert "private" in card
    pages = "".join(p.read_text() for p in (tmp_path / "out" / "report").rglob("*.html"))
    assert "training loss" not in pages


def test_two_runs_of_one_seed_are_not_the_same(encoder, reviews, tmp_path):
    from safetensors.torch import load_file

    for method, file in (("lozo", "model.safetensors"), ("lora", "adapter_model.safetensors")):
        ends = []
        for name in ("one", "two"):
            out = tmp_path / f"{method} {name}"
            ends.append(
                load_file(finetune(config(encoder, reviews, out, method=method)).saved / file)
            )
        assert any(not torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


@pytest.mark.parametrize("method", ["lozo", "lora"])
def test_an_interrupted_run_goes_on_and_counts_every_step_once(
    encoder, reviews, tmp_path, method, monkeypatch
):
    from surefoot.finetune.doors import private_training

    asked = config(encoder, reviews, tmp_path / "out", method=method)
    kept = private_training.PrivateTraining._keep

    def once(training):
        kept(training)
        raise KeyboardInterrupt

    monkeypatch.setattr(private_training.PrivateTraining, "_keep", once)
    with pytest.raises(KeyboardInterrupt):
        finetune(asked)
    monkeypatch.undo()
    said = []
    result = finetune(asked, say=said.append)
    assert "going on after step 4" in said
    claim = by_claim(result)["P"]
    assert 3.99 < claim.details["epsilon"] <= 4.0
    assert claim.verdict == "UNDECIDED", claim.summary()


def test_an_empty_batch_of_gradients_is_noise_alone(encoder, reviews, tmp_path):
    # A text is in a step with probability 1/52: about a third of the batches are empty.
    result = finetune(config(encoder, reviews, tmp_path / "out", method="lora", batch=1))
    assert math.isfinite(result.validation["loss"])


def test_the_gradient_of_a_text_that_is_not_finite_is_left_out():
    from surefoot.finetune.doors.private_training import _drop_not_finite

    p, q = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    p.grad_sample = torch.tensor([[1.0, 2.0], [math.nan, 1.0], [3.0, 4.0]])
    q.grad_sample = torch.tensor([[1.0], [1.0], [math.inf]])
    _drop_not_finite([p, q])
    assert p.grad_sample.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert q.grad_sample.tolist() == [[1], [0], [0]]


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"private": 0.0}, "private"),
        ({"private": -1.0}, "private"),
        ({"private": math.nan}, "private"),
        ({"delta": None}, "delta"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"clip": 0.0}, "clip"),
        ({"private": None}, "delta has no use"),
        ({"private": None, "delta": None, "clip": 1.0}, "clip has no use"),
    ],
)
def test_numbers_of_the_mechanism_are_refused_by_name(encoder, reviews, tmp_path, how, named):
    with pytest.raises(ArgumentError, match=named):
        config(encoder, reviews, tmp_path / "out", **how)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"method": None}, "--method must be given with --private"),
        ({"method": "full"}, "cannot be private"),
        ({"method": "rac-lora"}, "cannot be private"),
        ({"method": "cola"}, "cannot be private"),
        ({"max_memory": 4.0}, "--max-memory"),
        ({"delta": 0.5}, "--delta must be well below 1 / "),
    ],
)
def test_what_cannot_be_private_is_refused_and_nothing_is_written(
    encoder, reviews, tmp_path, how, match
):
    with pytest.raises(FinetuneError, match=match):
        finetune(config(encoder, reviews, tmp_path / "out", **how))
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(encoder, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FinetuneError, match="needs one process"):
        finetune(config(encoder, reviews, tmp_path / "out"))


def test_the_clip_is_found_on_made_up_sentences_and_not_on_the_file(decoder, reviews, tmp_path):
    def told(data, name):
        said = []
        asked = config(decoder, data, tmp_path / name, steps=1)
        finetune(asked, say=said.append)
        line = next(each for each in said if each.startswith("private:"))
        return line.split("clip ")[1].split(",")[0]

    other = tmp_path / "other.csv"
    lines = reviews.read_text().splitlines()
    other.write_text("\n".join([lines[0], *lines[21:61]]))
    assert float(told(reviews, "one")) > 0
    assert told(reviews, "two") == told(other, "three")


def test_whoever_gets_the_model_reads_its_epsilon(encoder, reviews, tmp_path):
    result = finetune(config(encoder, reviews, tmp_path / "out", steps=3))
    for text in (str(result), (result.saved / "README.md").read_text()):
        assert "epsilon 4 at delta 0.001 for each training text" in text
        assert "best after" not in text


def test_patience_has_no_use_where_the_last_step_is_kept(encoder, reviews, tmp_path):
    with pytest.raises(ArgumentError, match="patience has no use with private"):
        config(encoder, reviews, tmp_path / "out", patience=3)


def test_other_texts_than_were_drawn_are_no_poisson_batch(encoder, reviews, tmp_path, monkeypatch):
    from surefoot.finetune.doors import private_training

    batch = private_training.PrivateTraining._batch
    monkeypatch.setattr(
        private_training.PrivateTraining, "_batch", lambda self, rows: batch(self, [*rows, rows[0]])
    )
    for method in ("lora", "lozo"):
        result = finetune(config(encoder, reviews, tmp_path / method, method=method, steps=4))
        claim = by_claim(result)["P"]
        assert claim.verdict == "NOT_PROMISED"
        assert "Poisson sampling fails" in claim.reason


def test_a_seeded_noise_of_gradients_is_no_secret(encoder, reviews, tmp_path, monkeypatch):
    from surefoot.finetune.doors import private_training

    monkeypatch.setattr(
        private_training, "secret_generator", lambda: torch.Generator().manual_seed(0)
    )
    result = finetune(config(encoder, reviews, tmp_path / "out", method="lora", steps=3))
    claim = by_claim(result)["P"]
    assert claim.verdict == "NOT_PROMISED"
    assert "secret noise fails" in claim.reason


PLAIN = {"private": None, "delta": None, "lr": 1e-3}


@pytest.mark.parametrize(
    ("method", "how"),
    [("lozo", {}), ("lora", {}), ("lozo", PLAIN), ("lora", PLAIN), ("rac-lora", PLAIN)],
)
def test_every_verdict_of_a_fine_tuning_is_reached_anew(
    encoder, reviews, tmp_path, capsys, method, how
):
    from surefoot.cli import main

    result = finetune(config(encoder, reviews, tmp_path / "out", method=method, seed=3, **how))
    (run,) = (tmp_path / "out" / "report" / "finetune").glob("2*")
    capsys.readouterr()
    assert main(["verify", str(run), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["certificates"]
    assert [c["name"] for c in compared] == [c.name for c in result.certificates]
    assert all(c["stored"] == c["again"] and not c["differs"] for c in compared)
