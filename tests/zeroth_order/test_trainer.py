"""The Trainer's own loop on a real architecture: accumulation, evaluation, checkpoints, no gradients."""

import os
from contextlib import nullcontext

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")
pytest.importorskip("accelerate", reason="needs the llm extra")

from surefoot.zeroth_order import LOZO, PairedWarning
from surefoot.zeroth_order.doors.transformers import ZOTrainer

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*pin_memory:UserWarning"
)


def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=12,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)


def examples(count=64):
    ids = torch.randint(0, 40, (count, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer(net, folder, steps=10, accumulation=4, **more):
    options = more.pop("options", {"nu": 6, "scale": "unit", "seed": 3})
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation, learning_rate=1e-2, lr_scheduler_type="constant",
        report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1, save_strategy="no",
        dataloader_pin_memory=False, **more,
    )  # fmt: skip
    return ZOTrainer(
        model=net, args=arguments, train_dataset=examples(), eval_dataset=examples(8),
        optimizer_cls_and_kwargs=(LOZO, options),
    )  # fmt: skip


@pytest.mark.acceptance
def test_fifty_steps_are_the_manual_loop_and_allocate_no_gradient(tmp_path):
    net = model()
    work = trainer(net, tmp_path, steps=50)
    # A batch for each forward is what is looked at here.
    work.paired, batches = False, []
    plain = work.compute_loss

    def spy(model, inputs, *args, **kwargs):
        batches.append({k: v.clone() for k, v in inputs.items()})
        return plain(model, inputs, *args, **kwargs)

    work.compute_loss = spy
    work.train()
    assert all(p.grad is None for p in net.parameters())
    assert work.zeroth_order.t == 50
    # The first step evaluates once more, twice for the tensor it looks at.
    seen = batches[-400:][::2]
    assert len(batches) == 400 + 3
    other = model().eval()
    optimizer = LOZO(other, 1e-2, nu=6, scale="unit", seed=3)
    for t in range(50):
        for i in range(4):
            batch = seen[4 * t + i]

            def closure(batch=batch):
                logits = other(input_ids=batch["input_ids"]).logits[:, :-1].flatten(0, 1)
                return torch.nn.functional.cross_entropy(
                    logits.float(), batch["labels"][:, 1:].flatten()
                )

            optimizer.estimate(closure)
        optimizer.apply()
    optimizer.flush()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-4)


def test_evaluation_sees_the_iterate(tmp_path):
    """What a Trainer says of a plain model of these weights; by how many labels it divides is its affair."""
    net = model()
    work = trainer(net, tmp_path, steps=8)
    before = work.evaluate()["eval_loss"]
    work.train()
    fresh = model()
    fresh.load_state_dict(net.state_dict())
    plain = transformers.Trainer(model=fresh, args=work.args, eval_dataset=examples(8))
    expected = plain.evaluate()["eval_loss"]
    assert work.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert abs(expected - before) > 1e-3
    ids = torch.stack([e["input_ids"] for e in examples(8)])
    logits = fresh.eval()(input_ids=ids).logits[:, :-1].flatten(0, 1)
    mean = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).item()
    # Seven of the eight labels of a row have a prediction; some versions divide by all eight.
    assert min(abs(expected - mean), abs(expected - mean * 7 / 8)) < 1e-5


def saving(work):
    """A checkpoint every four steps."""
    work.args.save_strategy = transformers.trainer_utils.IntervalStrategy.STEPS
    work.args.save_steps = 4
    return work


def test_checkpoints_are_the_model_and_resume_bit_by_bit(tmp_path):
    first, second = model(), model()
    saving(trainer(first, tmp_path, steps=9)).train()
    folder = tmp_path / "checkpoint-4"
    halfway = model()
    saving(trainer(halfway, tmp_path / "other", steps=4)).train()
    loaded = transformers.GPT2LMHeadModel.from_pretrained(folder)
    for name, p in halfway.state_dict().items():
        assert torch.equal(p, loaded.state_dict()[name]), name
    saving(trainer(second, tmp_path / "again", steps=9)).train(resume_from_checkpoint=str(folder))
    for name, p in first.state_dict().items():
        assert torch.equal(p, second.state_dict()[name]), name


