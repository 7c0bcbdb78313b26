"""What a run without folding has learned, as an adapter that PEFT itself loads."""

import copy
import json

import pytest
import torch
from torch import nn

pytest.importorskip("gguf", reason="needs the llm extra")
peft = pytest.importorskip("peft", reason="needs the llm extra")
transformers = pytest.importorskip("transformers", reason="needs the llm extra")

from tests.zeroth_order.gguf_files import Q4_1, write
from tests.zeroth_order.test_quantised import ids, unpacked
from tests.zeroth_order.test_quantised_training import SETTINGS, closure_of, run

from surefoot import data
from surefoot.data.quantised.weight import BlockWeight
from surefoot.errors import FileFormatError
from surefoot.zeroth_order import LOZO
from surefoot.zeroth_order.quantised import attach, export_adapter, load_gguf

# PEFT's words on a tied embedding that is adapted in both places (not to be merged), on a model of Conv1D and
# linear modules, and on a name of transformers that it still uses.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "Model with `tie_word_embeddings=True`", "Model has `tie_word_embeddings=True`",
        "fan_in_fan_out is set to", ".is_gradient_checkpointing. is deprecated",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The base's file, a quantised model trained on it, its optimizer, and the adapter."""
    path = write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", Q4_1)
    model = load_gguf(path)
    optimizer, _ = run(model, 5)
    return path, model, export_adapter(optimizer, path.parent / "adapter")


@torch.no_grad()
def test_it_loads_on_the_full_and_on_the_quantised_base(trained):
    path, model, folder = trained
    x = ids(3, 9)
    wanted = model(input_ids=x).logits
    full = peft.PeftModel.from_pretrained(unpacked(path), str(folder)).eval()
    assert (full(input_ids=x).logits - wanted).abs().max() < 1e-4
    assert (attach(load_gguf(path), folder)(input_ids=x).logits - wanted).abs().max() < 1e-4
    assert (unpacked(path)(input_ids=x).logits - wanted).abs().max() > 1e-2
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (4, 4, {})


@torch.no_grad()
def test_on_gpt2_with_ranks_that_differ(tmp_path):
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=96, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    for name, p in model.named_parameters():
        p.requires_grad_("bias" not in name or "ln" in name)
    base = copy.deepcopy(model)
    attention = [p for n, p in model.named_parameters() if "attn" in n and p.requires_grad]
    rest = [
        p
        for n, p in model.named_parameters()
        if "attn" not in n and p.requires_grad and "wpe" not in n
    ]
    groups = [{"params": attention, "rank": 1}, {"params": rest}]
    optimizer = LOZO(groups, model=model, **SETTINGS)
    for _ in range(4):
        optimizer.step(closure_of(model))
    folder = export_adapter(optimizer, tmp_path / "adapter")
    wanted = model(input_ids=ids(2, 7)).logits
    found = attach(base, folder)(input_ids=ids(2, 7)).logits
    assert (found - wanted).abs().max() < 1e-4
    pattern = json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    assert set(pattern.values()) == {2}


@pytest.mark.acceptance
@torch.no_grad()
def test_smollm2_whole(tmp_path):
    """Bits, steps and adapter of the real model."""
    where = data.load("smollm2")
    (ours, _), (theirs, _) = where.open(quantised=True), where.open()
    for name, weight in ours.named_parameters():
        numbers = weight.unpacked() if isinstance(weight, BlockWeight) else weight
        assert torch.equal(numbers, theirs.get_parameter(name))
    x = torch.randint(100, 40000, (2, 12), generator=torch.Generator().manual_seed(0))

    def logits(model):
        return model(input_ids=x, use_cache=False).logits

    def closure(model):
        return nn.functional.cross_entropy(logits(model)[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    assert torch.equal(logits(ours), logits(theirs))
    c = []
    for model in (ours, theirs):
        optimizer = LOZO(model, **{**SETTINGS, "lr": 1e-5, "nu": 2})
        c.append([])
        for _ in range(5):
            optimizer.step(lambda model=model: closure(model))
            c[-1].append(optimizer.last["c"])
        if model is ours:
            folder = export_adapter(optimizer, tmp_path / "adapter")
            trained = logits(model)
    assert c[0] == c[1]
    del ours, theirs, optimizer
    base, _ = where.open()
    moved = float((logits(base) - trained).abs().max())
    for fresh in (base, where.open(quantised=True)[0]):
        assert (logits(attach(fresh, folder)) - trained).abs().max() < 1e-4 * max(1.0, moved)


def test_what_no_adapter_can_hold_is_refused(tmp_path):
    x = torch.randn(4, 6)

    def refused(model, match, steps=1, **more):
        optimizer = LOZO(model, **{**SETTINGS, **more})
        for _ in range(steps):
            optimizer.step(lambda: model(x).square().mean())
        with pytest.raises(ValueError, match=match):
            export_adapter(optimizer, tmp_path / "no")
        assert not (tmp_path / "no").exists()

    refused(nn.Sequential(nn.Linear(6, 5)), "1?0.bias moved beside a weight of low rank")
    refused(nn.Sequential(nn.Linear(6, 5)), "make the optimizer with fold=False", fold=True)
    refused(nn.Sequential(nn.Linear(6, 5)), "no step was taken yet", steps=0)


def test_a_folder_without_an_adapter(tmp_path):
    with pytest.raises(FileFormatError, match="holds no adapter: there is no adapter_config"):
        attach(nn.Linear(2, 2), tmp_path)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*pin_memory:UserWarning"
)
@pytest.mark.parametrize("paired", [True, False])
def test_the_trainer_saves_an_adapter_and_goes_on_from_a_checkpoint(tmp_path, paired):
    """A base in blocks is written by nobody: what a folder of the Trainer holds is what was learned."""
    from tests.zeroth_order.test_trainer import saving, trainer

    file = write(tmp_path / "m.gguf", Q4_1)
    options = {"nu": 3, "scale": "unit", "seed": 3, "fold": False}

    def trained(folder, steps, resume=None, **more):
        net = load_gguf(file)
        run = trainer(net, tmp_path / folder, steps, 1, options=dict(options), **more)
        run.paired = paired
        saving(run).train(resume_from_checkpoint=resume)
        return net, run

    whole, run = trained("whole", 6)
    run.save_model(str(tmp_path / "saved"))
    x = torch.arange(8).view(1, 8)
    with torch.no_grad():
        wanted = whole(input_ids=x).logits
        again = attach(load_gguf(file), tmp_path / "saved")
        torch.testing.assert_close(again(input_ids=x).logits, wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(load_gguf(file)(input_ids=x).logits, wanted, atol=1e-2)
    # In the middle of a period.
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    assert (checkpoint / "adapter_config.json").is_file()
    resumed, _ = trained("again", 6, resume=str(checkpoint))
    with torch.no_grad():
        assert torch.equal(resumed(input_ids=x).logits, wanted)
    best = trainer(load_gguf(file), tmp_path / "best", 2, 1, options=dict(options))
    best.args.load_best_model_at_end = True
    with pytest.raises(ValueError, match="load_best_model_at_end puts weights back"):
        best.create_optimizer()
