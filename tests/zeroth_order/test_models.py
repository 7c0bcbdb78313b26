"""Real transformer architectures: tied embeddings, Conv1D, bf16, PEFT; both modes take the same way."""

import copy
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")

from surefoot.zeroth_order import LOZO


def make(kind, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            config = transformers.BertConfig(
                vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=48, max_position_embeddings=20,
            )  # fmt: skip
            model = transformers.BertForMaskedLM(config)
        else:
            config = transformers.GPT2Config(
                vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=20,
                bos_token_id=0, eos_token_id=0,
            )  # fmt: skip
            model = transformers.GPT2LMHeadModel(config)
    return model.eval().to(dtype)


def closure_of(model):
    ids = torch.randint(0, 60, (4, 12), generator=torch.Generator().manual_seed(1))

    def closure():
        logits = model(input_ids=ids).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
        )

    return closure


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_hooks_and_in_place_take_the_same_way(kind):
    one, two = make(kind), make(kind)
    start = copy.deepcopy(one.state_dict())
    settings = {"nu": 10, "scale": "unit", "seed": 2}
    a, b = LOZO(one, 3e-4, **settings), LOZO(two, 3e-4, mode="inplace", **settings)
    for _ in range(30):
        a.step(closure_of(one))
        b.step(closure_of(two))
    a.flush()
    kinds = {s.storage for s in a.tensors if not s.dense}
    assert kinds == {"hooked"}
    gap = total = 0.0
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        gap += float((p - q).detach().double().square().sum())
        total += float(q.detach().double().square().sum())
        moved = float((q.detach() - start[name]).norm())
        assert float((p - q).detach().norm()) <= 0.01 * moved + 1e-12, name
    assert (gap / total) ** 0.5 <= 1e-5


def test_tied_weights_share_one_direction():
    model = make("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    optimizer = LOZO(model, 1e-3)
    tied = [s for s in optimizer.tensors if s.param is model.lm_head.weight]
    assert len(tied) == 1
    assert len(tied[0].hooks) == 4  # of each of the two modules: its forward, and its state_dict


def test_bfloat16_models_train_without_drift():
    model = make("gpt2", torch.bfloat16)
    before = copy.deepcopy(model.state_dict())
    # Normalisation weights lie near 1, where eps has to be seen in bfloat16.
    optimizer = LOZO(model, 0.0, nu=10, eps=1e-2)
    first = float(optimizer.step(closure_of(model)))
    for _ in range(25):
        optimizer.step(closure_of(model))
    optimizer.flush()
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name]), name
    assert float(optimizer.step(closure_of(model))) == pytest.approx(first, rel=0.05)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_adapters_are_trained_alone():
    peft = pytest.importorskip("peft", reason="needs the llm extra")
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(make("gpt2"), config).eval()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = LOZO(model, 1e-2, scale="unit", rank=2)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    for _ in range(6):
        optimizer.step(closure_of(model))
    optimizer.flush()
    after = [p for p in model.parameters() if p.requires_grad]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    for name, p in model.named_parameters():
        if name in frozen:
            assert torch.equal(p, frozen[name]), name
    # Matrices no larger than the rank move in all directions.
    dense = LOZO(model, 1e-2, rank=4)
    assert all(s.dense for s in dense.tensors)


def test_replay_of_a_folder_from_the_command_line(tmp_path, capsys):
    from surefoot.cli import main

    model = make("gpt2")
    model.save_pretrained(tmp_path / "base")
    optimizer = LOZO(model, 1e-3, nu=5, log=str(tmp_path / "run.zo"))
    for _ in range(7):
        optimizer.step(closure_of(model))
    optimizer.flush()
    words = [
        "zo",
        "replay",
        str(tmp_path / "base"),
        str(tmp_path / "run.zo"),
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    for name, p in model.state_dict().items():
        assert torch.equal(p, again.state_dict()[name]), name
    fresh = str(tmp_path / "another")
    (tmp_path / "empty").mkdir()
    assert main([*words[:2], str(tmp_path / "empty"), words[3], fresh]) == 2
    assert "is no model folder: it holds no config.json" in capsys.readouterr().err
    assert main([*words[:2], str(tmp_path / "out"), words[3], fresh]) == 2
    assert "model is not the base of this log" in capsys.readouterr().err
