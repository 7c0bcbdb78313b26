"""A checkpoint that is half-written or damaged is never what a training goes on from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers", reason="needs the llm extra")
pytest.importorskip("peft", reason="needs the llm extra")

from tests.faults import trainings

from surefoot._sealed import checkpoints
from surefoot.errors import FileFormatError, WriteError
from surefoot.lora import ChainStateError, RacCallback

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        ".is_gradient_checkpointing:FutureWarning",
        ".*pin_memory:UserWarning",
        # Older Trainers say so of checkpoints that follow one another quickly.
        "mtime may not be reliable:UserWarning",
        "Could not find a config file in  - will assume:UserWarning",
    )
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["zo", "rac"])
def run(request, tmp_path_factory):
    """A training of six steps: its kind, its folder with the checkpoints of steps 2 and 4, and its end."""
    folder = tmp_path_factory.mktemp(request.param)
    trainer = trainings.MAKE[request.param](folder, max_steps=6, save_total_limit=None)
    trainer.train()
    shutil.rmtree(folder / "checkpoint-6")
    return request.param, folder, trainings.ended(trainer)


@pytest.fixture
def again(run, tmp_path):
    """That folder once more, its last checkpoint, and how to go on in it: the end that this leads to."""
    kind, source, wanted = run
    folder = tmp_path / "run"
    shutil.copytree(source, folder)

    def resume():
        trainer = trainings.MAKE[kind](folder, max_steps=6)
        trainings.go_on(trainer)
        assert trainings.ended(trainer) == wanted

    return folder, folder / "checkpoint-4", resume


def in_order(folder):
    """The files of a checkpoint as they were written."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != checkpoints.SUMS]
    return sorted(files, key=lambda p: (p.stat().st_mtime_ns, p.name == checkpoints.STATE))


def half_written(folder, count):
    """As a kill leaves it: some files whole, one cut, the others not there."""
    files = in_order(folder)
    for late in files[count + 1 :]:
        late.unlink()
    files[count].write_bytes(files[count].read_bytes()[:-9])
    (folder / checkpoints.SUMS).unlink()
    (folder / checkpoints.SAVING).touch()


def test_a_whole_checkpoint_has_the_sums_of_all_its_files(run):
    kind, folder, _ = run
    for step in (2, 4):
        there = folder / f"checkpoint-{step}"
        assert checkpoints.fault(there) is None
        assert not (there / checkpoints.SAVING).exists()
        named = json.loads((there / checkpoints.SUMS).read_bytes())["files"]
        assert set(named) == {str(p.relative_to(there)) for p in in_order(there)}
        assert {"trainer_state.json", "optimizer.pt"} <= set(named)
        assert ("chain_state.safetensors" in named) is (kind == "rac")


@pytest.mark.parametrize(
    "at", [3, *(pytest.param(at, marks=pytest.mark.acceptance) for at in (0, 1, 2, 4, 5, 6, -1))]
)
def test_a_half_written_one_is_set_aside_and_the_end_is_the_same(again, at):
    folder, last, resume = again
    half_written(last, at % len(in_order(last)))
    with pytest.warns(
        UserWarning, match=r"checkpoint-4 is half-written \(trainer_state.json is mis"
    ):
        resume()
    assert (folder / "incomplete-checkpoint-4").is_dir()
    assert (folder / "checkpoint-6" / checkpoints.SUMS).is_file()


def test_every_half_written_state_is_seen(run, tmp_path):
    _, source, _ = run
    for count in range(len(in_order(source / "checkpoint-4"))):
        folder = tmp_path / str(count)
        shutil.copytree(source, folder)
        half_written(folder / "checkpoint-4", count)
        with pytest.warns(UserWarning, match="training resumes from checkpoint-2"):
            assert checkpoints.set_aside(folder) == []
        assert sorted(p.name for p in folder.glob("*checkpoint-*")) == [
            "checkpoint-2", "incomplete-checkpoint-4",
        ]  # fmt: skip


@pytest.mark.parametrize("way", ["missing", "cut", "flipped"])
def test_every_damaged_file_is_named(run, tmp_path, way):
    _, source, _ = run
    shutil.copytree(source, tmp_path / "run")
    last = tmp_path / "run" / "checkpoint-4"
    for file in [*in_order(last), last / checkpoints.SUMS]:
        content = file.read_bytes()
        changed = content[:-1] if way == "cut" else content[:-3] + b"~" + content[-2:]
        file.write_bytes(changed)
        if way == "missing":
            file.unlink()
        found = checkpoints.fault(last)
        if way == "missing" and file.name == checkpoints.SUMS:
            # As another Trainer leaves it.
            assert found is None
        else:
            assert found.kind == "damaged"
            assert file.name in found.what
        file.write_bytes(content)
    assert checkpoints.fault(last) is None


def test_a_damaged_one_is_left_for_the_one_before(again):
    folder, last, resume = again
    optimizer = last / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"checkpoint-4 is damaged \(optimizer.pt has"):
        resume()
    assert (folder / "damaged-checkpoint-4").is_dir()


