"""A chain that was killed in mid-block goes on as if nothing had happened, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from surefoot.errors import WriteError
from surefoot.lora import ChainOfLora, ChainStateError, RacConfig

EVERY = [
    {"method": "rac_lora"},
    {"method": "rac_lora", "train": "A", "sketch": "gaussian", "precondition": True},
    {"method": "rac_lora", "train": "alternate", "keep_history": "seeds"},
    {"method": "rac_lora", "train": "bernoulli(0.5)", "keep_history": "none"},
    {"method": "rac_lora", "keep_history": "seeds", "warmup_steps_per_block": 2},
    {"method": "cola"},
    {"method": "relora", "keep_history": "seeds"},
    {"method": "lora"},
    {"method": "asymm_lora"},
    {"method": "fpft"},
]


def same(chain, reference):
    for a, b in zip(chain.layers, reference.layers, strict=True):
        assert torch.equal(a.weight.data, b.weight.data)
        assert torch.equal(a.A, b.A)
        assert torch.equal(a.B, b.B)
        if a.name in reference.residuals.held:
            assert torch.equal(chain.residuals.held[a.name], reference.residuals.held[a.name])
    for key, value in reference.extras().items():
        assert torch.equal(chain.extras()[key], value)
    assert chain.reports == reference.reports


def begin(toys, config, dtype=torch.float32):
    lora = {"modules_to_save": ["head"], "lora_dropout": 0.2}
    chain, _ = toys.make(lora=lora, model=toys.mlp(dtype=dtype), **config)
    optimizer = toys.adam(chain)
    if chain.config.warmup_steps_per_block:
        chain.attach(optimizer)
    return chain, optimizer


@pytest.mark.parametrize("config", EVERY, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("stop", [6, 8])
def test_resume_is_bit_identical(toys, config, stop, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        reference, optimizer = begin(toys, config)
        toys.train(reference, optimizer, 15)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        chain, optimizer = begin(toys, config)
        toys.train(chain, optimizer, stop)
        chain.save(tmp_path, optimizer)
        toys.train(chain, optimizer, 3, start=99)  # what came after the save is lost
    with torch.random.fork_rng():
        resumed = ChainOfLora.resume(tmp_path, toys.mlp())
        optimizer = toys.adam(resumed)
        resumed.restore_optimizer(optimizer)
        if resumed.config.warmup_steps_per_block:
            resumed.attach(optimizer)
        toys.train(resumed, optimizer, 15 - stop, start=stop)
    same(resumed, reference)
    resumed.finish()
    reference.finish()
    same(resumed, reference)


@pytest.mark.parametrize("keep", ["factors", "none"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_residuals_resume_too(toys, keep, dtype, tmp_path):
    config = {"keep_history": keep, "steps_per_block": 2}

    def run(chain, optimizer, start, stop):
        for i in range(start, stop):
            x, y = toys.batch(i)
            out = chain.model(x.to(dtype)).float()
            nn.functional.cross_entropy(out, y).backward()
            optimizer.step()
            optimizer.zero_grad()
            chain.step(optimizer)

    reference, optimizer = toys.make(model=toys.mlp(dtype=dtype), **config)
    run(reference, optimizer, 0, 9)
    chain, optimizer = toys.make(model=toys.mlp(dtype=dtype), **config)
    run(chain, optimizer, 0, 5)
    chain.save(tmp_path, optimizer)
    resumed = ChainOfLora.resume(tmp_path, toys.mlp(dtype=dtype))
    optimizer = toys.adam(resumed)
    resumed.restore_optimizer(optimizer)
    run(resumed, optimizer, 5, 9)
    assert reference.residuals.held["first"].abs().max() > 0
    same(resumed, reference)


SCRIPT = """
    import sys, torch
    from peft import LoraConfig, get_peft_model
    from surefoot.lora import ChainOfLora, RacConfig
    torch.set_num_threads(1)

    def run(folder, resume, steps, every):
        torch.manual_seed(0)
        base = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3))
        if resume:
            chain = ChainOfLora.resume(folder, base)
        else:
            lora = LoraConfig(r=2, target_modules=["0", "2"], lora_dropout=0.1)
            chain = ChainOfLora(get_peft_model(base, lora), RacConfig(steps_per_block=5, seed=1))
        optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-2)
        if resume:
            chain.restore_optimizer(optimizer)
        for i in range(chain.total_steps, steps):
            g = torch.Generator().manual_seed(i)
            x, y = torch.randn(16, 8, generator=g), torch.randint(3, (16,), generator=g)
            torch.nn.functional.cross_entropy(chain.model(x), y).backward()
            optimizer.step(); optimizer.zero_grad(); chain.step(optimizer)
            if every:
                chain.save(folder, optimizer)
                print(i, flush=True)
        return chain

    if __name__ == "__main__":
        run(sys.argv[1], False, 10_000, True)
