"""The paper's own setting on a small masked language model and a small task: the same code, by path."""

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot import Record
from surefoot.zeroth_order.experiments import few_shot
from surefoot.zeroth_order.study import STUDY, ZerothOrderConfig

transformers = pytest.importorskip("transformers", reason="needs the llm extra")
WORDS = {1: ("bright", "warm", "lovely"), 0: ("dull", "cold", "dreadful")}


def rows(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = [" ".join(rng.choice(WORDS[int(y)], 4)) for y in labels]
    return pd.DataFrame({"sentence": texts, "label": labels})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A RoBERTa of two layers with random weights and its tokenizer; sentences whose words tell the class."""
    from tokenizers import ByteLevelBPETokenizer

    model, data = (tmp_path_factory.mktemp(name) for name in ("roberta", "sst2"))
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = ByteLevelBPETokenizer()
    corpus = [*rows(200, 9)["sentence"], *["It was great.", "It was terrible."] * 50]
    bpe.train_from_iterator(corpus, vocab_size=400, min_frequency=1, special_tokens=special)
    bpe.save_model(str(model))
    tokenizer = transformers.RobertaTokenizerFast(
        str(model / "vocab.json"), str(model / "merges.txt"), model_max_length=140
    )
    tokenizer.save_pretrained(model)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=140,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(model)
    rows(80, 0).to_csv(data / "train.tsv", sep="\t", index=False)
    rows(60, 1).to_csv(data / "dev.tsv", sep="\t", index=False)
    return model, data


def config_of(folders, **changes):
    options = {"masked_model": folders[0], "labelled": folders[1], "part": ("few-shot",)}
    return ZerothOrderConfig(**(options | changes))


def test_the_mask_is_read_and_the_splits_are_apart(folders):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0])
    task = few_shot.prepare(config_of(folders), tokenizer, seed=0)
    assert {k: len(v["y"]) for k, v in task.rows.items()} == {"train": 32, "val": 32, "test": 60}
    for split in task.rows.values():
        at = split["ids"][torch.arange(len(split["y"])), split["at"]]
        assert (at == tokenizer.mask_token_id).all()
    assert tokenizer.decode(task.words[1]).strip() == "great"
    other = few_shot.prepare(config_of(folders), tokenizer, seed=1)
    assert torch.equal(task.rows["test"]["ids"], other.rows["test"]["ids"])
    assert not torch.equal(task.rows["train"]["ids"], other.rows["train"]["ids"])


@pytest.mark.acceptance
def test_arms_are_tuned_tested_and_reported(folders, monkeypatch):
    monkeypatch.setattr(few_shot, "LENGTH", 32)
    monkeypatch.setattr(few_shot, "LOOKS", 4)
    monkeypatch.setattr(few_shot, "GRID", (1e-4, 1e-3))
    monkeypatch.setattr(few_shot, "FULL_GRID", (3e-3, 1e-2))
    monkeypatch.setattr(few_shot, "METHODS", ("LOZO", "AdamW"))
    monkeypatch.setitem(few_shot.STEPS, "quick", 60)
    record, config = Record(), config_of(folders)
    few_shot.run(config, 0, record)
    (table,) = few_shot.tables(config, record).values()
    found = table.set_index("method")
    assert list(found.index) == ["zero-shot", "LOZO", "AdamW"]
    # Of two candidates either is an end of the grid.
    assert found.loc["AdamW", "tuning"].startswith("1 of 1 at the ")
    # Words that tell the class: back-propagation learns them from 32 sentences.
    assert found.loc["AdamW", "test accuracy"] > 0.9
    assert found.loc["zero-shot", "test accuracy"] < 0.8


def test_forward_passes_alone_lower_the_loss(folders, monkeypatch):
    monkeypatch.setattr(few_shot, "LENGTH", 32)
    monkeypatch.setattr(few_shot, "LOOKS", 4)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folders[0]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0])
    task = few_shot.prepare(config_of(folders), tokenizer, seed=0)
    start = few_shot.Prompted(model, task.words)
    before = few_shot.evaluate(start, task, "val")[0]
    for method in few_shot.METHODS[:-1]:
        rate = 1e-4 if method == "ZO-Adam" else 1e-3
        _, after = few_shot.train(method, rate, 12, 0, start, task)
        assert after < before
    assert few_shot.evaluate(start, task, "val")[0] == before


def test_what_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="part few-shot needs --masked-model"):
        few_shot.run(config_of(folders, masked_model=None), 0, Record())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0])
    with pytest.raises(ValueError, match="training rows of class 0; shots = 30 needs 60"):
        few_shot.prepare(config_of(folders, shots=30), tokenizer, 0)
    with pytest.raises(ValueError, match="task must be one of .sst2"):
        ZerothOrderConfig(task="sts")
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="no mask token"):
        few_shot.prepare(config_of(folders), tokenizer, 0)


def test_it_runs_only_when_it_is_asked_for(folders):
    assert "few-shot" not in [p.name for p in STUDY.chosen(ZerothOrderConfig(size="paper"))]
    assert [p.name for p in STUDY.chosen(config_of(folders))] == ["few-shot"]