def test_where_nothing_whole_is_left_training_begins_anew(again):
    folder, last, resume = again
    shutil.rmtree(folder / "checkpoint-2")
    half_written(last, 1)
    with pytest.warns(UserWarning, match="no other is whole"):
        resume()


def test_what_is_damaged_and_asked_for_by_name_is_an_error(run, tmp_path):
    kind, source, _ = run
    shutil.copytree(source, tmp_path / "run")
    last = tmp_path / "run" / "checkpoint-4"
    scheduler = last / "scheduler.pt"
    scheduler.write_bytes(scheduler.read_bytes() + b"\0")
    error, path = (FileFormatError, str(last)) if kind == "zo" else (ChainStateError, str(last))
    trainer = trainings.MAKE[kind](tmp_path / "other", max_steps=6)
    if kind == "rac":
        callbacks = trainer.callback_handler.callbacks
        next(c for c in callbacks if isinstance(c, RacCallback)).resume_dir = last
    with pytest.raises(error, match=r"checkpoint-4 is damaged, scheduler.pt has \d+ bytes"):
        trainer.train(resume_from_checkpoint=path)


def test_the_only_one_damaged_is_an_error_not_a_new_training(run, tmp_path):
    kind, source, _ = run
    folder = tmp_path / "run"
    shutil.copytree(source, folder)
    shutil.rmtree(folder / "checkpoint-2")
    rng = folder / "checkpoint-4" / "rng_state.pth"
    rng.write_bytes(rng.read_bytes() + b"\0")
    if kind == "zo":
        with pytest.raises(FileFormatError, match="checkpoint-4 is damaged, rng_state.pth has"):
            trainings.go_on(trainings.MAKE[kind](folder, max_steps=6))
        return
    with pytest.warns(
        UserWarning, match="damaged: rng_state.pth has .* no other checkpoint is whole"
    ):
        trainer = trainings.MAKE[kind](folder, max_steps=6)
    with pytest.raises(ChainStateError, match="rng_state.pth has"):
        trainings.go_on(trainer)
    assert (folder / "checkpoint-4").is_dir()


def test_a_full_disk_leaves_no_half_of_a_checkpoint(tmp_path, monkeypatch):
    """What the Trainer itself cannot write is in `test_full_disk`."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    trainer = trainings.zo(tmp_path, max_steps=4)
    complete = checkpoints.complete

    def late(folder):
        if checkpoints.step_of(folder) == 4:
            monkeypatch.setattr(os, "fsync", full)
        complete(folder)

    monkeypatch.setattr(checkpoints, "complete", late)
    with pytest.raises(
        WriteError, match=r"checkpoint-4/surefoot.sums.json could not be written .No space left"
    ):
        trainer.train()
    # The one before was removed by then: of this one only the mark is missing.
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    monkeypatch.undo()
    again = trainings.zo(tmp_path, max_steps=4)
    trainings.go_on(again)
    assert trainings.ended(again) == trainings.ended(trainer)


def test_one_that_a_living_process_writes_is_left_alone(tmp_path):
    folder = tmp_path / "checkpoint-2"
    script = (
        "import sys; from surefoot._sealed import checkpoints; checkpoints.begin(sys.argv[1]);"
        "print('begun', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        writer.stdout.readline()
        assert checkpoints.set_aside(tmp_path) == []
        assert folder.is_dir()
        writer.kill()
    with pytest.warns(UserWarning, match="half-written"):
        checkpoints.set_aside(tmp_path)
    assert not folder.exists()


def test_a_checkpoint_in_the_place_of_another_is_not_taken_for_that(run, tmp_path):
    """A second training into the same folder: the mark of the first goes before anything is written."""
    _, source, _ = run
    shutil.copytree(source, tmp_path / "run")
    last = tmp_path / "run" / "checkpoint-4"
    checkpoints.begin(last)
    assert checkpoints.fault(last).kind == "half-written"
    checkpoints.give_up(last)
    assert not last.exists()


@pytest.mark.parametrize("kind", ["zo", "rac"])
def test_killed_after_its_last_checkpoint_a_training_takes_no_step_more(kind, tmp_path):
    """transformers itself takes one, wherever the last step does not end an epoch."""
    first = trainings.MAKE[kind](tmp_path, max_steps=3, save_steps=3)
    first.train()
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoint-3").iterdir()}
    again = trainings.MAKE[kind](tmp_path, max_steps=3, save_steps=3)
    trainings.go_on(again)
    assert trainings.ended(again) == trainings.ended(first)
    assert again.state.global_step == 3
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoint-3").iterdir()} == before
    # Unless it is asked to go on.
    further = trainings.MAKE[kind](tmp_path, max_steps=5, save_steps=3)
    trainings.go_on(further)
    assert further.state.global_step == 5
    assert trainings.ended(further) != trainings.ended(first)


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["zo", "rac"])
def test_thirty_kills_end_bit_identical(kind, tmp_path, measured):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.trainings", kind, str(tmp_path), "0", "30"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    measured(f"{kind}: 30 kills", "every end bit-identical", found)
    assert found["errors"] == []
    assert found["killed"] >= 30
    assert found["bit-identical"] == found["ended"] > 0
