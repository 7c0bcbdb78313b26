"""The Trainer's own loop on a real architecture: accumulation, evaluation, checkpoints, no gradients."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")
pytest.importorskip("accelerate", reason="needs the llm extra")

from surefoot.zeroth_order import LOZO
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


def test_fifty_steps_are_the_manual_loop_and_allocate_no_gradient(tmp_path):
    net = model()
    work = trainer(net, tmp_path, steps=50)
    batches = []
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
    net = model()
    work = trainer(net, tmp_path, steps=8)
    work.train()
    after = work.evaluate()["eval_loss"]
    fresh = model()
    fresh.load_state_dict(net.state_dict())
    ids = torch.stack([e["input_ids"] for e in examples(8)])
    logits = fresh.eval()(input_ids=ids).logits[:, :-1].flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum")
    # The Trainer counts all eight labels of a row, of which one has no prediction.
    expected = float(total.detach()) / 64
    assert after == pytest.approx(expected, abs=1e-5)


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
    work.train_dataset, batches = data, []
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
