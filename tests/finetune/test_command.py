"""The command as it is typed: exit codes, one sentence for what cannot be done, and nothing written then."""

import json
import shutil

import pytest

from surefoot.cli import main
from surefoot.errors import NonFiniteError
from surefoot.finetune import FinetuneConfig, FinetuneError, finetune

pytest.importorskip("transformers", reason="needs the llm extra")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:mtime may not be reliable"
)


def lines(path, *rows):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


SHORT = [
    f"the film was {word},{label}" for word, label in (("fine", "a"), ("poor", "b")) for _ in "12"
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{model}", "{folder}/none.csv"], "none.csv is not a file"),
        (["{model}", "{folder}/columns.csv"], "has no column 'text'; it has 'words', 'stars'"),
        (["{model}", "{folder}/one.csv"], "every label is 'a'; there must be two classes"),
        (["{model}", "{folder}/empty.csv"], "row 2: the text is empty"),
        (["{model}", "{folder}/long.csv"], "have them cut by --max-length 24"),
        (["{model}", "{folder}/few.csv"], "too few for training, validation and test"),
        (["{model}", "{folder}/alone.csv"], "is an encoder and needs labels"),
        (["{folder}/nothing", "{data}"], "is no model: neither a folder, nor a .gguf file"),
        (["{folder}/hollow", "{data}"], "is no model"),
        (["{folder}/adapter", "{data}"], "is an adapter; merge it into its base model first"),
        (["{folder}/t5", "{data}"], "has an encoder and a decoder"),
        (["{model}", "{data}", "--quantised", "True"], "--quantised needs a GGUF file"),
        (["{model}", "{data}", "--quantised", "True", "--method", "lora"], "needs method lozo or lozo-m"),
        (["{model}", "{data}", "--method", "lora", "--max-memory", "0.01"], "nothing fits the 0.01 GiB"),
        (["{model}", "{data}", "--batch", "0"], "--batch"),
        (["{model}", "{data}", "--lr", "-1"], "--lr must be positive"),
        (["{model}", "{data}", "--validation", "0.7", "--test", "0.4"], "must leave texts to train on"),
        (["{model}", "{data}", "--prompt", "Label:"], "must hold {text}"),
        (["{model}", "{data}", "--prompt", "{text} Label:"], "is an encoder: leave it out"),
        (["{decoder}", "{data}", "--prompt", "{text} {x}"], "no other place to be filled in"),
        (["{decoder}", "{data}", "--prompt", "{text {text}"], "no other place to be filled in"),
        (["{model}", "{data}", "--max-length", "25"], "is more than the 24 tokens that the model takes"),
        (["{model}", "{data}", "--method", "full", "--rank", "4"], "has no use with method full"),
        (["{model}", "{folder}/semicolons.csv"], "has ';' between its columns"),
        (["{folder}/mute", "{data}"], "has no tokenizer"),
        (["{folder}/torn", "{data}", "--method", "full"], "cannot be loaded"),
        (["{model}", "{data}", "--out", "{folder}/other"], "was not made by a fine-tuning"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(
    words, said, encoder, decoder, reviews, tmp_path, capsys, monkeypatch
):
    lines(tmp_path / "columns.csv", "words,stars", "a,1", "b,2")
    lines(tmp_path / "one.csv", "text,label", "a,a", "b,a")
    lines(tmp_path / "empty.csv", "text,label", "a,a", ",b")
    long = " ".join(["film"] * 25)
    lines(
        tmp_path / "long.csv",
        "text,label",
        f"{long},a",
        *(f"film {i} was,{'ab'[i % 2]}" for i in range(18)),
    )
    lines(tmp_path / "few.csv", "text,label", *SHORT)
    lines(tmp_path / "alone.csv", "text", "a", "b", "c", "d", "e", "f", "g", "h")
    lines(tmp_path / "semicolons.csv", "text;label", "a;a", "b;b")
    for name in ("mute", "torn"):
        shutil.copytree(encoder, tmp_path / name)
    for file in (tmp_path / "mute").glob("tokenizer*"):
        file.unlink()
    torn = tmp_path / "torn" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    for name in ("hollow", "adapter", "t5", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "t5" / "config.json").write_text(
        '{"is_encoder_decoder": true, "architectures": ["T5"]}'
    )
    (tmp_path / "other" / "file").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    places = {"model": encoder, "decoder": decoder, "data": reviews, "folder": tmp_path}
    filled = words
    for name, place in places.items():
        filled = [w.replace(f"{{{name}}}", str(place)) for w in filled]
    assert main(["finetune", *filled]) == 2
    out, err = capsys.readouterr()
    assert not out
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1
    assert said in sentences[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_rate_is_found_and_the_finished_folder_is_not_trained_again(
    encoder, reviews, tmp_path, capsys
):
    words = [
        "finetune",
        str(encoder),
        str(reviews),
        "--method",
        "full",
        "--steps",
        "8",
        "--looks",
        "2",
    ]
    words += ["--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    first = json.loads(out)
    assert first["method"] == "full"
    assert len(first["tried"]) >= 4
    lowest = min((k for k, v in first["tried"].items() if v is not None), key=first["tried"].get)
    assert float(lowest) == pytest.approx(first["lr"])
    assert "learning rates are tried" in err
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == first
    assert "is finished; nothing is left to do" in err
    assert main([*words, "--seed", "1"]) == 2
    assert "belongs to a fine-tuning with --seed 0, not 1" in capsys.readouterr().err


def test_a_model_that_was_taken_away_is_not_said_to_be_saved(encoder, reviews, tmp_path):
    given = FinetuneConfig(
        str(encoder), reviews, method="full", out=tmp_path / "out", steps=2, lr=1e-3, batch=4
    )
    shutil.rmtree(finetune(given).saved)
    with pytest.raises(FinetuneError, match="is gone since it was saved"):
        finetune(given)


def test_a_folder_goes_on_with_the_file_that_it_began_with(encoder, reviews, tmp_path):
    data = tmp_path / "reviews.csv"
    shutil.copy(reviews, data)
    given = FinetuneConfig(
        str(encoder), data, method="lora", out=tmp_path / "out", steps=2, lr=1e-3, batch=4
    )
    finetune(given)
    with data.open("a") as file:
        file.write("the film was fine again,good\n")
    with pytest.raises(FinetuneError, match="is another file than the one"):
        finetune(given)


def test_a_rate_at_which_the_loss_diverges_is_named_and_no_mean_hides_it(
    decoder, reviews, tmp_path
):
    given = FinetuneConfig(
        str(decoder), reviews, method="full", out=tmp_path / "out", steps=30, lr=1e30, batch=4
    )
    with pytest.raises(NonFiniteError, match="try a lower --lr"):
        finetune(given)
    assert not (tmp_path / "out" / "result.json").exists()


def test_without_a_method_each_is_measured_and_the_choice_is_explained(
    encoder, reviews, tmp_path, monkeypatch
):
    """What a process takes is planted here; that it is measured at all, the next test sees."""
    from surefoot.finetune import choosing

    peaks = {
        "lora": 3.0,
        "rac-lora": 3.1,
        "cola": 3.1,
        "full": 4.0,
        "lozo": 1.0,
        "lozo-m": 1.1,
        "mezo": 1.2,
    }

    def measured(config, candidate):
        return choosing.Candidate(
            candidate.method, candidate.quantised, int(peaks[candidate.method] * 2**30), 0.1
        )

    monkeypatch.setattr(choosing, "measure", measured)
    said = []
    config = FinetuneConfig(
        str(encoder), reviews, out=tmp_path / "out", steps=4, lr=1e-3, batch=4, max_memory=2.0
    )
    assert finetune(config, said.append).method == "lozo"
    (why,) = [line for line in said if "is taken" in line]
    assert "it fits the 2 GiB given, and lora, rac-lora, cola, full do not" in why
    shutil.rmtree(tmp_path / "out")
    peaks["lora"] = 1.9
    assert finetune(config, said.append).method == "lora"


def test_a_step_is_measured_in_a_process_of_its_own(encoder, reviews):
    from surefoot.finetune.choosing import EVALUATION, Candidate, measure

    config = FinetuneConfig(str(encoder), reviews, batch=4)
    alone, lozo = (measure(config, Candidate(m, False)) for m in (EVALUATION, "lozo"))
    assert alone.failed is None
    assert lozo.failed is None
    assert lozo.seconds > 0
    # Both hold the libraries, which are far larger than this model.
    assert 0.8 < lozo.peak / alone.peak < 1.25
    gone = FinetuneConfig(str(encoder), reviews.with_name("gone.csv"))
    assert "is not a file" in (measure(gone, Candidate("lozo", False)).failed or "")
