"""A chain under transformers.Trainer: the same steps as a bare loop, and checkpoints that resume."""

import gc

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from surefoot.lora import ChainOfLora, ChainStateError, RacCallback, RacConfig

# PEFT asks transformers for an attribute that it has renamed; PEFT 0.19 looks for a base that has no name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning",
    "ignore:Could not find a config file in  - will assume:UserWarning",
)


class Texts(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        return {"input_ids": torch.randint(3, 60, (10,), generator=g), "labels": i % 3}


def base():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=20, num_labels=3,
                bos_token_id=0, eos_token_id=2,
            )
        )  # fmt: skip


def adapted():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return get_peft_model(
            base(),
            LoraConfig(
                r=2, target_modules=["query", "value"], modules_to_save=["classifier"],
                lora_dropout=0.1,
            ),
        )  # fmt: skip


class Stop(TrainerCallback):
    """Stands for a kill: the process would be gone here."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer(folder, callback_args=None, more=(), config=None, **arguments):
    model = adapted()
    chain = ChainOfLora(model, RacConfig(**({"steps_per_block": 4, "seed": 3} | (config or {}))))
    arguments = {
        "max_steps": 12, "save_steps": 6, "learning_rate": 5e-2, "per_device_train_batch_size": 4,
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 100,
        "lr_scheduler_type": "cosine", "seed": 5, "max_grad_norm": 1.0,
    } | arguments  # fmt: skip
    args = TrainingArguments(output_dir=str(folder), **arguments)
    callbacks = [RacCallback(chain, **(callback_args or {})), *more]
    data = {"train_dataset": Texts(), "eval_dataset": Texts()}
    return Trainer(model=model, args=args, callbacks=callbacks, **data), chain


def weights(chain):
    merged = {layer.name: chain.weight(layer.name) for layer in chain.layers}
    return merged | {k: p.detach().clone() for k, p in chain.extras().items()}


@pytest.fixture(autouse=True)
def one_thread():
    with torch.random.fork_rng():
        yield
    gc.collect()


@pytest.mark.parametrize(
    "config",
    [
        {"train": "A", "keep_history": "seeds"},
        pytest.param({}, marks=pytest.mark.acceptance),
        pytest.param({"method": "cola"}, marks=pytest.mark.acceptance),
    ],
)
def test_resume_in_mid_block_is_bit_identical(tmp_path, config, measured):
    whole, reference = trainer(tmp_path / "a", config=config)
    whole.train()
    killed, _ = trainer(tmp_path / "b", more=[Stop(8)], config=config)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    again, chain = trainer(tmp_path / "b", config=config)
    again.train(resume_from_checkpoint=True)
    assert [r.steps for r in chain.reports] == [4, 4, 4]
    a, b = weights(reference), weights(chain)
    worst = max(float((a[k] - b[k]).abs().max()) for k in a)
    measured(f"Trainer resume {config}: largest difference", "0", worst)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_what_plain_resume_would_have_lost(tmp_path):
    """The planted fault: the same kill without the chain's files."""
    whole, reference = trainer(tmp_path / "a")
    whole.train()
    killed, _ = trainer(tmp_path / "b", more=[Stop(8)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    again, chain = trainer(tmp_path / "b")
    again.remove_callback(RacCallback)
    again.train(resume_from_checkpoint=True)
    a, b = weights(reference), weights(chain)
    assert max(float((a[k] - b[k]).abs().max()) for k in a) > 1e-2


def test_a_checkpoint_without_chain_state_is_an_error(tmp_path):
    killed, _ = trainer(tmp_path, more=[Stop(8)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    (tmp_path / "checkpoint-6" / "chain.json").unlink()
    again, _ = trainer(tmp_path)
    with pytest.raises(ChainStateError, match=r"checkpoint-6 holds no chain.json"):
        again.train(resume_from_checkpoint=True)


def test_a_checkpoint_elsewhere_needs_resume_dir(tmp_path):
    killed, _ = trainer(tmp_path / "a", more=[Stop(8)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    place = str(tmp_path / "a" / "checkpoint-6")
    again, _ = trainer(tmp_path / "b")
    with pytest.raises(ChainStateError, match="holds no chain"):
        again.train(resume_from_checkpoint=place)
    again, chain = trainer(tmp_path / "b", callback_args={"resume_dir": place})
    again.train(resume_from_checkpoint=place)
    assert chain.total_steps == 12
    whole, _ = trainer(tmp_path / "c", save_steps=4)
    whole.train()
    wrong = {"resume_dir": str(tmp_path / "c" / "checkpoint-4")}
    again, _ = trainer(tmp_path / "d", callback_args=wrong)
    with pytest.raises(
        ChainStateError, match="resumes at step 6, the chain state in .* is of step 4"
    ):
        again.train(resume_from_checkpoint=place)


def test_checkpoints_and_the_final_model_cannot_be_mistaken(tmp_path):
    run, chain = trainer(tmp_path)
    run.train()
    with pytest.raises(KeyError, match="CHAIN_OF_LORA_BLOCK"):
        PeftModel.from_pretrained(base(), tmp_path / "checkpoint-12")
    chain.finish()
    run.save_model(str(tmp_path / "final"))
    plain = PeftModel.from_pretrained(base(), tmp_path / "final").eval()
    tokens = torch.stack([Texts()[i]["input_ids"] for i in range(8)])
    chain.model.eval()
    with torch.no_grad():
        a, b = plain(tokens).logits, chain.model(tokens).logits
        assert float((a - b).norm() / b.norm()) < 1e-5
        assert float((base().eval()(tokens).logits - b).norm() / b.norm()) > 0.1


def test_blocks_fix_the_steps(tmp_path):
    run, chain = trainer(tmp_path, config={"steps_per_block": None, "blocks": 5})
    run.train()
    assert chain.steps_per_block == 3
    assert [r.steps for r in chain.reports] == [3, 3, 3, 3]


def test_blocks_of_an_epoch(tmp_path):
    run, chain = trainer(
        tmp_path, config={"steps_per_block": "epoch"}, max_steps=-1, num_train_epochs=2
    )
    run.train()
    assert [r.steps for r in chain.reports] == [6, 6]


def test_accumulated_gradients_count_once(tmp_path):
    run, chain = trainer(tmp_path, gradient_accumulation_steps=3, max_steps=8)
    run.train()
    assert chain.total_steps == 8
    assert len(chain.reports) == 2


def test_heads_keep_their_moments(tmp_path):
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            seen.append(len(optimizer.state))

    run, chain = trainer(tmp_path, more=[Look()], max_steps=4)
    run.train()
    heads = len(chain.extras())
    assert seen == [heads + 4] * 3 + [heads]


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({"steps_per_block": None}, {}, "needs steps_per_block or blocks"),
        ({}, {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 6},
         "load_best_model_at_end"),
    ],
)  # fmt: skip
def test_bad_arguments(tmp_path, config, arguments, message):
    run, _ = trainer(tmp_path, config=config, **arguments)
    with pytest.raises(ValueError, match=message):
        run.train()


@pytest.mark.parametrize("own", [True, False])
def test_both_sides_are_in_the_optimizer(tmp_path, own):
    run, chain = trainer(tmp_path, config={"train": "alternate"})
    if own:
        run.optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-2)
    run.train()
    assert [r.trained for r in chain.reports] == ["B", "A", "B"]


def test_the_trainer_takes_the_steps_of_a_bare_loop(tmp_path):
    run, chain = trainer(
        tmp_path, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0,
        learning_rate=0.1, save_steps=100,
    )  # fmt: skip
    order = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            order.append(torch.get_rng_state())

    run.add_callback(Watch())
    batches = []
    inner = run.compute_loss

    def keep(model, inputs, **kwargs):
        batches.append({k: v.clone() for k, v in inputs.items()})
        return inner(model, inputs, **kwargs)

    run.compute_loss = keep
    run.train()
    model = adapted()
    bare = ChainOfLora(model, RacConfig(steps_per_block=4, seed=3))
    optimizer = torch.optim.SGD(bare.trainable_parameters(), lr=0.1)
    model.train()
    for state, inputs in zip(order, batches, strict=True):
        torch.set_rng_state(state)
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        bare.step(optimizer)
    a, b = weights(chain), weights(bare)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-6)
