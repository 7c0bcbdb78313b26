"""Texts of several domains, and their embeddings by a small encoder of the same format as the real one."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from surefoot import data
from surefoot.data.wordnet import WordNet
from surefoot.errors import FileFormatError
from surefoot.prototypes.text_embedding import embed_texts, embedded, sentence_encoder
from surefoot.prototypes.texts import DomainTexts, domain_texts
from surefoot.prototypes.views import PHRASES, sentiment_domains, wordnet_views

LONG = "a sentence of use"


def nouns():
    """Six synsets a class: three could serve every view, one none but the definition."""
    rows = []
    for c, category in enumerate(PHRASES):
        own = [100 * c + i for i in range(6)]
        for i, offset in enumerate(own):
            word = f"{category}{i}"
            full = (
                offset, category, (word, f"{word} too"), tuple(own),
                f'meaning of {word}; "{LONG} {word}"; "and another"',
            )  # fmt: skip
            poor = (offset, category, (word,), tuple(own[:2]), f'meaning of {word}; "short"')
            kinds = (offset, category, (word,), tuple(own[:3]), f"meaning of {word}")
            rows.append({4: poor, 5: kinds}.get(i, full))
    rows.append((9999, "shape", ("square", "box"), (), "of another file"))
    columns = ["offset", "category", "lemmas", "hyponyms", "gloss"]
    return WordNet("3.1", pd.DataFrame(rows, columns=columns))


@pytest.fixture
def wordnet(monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, path=None: nouns())


def cell(texts, view, label):
    at = (texts.domains == texts.domain_names.index(view)) & (
        texts.labels == texts.classes.index(label)
    )
    return [texts.texts[i] for i in np.flatnonzero(at)]


def test_a_synset_serves_one_view_and_the_first_that_has_room(wordnet):
    found = wordnet_views(per_cell=1)
    assert len(found) == 4 * 15
    assert len(found.classes) == 15
    words = [t.split()[-1].split(",")[0] for t in found.texts]
    assert len(found.prompts) == 15
    assert {len(p) for p in found.prompts} == {5}
    assert cell(found, "example", "animal")[0].startswith(f"{LONG} animal")
    assert len(words) == len(found)
    many = wordnet_views(per_cell=60)
    assert [len(cell(many, v, "plant")) for v in many.domain_names] == [4, 1, 0, 1]
    assert cell(many, "kinds", "plant") == ["plant0, plant1, plant2"]
    assert cell(many, "definition", "plant") == ["meaning of plant4"]
    assert "of another file" not in many.texts


def test_views_follow_the_seed(wordnet):
    assert wordnet_views(2, seed=1).texts == wordnet_views(2, seed=1).texts
    assert wordnet_views(2, seed=1).texts != wordnet_views(2, seed=2).texts
    with pytest.raises(ValueError, match="per_cell"):
        wordnet_views(0)


def test_ratings_become_three_classes(tmp_path):
    ratings = [-2.0, -0.5, 0.5, 0.6] * 3
    frame = pd.DataFrame(
        {"text": [f"t{i}" for i in range(12)], "rating": ratings, "domain": ["a"] * 8 + ["b"] * 4}
    )
    frame.to_csv(tmp_path / "rated.csv", index=False)
    found = sentiment_domains(path=tmp_path / "rated.csv")
    assert found.classes == ("negative", "neutral", "positive")
    assert found.domain_names == ("a", "b")
    assert sorted(cell(found, "a", "neutral")) == ["t1", "t2", "t5", "t6"]
    assert cell(found, "b", "positive") == ["t11"]
    assert {len(p) for p in found.prompts} == {10}
    assert len(cell(sentiment_domains(1, path=tmp_path / "rated.csv"), "a", "neutral")) == 1


def test_a_table_of_ones_own(tmp_path):
    file = tmp_path / "mine.csv"
    rows = [("it broke", "bug", "mail"), ("add this", "wish", "form"), (" no ", "bug", "form")]
    pd.DataFrame(rows, columns=["Text", "LABEL", "domain"]).to_csv(file, index=False)
    found = domain_texts(file, ("about {}",))
    assert found.texts == ("it broke", "add this", "no")
    assert found.classes == ("bug", "wish")
    assert found.domain_names == ("form", "mail")
    assert found.labels.tolist() == [0, 1, 0]
    assert found.domains.tolist() == [1, 0, 0]
    assert found.prompts == (("about bug",), ("about wish",))
    with pytest.raises(ValueError, match="templates"):
        domain_texts(file, ("about it",))
    file.write_text("text,label\na,b\n")
    with pytest.raises(FileFormatError, match="domain"):
        domain_texts(file)
    file.write_text("text,label,domain\na,b,c\nd,,c\n")
    with pytest.raises(FileFormatError, match="'label' is empty in row 2"):
        domain_texts(file)
    file.write_text("text,label,domain\na,NA,c\n")
    with pytest.raises(
        FileFormatError, match="row 1; in a CSV the words NA, null, .* read as empty"
    ):
        domain_texts(file)
    file.write_text("text,label,domain\n")
    with pytest.raises(FileFormatError, match="no rows"):
        domain_texts(file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.array([0, 2])}, "labels must be 0 to 1"),
        ({"domains": np.array([0])}, "domains"),
        ({"prompts": (("a",), ("b", "c"))}, "prompts"),
        ({"prompts": (("a",),)}, "prompts"),
    ],
)
def test_texts_that_contradict_each_other(unchecked, changed, message):
    given = {
        "texts": ("x", "y"), "labels": np.array([0, 1]), "domains": np.array([0, 0]),
        "classes": ("a", "b"), "domain_names": ("d",), "prompts": (("a",), ("b",)),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        DomainTexts(**given | changed)


WORDS = ["the", "cat", "sat", "on", "mat", "dog", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of 2,000 weights in the format of sentence-transformers."""
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    where = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (where / "vocab.txt").write_text("\n".join(vocabulary))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(where)
    transformers.BertTokenizerFast(str(where / "vocab.txt")).save_pretrained(where)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [{"type": f"sentence_transformers.models.{k}"} for k in kinds]
    (where / "modules.json").write_text(json.dumps(modules))
    (where / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    (where / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    (where / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return where


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path))
    return tmp_path / "embeddings"


TEXTS = ["the cat sat on the mat", "a dog", "the dog sat on a cat on the mat on the mat", "cat"]


def test_embeddings_are_the_unit_mean_of_the_tokens(folder, cache):
    encoder, _ = sentence_encoder(folder)
    z, _ = embed_texts(TEXTS, folder, batch=3)
    for text, row in zip(TEXTS, z, strict=True):
        ids = encoder.tokenizer(text)["input_ids"]
        ids = [*ids[:7], ids[-1]] if len(ids) > 8 else ids
        hidden = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        mean = hidden.mean(0)
        torch.testing.assert_close(row, (mean / mean.norm()).detach(), rtol=1e-4, atol=1e-5)


def test_embeddings_are_kept_by_texts_and_encoder(folder, cache):
    said = []
    first, name = embed_texts(TEXTS, folder, progress=said.append)
    again, _ = embed_texts(TEXTS, folder, progress=said.append, batch=1)
    assert len(said) == 1
    assert "4 texts" in said[0]
    assert torch.equal(first, again)
    assert len(name) == 16
    assert len(list(cache.iterdir())) == 1
    embed_texts([*TEXTS[:3], "dog"], folder, progress=said.append)
    embed_texts(["".join(TEXTS[:2]), *TEXTS[2:]], folder, progress=said.append)
    assert len(said) == 3
    assert len(list(cache.iterdir())) == 3
    turned, _ = embed_texts(TEXTS[::-1], folder)
    torch.testing.assert_close(turned.flip(0), first)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"nothing of the kind"])
