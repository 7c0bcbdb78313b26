"""The paper's language tasks on a small encoder and small texts: the same code, by path."""

import pandas as pd
import pytest
import torch

from surefoot import Record
from surefoot.lora.experiments import glue
from surefoot.lora.study import STUDY, LoraConfig

transformers = pytest.importorskip("transformers", reason="needs the llm extra")
WORDS = (["dull", "cold", "dreadful", "grey"], ["bright", "warm", "lovely", "green"])


def frame(count, pairs):
    rows = []
    for i in range(count):
        y = i % 2
        words = [WORDS[y][(i // 2 + k) % 4] for k in range(3)]
        row = {"sentence1": " ".join(words), "label": y}
        rows.append(row | ({"sentence2": WORDS[y][i % 4]} if pairs else {}))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BERT of one layer with random weights, a word tokenizer, and pairs of sentences."""
    model, data = (tmp_path_factory.mktemp(name) for name in ("bert", "task"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[0], *WORDS[1]]
    (model / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(model / "vocab.txt")).save_pretrained(model)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=glue.LENGTH, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(model)
    frame(60, pairs=True).to_csv(data / "train.tsv", sep="\t", index=False)
    frame(20, pairs=True).to_csv(data / "validation.tsv", sep="\t", index=False)
    return model, data


@pytest.mark.acceptance
def test_every_method_runs_and_the_easy_task_is_learnt(folders, monkeypatch):
    monkeypatch.setattr(glue, "LENGTH", 12)
    monkeypatch.setattr(glue, "BLOCKS", 2)
    monkeypatch.setattr(glue, "BATCH", 6)
    monkeypatch.setitem(glue.EPOCHS, "quick", 5)
    monkeypatch.setitem(glue.ADAPTER_RATES, "quick", (1e-2, 3e-2))
    monkeypatch.setitem(glue.FULL_RATES, "quick", (1e-2, 3e-2))
    record = Record()
    config = LoraConfig(encoder=folders[0], labelled=folders[1], part=("glue",))
    glue.run(config, 0, record)
    (table,) = glue.tables(config, record).values()
    found = table.set_index("method")
    assert set(found.index) == set(glue.METHODS)
    assert found.loc["lora", "test accuracy"] > 0.9
    assert found.loc["rac_lora", "trainable numbers"] < found.loc["lora", "trainable numbers"]


def test_rows_are_apart_and_the_rest_is_refused(folders):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0])
    data = glue.splits(LoraConfig(encoder=folders[0], labelled=folders[1]), tokenizer)
    assert (data["test"].fields["token_type_ids"] == 1).any()
    single = glue.Rows(
        frame(4, pairs=False).rename(columns={"sentence1": "text"}).assign(second=""), tokenizer
    )
    assert not (single.fields["token_type_ids"] == 1).any()
    assert {k: len(v) for k, v in data.items()} == {"train": 54, "val": 6, "test": 20}
    with pytest.raises(ValueError, match="part glue needs --labelled"):
        glue.run(LoraConfig(encoder=folders[0]), 0, Record())
    assert "glue" not in [p.name for p in STUDY.chosen(LoraConfig(size="paper"))]
