"""A log's file: every bit counts, what it claims is looked at before it is believed, old ones are read."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from surefoot._sealed import lines
from surefoot.errors import FileFormatError, WriteError
from surefoot.zeroth_order import LOZO, StepLog, replay
from surefoot.zeroth_order import log as log_module

STORED = Path(__file__).parent / "stored"
OLD = "carries no checksum: a changed number in it cannot be noticed"


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def trained(steps=6, **settings):
    model = net()
    given = {"lr": 1e-2, "nu": 4, "rank": 1, "seed": 1, "log": True} | settings
    optimizer = LOZO(model, given.pop("lr"), **given)
    for _ in range(steps):
        optimizer.step(lambda: model(torch.ones(1, 3)).square().sum())
    optimizer.flush()
    return model, optimizer


@pytest.fixture(scope="module")
def parts():
    """Header and body of a log."""
    head, body = lines.unseal_line(trained()[1].log.to_bytes())
    lines.check_body(head, body)
    return head, body


def written(path, head, body, old=False):
    """A file of that header, with checksums that fit it, or as the first format has it: with none."""
    if old:
        content = json.dumps({**head, "format": 1}).encode() + b"\n" + body
    else:
        content = lines.seal(head, body)
    path.write_bytes(content)
    return path


def test_every_bit_and_byte_counts(tmp_path):
    path = trained(2)[1].log.save(tmp_path / "run.zo")
    content = path.read_bytes()
    for at in range(0, 8 * len(content), 29):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=str(path)):
            StepLog.load(path)
    for damaged in (
        content[:-1],
        content[:-4],
        content + b"\0",
        content + bytes(4),
        content[1:],
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=str(path)):
            StepLog.load(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_header_that_lacks_a_key_or_has_one_of_another_type(parts, tmp_path, old):
    head, body = parts
    for key in head:
        if key in ("format", "torch", "device", "end"):
            continue
        less = {k: v for k, v in head.items() if k != key}
        with pytest.raises(FileFormatError, match=f"run.zo is damaged: its header lacks '{key}'"):
            StepLog.load(written(tmp_path / "run.zo", less, body, old))
        for wrong in (None, True, -1, 1.5, [[]], {}, [{"a": 1}], "word", [["x"]], [1, "x"]):
            if key == "method" and wrong == "word":
                continue
            with pytest.raises(FileFormatError, match="run.zo"):
                StepLog.load(written(tmp_path / "run.zo", head | {key: wrong}, body, old))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 10**10}, "run lengths of 'how' do not add up to its 10000000000 steps"),
        ({"steps": 10**10, "how": [[10**10, 1, True, 0]], "lr": [[10**10, [0.1]]]}, "is truncated"),
        ({"lr": [[10**8, [0.1]]]}, "run lengths of 'lr' do not add up to its 6 steps"),
        ({"lr": [[6, [0.1, 0.1]]]}, "'lr' must hold one rate for each of its 1 groups"),
        ({"how": [[10**9, 1, True, 0]]}, "run lengths of 'how' do not add up"),
        ({"how": [[3, 1, True, 0]]}, "run lengths of 'how' do not add up"),
        ({"folds": [7]}, "it speaks of steps after its last, 6"),
        ({"changes": [[6, [[1, 0.0]]]]}, "it speaks of steps after its last, 6"),
        ({"changes": [[0, [[0, 0.0]]]]}, "'changes' must speak of each group"),
        ({"changes": [[0, [[1, 0.0], [1, 0.0]]]]}, "'changes' must speak of each group"),
        ({"storage": ["hooked"]}, "does not say of every tensor how it was kept"),
        (
            {"groups": [{"rank": 1, "eps": 1e-3, "weight_decay": 0.0, "count": 9}]},
            "as many tensors",
        ),
        ({"lr": "stream"}, "is truncated"),
        ({"end": [6, "no digest"]}, "'end' in its header must be"),
    ],
)
def test_what_does_not_add_up_is_refused_before_memory_is_taken(parts, tmp_path, old, change, said):
    head, body = parts
    path = written(tmp_path / "run.zo", head | change, body, old)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=said):
        StepLog.load(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nu": 0}, "nu must be"),
        ({"scale": "papez"}, "scale must be"),
        ({"num_directions": 2}, "is truncated"),
        ({"momentim": 0.1}, "a setting 'momentim', which no method knows"),
        ({"betas": [0.9, 0.99]}, "run.zo has settings of another method"),
    ],
)
def test_settings_that_no_method_has(parts, tmp_path, change, said):
    head, body = parts
    path = written(tmp_path / "run.zo", head | {"settings": head["settings"] | change}, body)
    with pytest.raises(FileFormatError, match=said):
        replay(net(), path)


def test_another_method_is_named_with_the_file(parts, tmp_path):
    head, body = parts
    path = written(tmp_path / "run.zo", head | {"method": "sgd"}, body)
    with pytest.raises(FileFormatError, match=r"run.zo is of method 'sgd'; known are lozo"):
        replay(net(), path)


@pytest.mark.parametrize("name", ["format_1", "format_1_schedule"])
def test_logs_of_the_first_format_are_replayed_and_said_to_be_unchecked(name):
    """Written by the version before checksums: momentum, weight decay, a rate a step in one of them."""
    from tests.zeroth_order.test_replay import network

    with pytest.warns(UserWarning, match=f"{name}.zo is of format 1, which {OLD}"):
        log = StepLog.load(STORED / f"{name}.zo")
    end = torch.load(STORED / f"{name}_end.pt", weights_only=True)
    for key, value in replay(network(), log).state_dict().items():
        torch.testing.assert_close(value, end[key])
    # What is written from now on is sealed.
    assert lines.is_sealed(log.to_bytes())


def test_the_log_knows_the_weights_it_led_to():
    model, optimizer = trained()
    assert optimizer.log.header["end"][0] == 6
    replay(net(), optimizer.log)  # no warning
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    optimizer.flush()
    with pytest.warns(
        UserWarning, match="not bitwise those that the run ended with: something else"
    ):
        replay(net(), optimizer.log)
    optimizer.log.header["torch"] = "1.0"
    with pytest.warns(UserWarning, match=r"computed by torch 1.0 on cpu, here it is torch \d"):
        replay(net(), optimizer.log)
    # Of fewer steps it says nothing.
    replay(net(), optimizer.log, upto=4)


def test_factors_that_are_kept_apart_have_no_end():
    _, optimizer = trained(fold=False)
    assert "end" not in optimizer.log.header
    replay(net(), optimizer.log)


def test_a_log_that_cannot_be_written_says_so_and_the_step_is_taken_once(tmp_path, monkeypatch):
    """A full disk at the write of every third step: who catches the error goes on with a log that is true."""
    monkeypatch.setattr(log_module, "WRITE_EVERY", 3)
    model, path = net(), tmp_path / "run.zo"
    optimizer = LOZO(model, 1e-2, nu=4, rank=1, seed=1, log=str(path))

    def loss():
        return model(torch.ones(1, 3)).square().sum()

    for _ in range(3):
        optimizer.step(loss)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            optimizer.step(loss)
        with pytest.raises(
            WriteError, match="run.zo could not be written .No space left on device"
        ):
            optimizer.step(loss)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.zo"]
    assert len(optimizer.log) == optimizer.t == 6
    optimizer.step(loss)
    optimizer.flush()
    rebuilt = replay(net(), path)
    assert all(
        torch.equal(a, b) for a, b in zip(rebuilt.parameters(), model.parameters(), strict=True)
    )


# ------------------------------------------------------------------ a folder again


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model folder with a tokenizer's file, and the log of a run on it."""
    transformers = pytest.importorskip("transformers", reason="needs the llm extra")
    folder = tmp_path_factory.mktemp("folders")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=1, n_head=1, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder / "base")
    (folder / "base" / "vocab.json").write_text("{}")
    ids = torch.zeros(1, 4, dtype=torch.long)
    optimizer = LOZO(model, 1e-2, nu=5, rank=1, seed=1, log=str(folder / "run.zo"))
    for _ in range(3):
        optimizer.step(lambda: model(input_ids=ids, labels=ids).loss)
    optimizer.flush()
    return folder, model