def test_a_damaged_file_is_embedded_anew(folder, cache, damage):
    first, _ = embed_texts(TEXTS, folder)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    again, _ = embed_texts(TEXTS, folder)
    assert torch.equal(first, again)
    assert kept.stat().st_size > 100


def test_another_encoder_has_another_name(folder, cache, tmp_path):
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    (other / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    a, b = embed_texts(TEXTS, folder), embed_texts(TEXTS, other)
    assert a[1] != b[1]
    assert not torch.equal(a[0], b[0])
    (other / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(FileFormatError, match="mean of tokens"):
        embed_texts(TEXTS, other)


def test_head_and_embeddings_of_a_table(folder, cache):
    source = DomainTexts(
        tuple(TEXTS), np.array([0, 1, 1, 0]), np.zeros(4, dtype=np.int64), ("cat", "dog"), ("d",),
        (("a cat", "the cat"), ("a dog", "the dog")),
    )  # fmt: skip
    z, head, _ = embedded(source, 10.0, folder)
    p, _ = embed_texts(["a dog", "the dog"], folder)
    expected = torch.nn.functional.normalize(p.mean(0), dim=0) * 10
    torch.testing.assert_close(head.weight[1], expected, rtol=1e-4, atol=1e-4)
    assert z.shape == (4, 8)


def test_bad_texts(folder, cache):
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts([], folder)
    with pytest.raises(ValueError, match="batch"):
        embed_texts(TEXTS, folder, batch=0)
