"""Tokens, padding and measures against plain loops over single texts."""

import math
import shutil

import pytest
import torch

from surefoot import Verdict
from surefoot.finetune import FinetuneError, read_texts
from surefoot.finetune.models import find_model
from surefoot.finetune.promises import AGAIN, SEEN, saved_is_measured
from surefoot.record import Record

transformers = pytest.importorskip("transformers", reason="needs the llm extra")

from surefoot.finetune.config import PROMPT
from surefoot.finetune.doors.opening import Opener, task_for

PROMPTED = "the film {text} Label:"


def opened(folder, reviews, label="label", cut=None, prompt=PROMPT):
    """A task, and what opens its model."""
    texts = read_texts(reviews, "text", label)
    source = find_model(str(folder))
    task = task_for(source, texts.split(0.2, 0.2, 0), prompt, cut)
    return task, Opener(source, task, 0)


def test_a_head_is_measured_as_a_loop_over_texts_measures_it(encoder, reviews):
    task, opener = opened(encoder, reviews)
    model = opener.open().eval()
    loss, right = 0.0, 0
    texts = task.texts["validation"]
    for text, label in zip(texts.texts, texts.labels, strict=True):
        logits = model(**task.tokenizer(text, return_tensors="pt")).logits[0].detach().double()
        loss -= float(logits.log_softmax(0)[label])
        right += int(logits.argmax()) == label
    found = task.measure(model, "validation", 5)
    assert found["loss"] == pytest.approx(loss / len(texts), rel=1e-5)
    assert found["accuracy"] == right / len(texts)


def test_a_new_head_is_fitted_to_the_training_texts_alone(encoder, reviews):
    task, opener = opened(encoder, reviews)
    fitted = task.measure(opener.open(), "train", 16)["loss"]
    # A head at zero has the entropy of two equally frequent classes, and is within reach.
    assert fitted < math.log(2)
    task.examples["validation"] = task.examples["test"] = []
    other = Opener(opener.source, task, 0)
    for one, two in zip(opener.open().parameters(), other.open().parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_prompt_is_measured_as_a_loop_over_texts_and_labels_measures_it(decoder, reviews):
    task, opener = opened(decoder, reviews, prompt=PROMPTED)
    assert task.short
    model = opener.open()
    loss, right = 0.0, 0
    texts = task.texts["validation"]
    for text, label in zip(texts.texts, texts.labels, strict=True):
        scores = []
        for word in task.classes:
            prompt = task.tokenizer(f"the film {text} Label:", return_tensors="pt")["input_ids"]
            after = task.tokenizer(f" {word}", return_tensors="pt")["input_ids"]
            whole = torch.cat([prompt, after], 1)
            logits = model(input_ids=whole).logits[0].detach().double().log_softmax(1)
            at = range(prompt.shape[1] - 1, whole.shape[1] - 1)
            scores.append(sum(logits[i, whole[0, i + 1]] for i in at))
        among = torch.stack(scores).log_softmax(0)
        loss -= float(among[label])
        right += int(among.argmax()) == label
    found = task.measure(model, "validation", 5)
    assert found["loss"] == pytest.approx(loss / len(texts), rel=1e-5)
    assert found["accuracy"] == right / len(texts)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_loss_of_the_last_positions_is_that_of_the_model_itself(kind, decoder, reviews):
    """Padded on the left and asked for few logits, or padded on the right and asked for all."""
    task, _ = opened(decoder, reviews)
    sizes = {"vocab_size": 32, "bos_token_id": 2, "eos_token_id": 2}
    torch.manual_seed(0)
    made = {
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes
            )
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=24, **sizes)
        ),
        "qwen2": lambda: transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                intermediate_size=32, **sizes,
            )
        ),
    }  # fmt: skip
    model = made[kind]().eval()
    rows = task.examples["train"][:6]
    rows = [{k: v[i % 3 :] for k, v in row.items()} for i, row in enumerate(rows)]
    with torch.no_grad():
        short = task.loss(model, task.collate(rows))
        task.short = False
        whole = task.loss(model, task.collate(rows))
    assert float(short) == pytest.approx(float(whole), rel=1e-5)


def test_texts_alone_are_measured_token_by_token(decoder, reviews, tmp_path):
    path = tmp_path / "alone.csv"
    rows = reviews.read_text(encoding="utf-8").splitlines()[1:]
    path.write_text("text\n" + "\n".join(r.rsplit(",", 1)[0] for r in rows), encoding="utf-8")
    task, opener = opened(decoder, path, label=None)
    model = opener.open()
    total, count = 0.0, 0
    for text in task.texts["test"].texts:
        ids = torch.tensor([[*task.tokenizer(text)["input_ids"], task.tokenizer.eos_token_id]])
        logits = model(input_ids=ids).logits[0, :-1].detach().double().log_softmax(1)
        total -= float(logits.gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    found = task.measure(model, "test", 3)
    assert found["loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_cut_is_the_text_and_never_the_question(decoder, reviews):
    task, _ = opened(decoder, reviews, cut=8)
    asked = task.tokenizer(" Label:", add_special_tokens=False)["input_ids"]
    for row in task.examples["train"]:
        assert len(row["input_ids"]) <= 8
        assert row["input_ids"][-2:-1] == asked
    with pytest.raises(FinetuneError, match="leaves no room"):
        opened(decoder, reviews, cut=2)


def test_what_stands_around_a_text_leaves_room_for_it(encoder, reviews, tmp_path):
    """A beginning and an end of two tokens, as encoders have; a text cut to nothing would be trained on."""
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path / "marked"
    shutil.copytree(encoder, folder)
    marked = transformers.AutoTokenizer.from_pretrained(folder)
    marked._tokenizer.post_processor = TemplateProcessing(
        single="[END] $A [END]", special_tokens=[("[END]", 2)]
    )
    marked.save_pretrained(folder)
    for cut in (1, 2):
        with pytest.raises(FinetuneError, match="leaves no room for a token of the text"):
            opened(folder, reviews, cut=cut)
    task, _ = opened(folder, reviews, cut=3)
    assert {len(row["input_ids"]) for row in task.examples["train"]} == {3}


def test_labels_that_are_the_same_tokens_cannot_be_told_apart(decoder, tmp_path):
    path = tmp_path / "same.csv"
    rows = [
        f"the film {w},{label}"
        for w in ("a", "was", "with", "and", "plot", "music")
        for label in ("x1", "x2")
    ]
    path.write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    with pytest.raises(FinetuneError, match="same tokens"):
        opened(decoder, path)


@pytest.mark.parametrize(
    ("again", "verdict"), [(0.5, Verdict.KEPT), (0.50001, Verdict.KEPT), (0.52, Verdict.BROKEN)]
)
def test_a_file_that_is_not_the_model_that_was_measured_is_broken(again, verdict):
    record = Record()
    record.append(0, 9, **{SEEN: 0.5, AGAIN: again})
    assert saved_is_measured(record).verdict is verdict
