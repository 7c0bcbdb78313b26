"""Small models of real architectures with a tokenizer of whole words, and a file that they can learn."""

import csv
import os
import random

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")
pytest.importorskip("peft", reason="needs the llm extra")

GOOD, BAD = ["fine", "great", "lovely", "superb"], ["awful", "poor", "dull", "dreadful"]
NEUTRAL = ["the", "film", "was", "a", "plot", "with", "actors", "and", "music"]
LABELS = ["Label:", "good", "bad"]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[END]", *GOOD, *BAD, *NEUTRAL, *LABELS]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", eos_token="[END]"
    )


def saved(model, folder):
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=24,
        )  # fmt: skip
        return saved(transformers.BertModel(config), tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=24, bos_token_id=None, eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
        return saved(transformers.LlamaForCausalLM(config), tmp_path_factory.mktemp("decoder"))


def sentences(count=80):
    """Sentences, no two the same, that say by one word what they are."""
    draw = random.Random(0)
    found = {}
    while len(found) < count:
        good = len(found) % 2 == 0
        words = draw.choices(NEUTRAL, k=6)
        words.insert(draw.randrange(6), draw.choice(GOOD if good else BAD))
        found.setdefault(" ".join(words), "good" if good else "bad")
    return list(found.items())


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(sentences())
    return path