def replayed(*words):
    from surefoot.cli import main

    return main(["zo", "replay", *map(str, words)])


def test_replay_writes_a_new_folder(base, tmp_path, capsys):
    from transformers import GPT2LMHeadModel

    folder, model = base
    assert replayed(folder / "base", folder / "run.zo", tmp_path / "a" / "out") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a" / "out")
    found = GPT2LMHeadModel.from_pretrained(tmp_path / "a" / "out")
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True)
    )
    assert (tmp_path / "a" / "out" / "vocab.json").read_text() == "{}"
    assert replayed(folder / "base", folder / "run.zo", tmp_path / "b", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "b")}
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_replay_refuses_to_write_over_anything_before_it_loads_anything(
    base, tmp_path, monkeypatch, capsys
):
    from surefoot.zeroth_order.doors import folders

    monkeypatch.setattr(folders.StepLog, "load", lambda path: pytest.fail("loaded"))
    source, log = base[0] / "base", base[0] / "run.zo"
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("precious")
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(source, tmp_path)
    for out in (source, source / ".", tmp_path / "link", relative, source / "in" / "side",
                tmp_path / "link" / "inside", source / ".." / "base"):  # fmt: skip
        assert replayed(source, log, out) == 2
        assert "which is" in capsys.readouterr().err
        assert replayed(tmp_path / "link", log, out) == 2
        assert "or within it" in capsys.readouterr().err
    for out in ("there", "file", "dangling"):
        assert replayed(source, log, tmp_path / out) == 2
        assert f"OUT must be a new folder, got {tmp_path / out}" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before


@pytest.mark.parametrize(
    "damage", ["{", '{"architectures": ["pipeline"], "model_type": "gpt2"}', "[]"]
)
def test_a_base_that_is_no_model_is_one_sentence(base, tmp_path, damage, capsys):
    import shutil

    shutil.copytree(base[0] / "base", tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(damage)
    assert replayed(tmp_path / "base", base[0] / "run.zo", tmp_path / "out") == 2
    assert f"error: {tmp_path / 'base'} cannot be opened as a model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_code_that_a_folder_brings_is_not_run(base, tmp_path):
    import shutil

    shutil.copytree(base[0] / "base", tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    config["model_type"] = "evil"
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    (tmp_path / "base" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert replayed(tmp_path / "base", base[0] / "run.zo", tmp_path / "out") == 2
    assert not (tmp_path / "ran").exists()