def test_classifiers_that_ignore_the_count_of_items(tmp_path):
    """BERT's classifier takes a count and returns a mean all the same: nothing may be scaled by it."""

    def classifier():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = transformers.BertConfig(
                vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=12,
            )  # fmt: skip
            return transformers.BertForSequenceClassification(config)

    ids = torch.randint(0, 40, (64, 8), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": row, "labels": torch.tensor(i % 2)} for i, row in enumerate(ids)]
    net = classifier()
    work = trainer(net, tmp_path, steps=4)
    work.train_dataset, batches, work.paired = data, [], False
    plain = work.compute_loss

    def spy(model, inputs, *args, **kwargs):
        batches.append({k: v.clone() for k, v in inputs.items()})
        return plain(model, inputs, *args, **kwargs)

    work.compute_loss = spy
    work.train()
    seen, other = batches[-32:][::2], classifier().eval()
    optimizer = LOZO(other, 1e-2, nu=6, scale="unit", seed=3)
    for t in range(4):
        for batch in seen[4 * t : 4 * t + 4]:
            optimizer.estimate(lambda batch=batch: other(**batch).loss)
        optimizer.apply()
    optimizer.flush()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_both_copies_of_a_micro_batch_share_a_forward(tmp_path):
    ends, counts = [], []
    for paired in (False, True):
        net, calls = model(), []
        net.register_forward_hook(lambda m, args, y, calls=calls: calls.append(1))
        work = trainer(net, tmp_path, steps=4, accumulation=3)
        work.paired = paired
        work.train()
        assert ("one forward" in work.zeroth_order.last.get("how", "")) is paired
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        counts.append(len(calls))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)
    assert counts[0] == 4 * 3 * 2 + 3
    # Of the first step: which module reads what, two forwards apart, and their like together.
    assert counts[1] <= 4 * 3 + 3 + 6


def test_what_is_logged(tmp_path):
    work = trainer(model(), tmp_path, steps=3)
    work.train()
    losses = [e for e in work.state.log_history if "loss" in e]
    assert all("c" in e and "grad_norm" not in e for e in losses)
    assert 3 < losses[0]["loss"] < 5


def test_max_grad_norm_is_told(tmp_path):
    work = trainer(model(), tmp_path, max_grad_norm=0.5)
    with pytest.warns(UserWarning, match="max_grad_norm = 0.5 has no effect"):
        work.create_optimizer()


def test_another_optimizer_is_refused(tmp_path):
    work = trainer(model(), tmp_path)
    work.optimizer_cls_and_kwargs = (torch.optim.SGD, {})
    with pytest.raises(ValueError, match="the optimizer must be LOZO, MeZO or ZOAdam, got"):
        work.create_optimizer()


def labelled(targets, length=14, first=False):
    """Rows with so many labels; with `first`, one at position 0 besides, which causal losses do not read."""
    generator, rows = torch.Generator().manual_seed(1), []
    for count in targets:
        ids = torch.randint(1, 40, (length,), generator=generator)
        labels = torch.full((length,), -100)
        labels[1 : 1 + count] = ids[1 : 1 + count]
        if first:
            labels[0] = ids[0]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama(kind="LlamaForCausalLM"):
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, max_position_embeddings=16, pad_token_id=0,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def bert(kind, **more):
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16, **more,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def t5():
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def with_labels(*labels, **more):
    rows = labelled([1] * len(labels))
    return [{**row, "labels": torch.tensor(label)} for row, label in zip(rows, labels, strict=True)]


def answers(*starts):
    ids = [row["input_ids"] for row in labelled([1] * len(starts))]
    return [
        {"input_ids": i, "start_positions": torch.tensor(s), "end_positions": torch.tensor(s + 1)}
        for i, s in zip(ids, starts, strict=True)
    ]