"""


def test_killed_in_another_process(tmp_path):
    """Killed at some moment of some step, a save perhaps under way; resumed in this process."""
    script = textwrap.dedent(SCRIPT)
    here = {"__name__": "here"}
    exec(compile(script, "<script>", "exec"), here)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(killed)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if int(line) == 12:  # the third block is open
                os.kill(process.pid, signal.SIGKILL)
                break
        process.communicate()
    steps = json.loads((killed / "chain.json").read_text())["total_steps"]
    assert steps >= 12
    with torch.random.fork_rng():
        whole = here["run"](tmp_path / "whole", False, steps + 9, False)
        again = here["run"](killed, True, steps + 9, False)
    same(again, whole)


def test_history_memory_is_linear_and_announced(toys):
    for keep, rows in (
        ("factors", 2 * (8 + 12) + 2 * (12 + 6)),
        ("seeds", 2 * 12 + 2 * 6),
        ("none", 0),
    ):
        chain, optimizer = toys.make(keep_history=keep, blocks=3)
        assert chain.history_bytes() == 3 * 4 * rows
        toys.train(chain, optimizer, 12)
        held = sum(t.numel() * 4 for past in chain.history for t in past.factors.values())
        assert held == chain.history_bytes()
        assert chain.history_bytes(10) == 10 * 4 * rows


# -- what must not pass silently -------------------------------------------------------------------


@pytest.fixture
def saved(toys, tmp_path):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 6)
    chain.save(tmp_path / "s", optimizer)
    return tmp_path / "s"


@pytest.mark.parametrize("name", ["chain.json", "chain_state.safetensors"])
def test_a_missing_file(toys, saved, name):
    (saved / name).unlink()
    with pytest.raises(ChainStateError, match=f"holds no {name}"):
        ChainOfLora.resume(saved, toys.mlp())


@pytest.mark.parametrize("name", ["chain.json", "chain_state.safetensors"])
def test_a_truncated_file(toys, saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ChainStateError, match="not readable"):
        ChainOfLora.resume(saved, toys.mlp())


def test_a_stale_copy_for_people_changes_nothing(toys, saved, tmp_path):
    """A kill between the two files leaves a chain.json of the save before."""
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 7)
    chain.save(tmp_path / "t", optimizer)
    shutil.copy(tmp_path / "t" / "chain.json", saved)
    assert ChainOfLora.resume(saved, toys.mlp()).total_steps == 6


def test_the_optimizer_belongs_to_the_chain(toys, saved, tmp_path):
    resumed = ChainOfLora.resume(saved, toys.mlp())
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 7)
    chain.save(saved, optimizer)
    with pytest.raises(ChainStateError, match="was written again"):
        resumed.restore_optimizer(toys.adam(resumed))
    bare, optimizer = toys.make()
    bare.save(tmp_path / "bare")
    resumed = ChainOfLora.resume(tmp_path / "bare", toys.mlp())
    with pytest.raises(ChainStateError, match="holds no optimizer"):
        resumed.restore_optimizer(toys.adam(resumed))


def test_another_base(toys, saved):
    with pytest.raises(ChainStateError, match="base model is not the one"):
        ChainOfLora.resume(saved, toys.mlp(seed=1))


def test_another_configuration_format_or_rank(toys, saved):
    with pytest.raises(ChainStateError, match="train is 'B' there and 'A' here"):
        ChainOfLora.resume(saved, toys.mlp(), RacConfig(train="A", steps_per_block=4, seed=5))
    state = toys.make()[0].state_dict()
    with pytest.raises(ChainStateError, match="other adapted layers: first, second"):
        toys.make(lora={"r": 3})[0].load_state_dict(state)
    state["meta"]["format"] = 99
    with pytest.raises(ChainStateError, match="format 99"):
        toys.make()[0].load_state_dict(state)


def test_a_chain_that_has_moved(toys, saved):
    chain, optimizer = toys.make()
    state = chain.state_dict()
    toys.train(chain, optimizer, 1)
    with pytest.raises(ChainStateError, match="moved already"):
        chain.load_state_dict(state)
    with pytest.raises(ChainStateError, match="came from ChainOfLora.resume"):
        chain.restore_optimizer(optimizer)


def test_a_callable_sketch_must_be_given_again(toys, tmp_path):
    def ones(shape, generator):
        return torch.ones(shape)

    chain, optimizer = toys.make(sketch=ones)
    toys.train(chain, optimizer, 5)
    chain.save(tmp_path)
    with pytest.raises(ChainStateError, match="pass config="):
        ChainOfLora.resume(tmp_path, toys.mlp())
    resumed = ChainOfLora.resume(tmp_path, toys.mlp(), chain.config)
    same(resumed, chain)


def test_rounding_that_differs_is_said(toys):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 6)
    state = chain.state_dict()
    state["tensors"]["history.0.first.B"][0, 0] *= 1 + 1e-6
    with pytest.warns(UserWarning, match="not bit for bit"):
        toys.make()[0].load_state_dict(state)


@pytest.mark.parametrize("keep", ["factors", "seeds", "none"])
def test_a_difference_beyond_rounding_is_an_error(toys, keep):
    """The planted fault: a library that merges with another sign, a stored factor that was changed."""
    chain, optimizer = toys.make(keep_history=keep)
    toys.train(chain, optimizer, 6)
    state = chain.state_dict()
    name = "weight.first" if keep == "none" else "history.0.first.B"
    state["tensors"][name] *= -1
    with pytest.raises(ChainStateError, match="first differ from those .* by more than rounding"):
        toys.make(keep_history=keep)[0].load_state_dict(state)
    # An older version stored no marks: the warning does not call it rounding alone.
    del state["meta"]["merged_marks"]
    with pytest.warns(UserWarning, match="differ in rounding .*or the state, .* is damaged"):
        toys.make(keep_history=keep)[0].load_state_dict(state)


FILES = ("chain.json", "chain_state.safetensors", "lora/adapter_config.json")


@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_every_file_is_named(toys, saved, name):
    content, base = (saved / name).read_bytes(), toys.mlp()
    places = [len(content) * i // 12 for i in range(12)]
    damaged = [content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :] for at in places]
    for each in [
        *damaged,
        content[:-1],
        content + b" ",
        b"",
        b"{}",
        b"\x80\x05garbage",
        b"\xff" * 90,
    ]:
        (saved / name).write_bytes(each)
        with pytest.raises(ChainStateError, match=name):
            ChainOfLora.resume(saved, base)
    (saved / name).unlink()
    with pytest.raises(ChainStateError, match=name):
        ChainOfLora.resume(saved, base)


def test_a_file_of_another_chain_is_named(toys, saved, tmp_path):
    other, optimizer = toys.make(lora={"r": 2, "lora_alpha": 9})
    other.save(tmp_path / "t", optimizer)
    shutil.copy(tmp_path / "t" / FILES[2], saved / FILES[2])
    with pytest.raises(ChainStateError, match="adapter_config.json is not what was written with"):
        ChainOfLora.resume(saved, toys.mlp())


def test_damage_between_resume_and_the_optimizer(toys, saved):
    chain = ChainOfLora.resume(saved, toys.mlp())
    path = saved / "chain_state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChainStateError, match="chain_state.safetensors is not a whole file"):
        chain.restore_optimizer(toys.adam(chain))


def test_a_tensor_is_named(toys, saved):
    path = saved / "chain_state.safetensors"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for name in ("open.first.B", "history.0.second.B", "rng.cpu", "optimizer"):
        at = 8 + int.from_bytes(content[:8], "little") + header[name]["data_offsets"][0]
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ChainStateError, match=f"safetensors .*{name} is not what was written"):
            ChainOfLora.resume(saved, toys.mlp())


def test_a_state_whose_checksums_were_taken_out_is_no_older_state(toys, saved):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = saved / "chain_state.safetensors"
    with safe_open(path, framework="pt") as file:
        words, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"chain": words["chain"]})
    with pytest.raises(ChainStateError, match="lacks the checksum with which it was written"):
        ChainOfLora.resume(saved, toys.mlp())


def test_a_full_disk_leaves_the_state_as_it_was(toys, saved, monkeypatch):
    before = {name: (saved / name).read_bytes() for name in FILES}
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 7)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"could not be written \(No space left on device\)"):
        chain.save(saved, optimizer)
    monkeypatch.undo()
    assert {name: (saved / name).read_bytes() for name in FILES} == before
    assert not list(saved.rglob("*.part"))
    assert ChainOfLora.resume(saved, toys.mlp()).total_steps == 6


def test_more_blocks_may_be_planned_on_resume(toys, saved):
    config = RacConfig(steps_per_block=4, seed=5, blocks=50)
    assert ChainOfLora.resume(saved, toys.mlp(), config).config.blocks == 50


STORED = Path(__file__).parent / "stored"


# Its adapter's configuration is of a newer PEFT than the oldest that is supported, which says so.
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")
def test_a_chain_that_an_older_version_stored_goes_on(toys):
    """Written by the version without a record: eight steps of gamma = 0.05, raw Gaussian sketches."""
    assert "record" not in json.loads((STORED / "format_1" / "chain.json").read_text())
    with pytest.warns(UserWarning, match="of an older version, which wrote no checksums"):
        chain = ChainOfLora.resume(STORED / "format_1", toys.mlp(), restore_rng=False)
    assert chain.sketch_range == pytest.approx((0.38078798643160444, 2.8218018391768127))
    record = chain.record
    assert record.fact("optimizer").all == ("SGD",)
    assert record.fact("max_grad_norm").missing == (5,)
    torch.testing.assert_close(torch.tensor(record["gamma"]), torch.full((1, 3), 0.05).double())
    optimizer = torch.optim.SGD(chain.param_groups(0.05), lr=1.0)
    with pytest.warns(UserWarning, match="of an older version"):
        chain.restore_optimizer(optimizer)
    toys.train(chain, optimizer, 7, start=8)
    expected = torch.load(STORED / "after_15_steps.pt", weights_only=True)
    for name, weight in expected.items():
        torch.testing.assert_close(chain.weight(name), weight)


@pytest.mark.parametrize("stop", [4, 6])
def test_a_resumed_chain_has_the_record_of_the_one_that_went_on(toys, stop, tmp_path):
    def schedule(i):
        return 0.5 if i < 5 else 0.25  # within a block

    def run(chain, optimizer, start, end):
        for i in range(start, end):
            for group in optimizer.param_groups:
                group["lr"] = 0.04 * schedule(i)
            if not chain.step_in_block:
                chain.observe(loss=float(i))
            toys.train(chain, optimizer, 1, start=i)

    def begin():
        chain, _ = toys.make(steps_per_block=4, sketch="gaussian")
        return chain, torch.optim.SGD(chain.trainable_parameters(), lr=1.0)

    reference, optimizer = begin()
    reference.object("a hunch")
    run(reference, optimizer, 0, 10)
    chain, optimizer = begin()
    chain.object("a hunch")
    run(chain, optimizer, 0, stop)
    chain.save(tmp_path, optimizer)
    resumed = ChainOfLora.resume(tmp_path, toys.mlp())
    optimizer = torch.optim.SGD(resumed.trainable_parameters(), lr=1.0)
    resumed.restore_optimizer(optimizer)
    run(resumed, optimizer, stop, 10)
    assert resumed.record.quantities == reference.record.quantities
    for name in reference.record.quantities:
        assert (resumed.record[name] == reference.record[name]).all(), name
    assert resumed.record.facts == reference.record.facts