def over_the_batch(outputs, labels, num_items_in_batch=None):
    """As transformers asks of users' losses: a sum over the count of the whole batch."""
    logits = outputs["logits"][:, :-1].flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    return total / num_items_in_batch


def a_mean(outputs, labels, num_items_in_batch=None):
    """Takes the count and returns a mean all the same."""
    logits = outputs["logits"][:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())


def one_step(net, rows, size, folder, **more):
    """c and the logged loss of one step over these rows, in micro-batches of this size."""
    loss = more.pop("loss", None)
    work = trainer(net, folder, steps=1, accumulation=-(-len(rows) // size), **more)
    work.args.per_device_train_batch_size = size
    work.args.train_sampling_strategy = "sequential"
    work._train_batch_size = size
    work._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
    work.train_dataset, work.compute_loss_func = rows, loss
    work.train()
    return work, work.state.log_history[0]["loss"]


CAUSAL = [11, 2, 0, 8]
BATCHES = {
    "causal": (gpt2, labelled([11, 2, 2, 8], first=True), {}),
    "causal, none, or only at position 0": (gpt2, labelled(CAUSAL, first=True), {}),
    "causal, by loss_type": (llama, labelled(CAUSAL, first=True), {}),
    "causal, smoothed": (llama, labelled(CAUSAL, first=True), {"label_smoothing_factor": 0.1}),
    "own loss over the batch": (llama, labelled([0, 11, 2, 8]), {"loss": over_the_batch}),
    "own mean": (llama, labelled(CAUSAL, first=True), {"loss": a_mean}),
    "masked": (lambda: bert("BertForMaskedLM"), labelled(CAUSAL, first=True), {}),
    "tokens": (lambda: bert("BertForTokenClassification", num_labels=40), labelled(CAUSAL), {}),
    "sequences": (lambda: llama("LlamaForSequenceClassification"), with_labels(1, -100, 0, 1), {}),
    "sequences, smoothed": (
        lambda: bert("BertForSequenceClassification"),
        with_labels(1, -100, 0),
        {"label_smoothing_factor": 0.1},
    ),
    "regression": (
        lambda: bert("BertForSequenceClassification", num_labels=1),
        with_labels(1.0, -100.0, 2.0),
        {},
    ),
    "answers, one cut off": (lambda: bert("BertForQuestionAnswering"), answers(1, 2, 30), {}),
    "from text to text": (t5, labelled(CAUSAL, first=True), {}),
}


# One of each way in which a loss counts by default; the others are the long check.
QUICK = ("causal, smoothed", "own mean", "masked", "sequences")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.acceptance) for n in BATCHES],
)
def test_a_batch_is_its_micro_batches(name, tmp_path):
    make, rows, more = BATCHES[name]
    found = []
    for size in (len(rows), 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = make()
        # T5 indexes a table by positions, which have no rows: its copies have a forward each, by name.
        apart = name == "from text to text"
        with pytest.warns(PairedWarning, match="a forward of its own") if apart else nullcontext():
            work, loss = one_step(net, rows, size, tmp_path, **more)
        assert work.zeroth_order.skipped == 0
        found.append((work.zeroth_order.last["c"], loss))
    whole, *parts = found
    for part in parts:
        # Losses are float32: c has their rounding, 1e-7 of the loss over 2 eps.
        rounding = 2.0**-23 * abs(whole[1]) / (2 * work.zeroth_order.defaults["eps"])
        assert part[0] == pytest.approx(whole[0], rel=2e-3, abs=max(2e-3, rounding))
        assert part[1] == pytest.approx(whole[1], rel=1e-4)


def test_a_batch_without_any_label_is_skipped_and_told(tmp_path):
    net = gpt2()
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.warns(UserWarning, match=r"step 0 was skipped.*\(weight 0\)"):
        work, _ = one_step(net, labelled([0, 0, 0]), 1, tmp_path)
    assert work.zeroth_order.skipped == 1
    assert work.state.log_history[0]["skipped_steps"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
