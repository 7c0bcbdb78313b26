"""Kilobytes that make the weights again, and states from which a run goes on bit by bit."""

import copy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from surefoot.errors import FileFormatError
from surefoot.zeroth_order import LOZO, MeZO, StepLog, ZOAdam, replay


def network(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(13, 8), nn.Flatten(), nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 4)
        )
    return model.to(dtype)


def closure_of(model, t=0):
    generator = torch.Generator().manual_seed(t)
    ids = torch.randint(0, 13, (16, 3), generator=generator)
    return lambda: model(ids).float().square().mean()


def run(model, optimizer, steps, start=0, schedule=None, nan=()):
    for t in range(start, start + steps):
        if schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = schedule(t)
        told = pytest.warns(UserWarning, match="was skipped") if t in nan[:1] else nullcontext()
        with told:
            optimizer.step((lambda: float("nan")) if t in nan else closure_of(model, t))


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(
    ("dtype", "momentum"),
    [
        (torch.bfloat16, 0.9),
        pytest.param(torch.bfloat16, 0.0, marks=pytest.mark.acceptance),
        pytest.param(torch.float32, 0.0, marks=pytest.mark.acceptance),
        pytest.param(torch.float32, 0.9, marks=pytest.mark.acceptance),
    ],
)
def test_three_hundred_steps_with_schedule_nan_and_restart(tmp_path, dtype, momentum):
    base = network(dtype)
    model = copy.deepcopy(base)
    settings = {"nu": 50, "momentum": momentum, "seed": 4, "weight_decay": 0.1}
    optimizer = LOZO(model, 0.01, log=True, **settings)

    def schedule(t):
        return 0.01 / (1 + 0.01 * t)

    run(model, optimizer, 130, schedule=schedule, nan=(100, 111))
    # The optimizer's first: it holds what the model's lacks in mid-period.
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    other = copy.deepcopy(base)
    other.load_state_dict(weights)
    again = LOZO(other, 0.01, log=True, **settings)
    again.load_state_dict(state)
    run(other, again, 170, start=130, schedule=schedule)
    again.flush()
    path = again.log.save(tmp_path / "run.zo")
    assert path.stat().st_size <= 8 * 300 + 16_000
    assert path.stat().st_size == again.log.bytes
    rebuilt = replay(copy.deepcopy(base), path)
    assert equal(rebuilt, other)
    # And the run without a restart is the same.
    run(model, optimizer, 170, start=130, schedule=schedule)
    optimizer.flush()
    assert equal(model, other)
    assert optimizer.log.digest == again.log.digest


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda m: MeZO(m, 1e-3, log=True), "mezo"),
        (lambda m: MeZO(m, 1e-3, momentum=0.9, log=True), "mezo-m"),
        (lambda m: ZOAdam(m, 1e-3, log=True), "adam"),
        (lambda m: LOZO(m, 1e-2, mode="inplace", log=True, nu=7), "lozo in place"),
        (lambda m: LOZO(m, 1e-2, num_directions=3, log=True, nu=7), "three directions"),
        (lambda m: LOZO(m, 1e-2, mode="inplace", one_sided=True, log=True, nu=7), "one-sided"),
        (lambda m: LOZO(m, 1e-2, momentum=0.9, reproject="lstsq", log=True, nu=7), "lstsq"),
        (lambda m: LOZO(m, 1e-2, v_dist="orthogonal", scale="unit", log=True, nu=7), "orthogonal"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_every_method_replays(make, name):
    base = network()
    model = copy.deepcopy(base)
    optimizer = make(model)
    for t in range(20):
        optimizer.estimate(closure_of(model, t))
        if t % 3 == 0:
            optimizer.estimate(closure_of(model, 100 + t))
        optimizer.apply()
        optimizer.step(closure_of(model, 200 + t))
    optimizer.flush()
    assert equal(replay(copy.deepcopy(base), optimizer.log), model)


def test_in_place_sixteen_bits_replay_with_their_drift():
    base = network(torch.bfloat16)
    model = copy.deepcopy(base)
    optimizer = LOZO(model, 1e-2, mode="inplace", allow_drift=True, nu=7, log=True)
    run(model, optimizer, 25)
    assert equal(replay(copy.deepcopy(base), optimizer.log), model)


def test_upto():
    base = network()
    model = copy.deepcopy(base)
    optimizer = LOZO(model, 1e-2, nu=5, log=True)
    run(model, optimizer, 10)
    middle = copy.deepcopy(model)
    run(model, optimizer, 10, start=10)
    assert equal(replay(copy.deepcopy(base), optimizer.log, upto=10), middle)
    with pytest.raises(ValueError, match="upto must be between 0 and the log's 20 steps, got 21"):
        replay(copy.deepcopy(base), optimizer.log, upto=21)


def test_a_flush_in_mid_period_is_in_the_log():
    base = network(torch.bfloat16)
    model = copy.deepcopy(base)
    optimizer = LOZO(model, 0.3, nu=20, scale="unit", log=True)
    run(model, optimizer, 7)
    optimizer.flush()
    run(model, optimizer, 6, start=7)
    optimizer.flush()
    assert equal(replay(copy.deepcopy(base), optimizer.log), model)


SCRIPT = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_resume_model import network, closure_of, LOZO
model = network()
saved = torch.load({path!r}, weights_only=False)
model.load_state_dict(saved["model"])
optimizer = LOZO(model, 0.01, nu=30, momentum=0.9)
optimizer.load_state_dict(saved["optimizer"])
for t in range(70, 120):
    optimizer.step(closure_of(model, t))
optimizer.flush()
torch.save(model.state_dict(), {out!r})
"""


def test_resume_in_a_fresh_process(tmp_path):
    """120 steps are 70, a state, a new process and 50: bit by bit."""
    model = network()
    optimizer = LOZO(model, 0.01, nu=30, momentum=0.9)
    run(model, optimizer, 70)
    path, out = tmp_path / "state.pt", tmp_path / "end.pt"
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict()}, path)
    run(model, optimizer, 50, start=70)
    optimizer.flush()
    source = Path(__file__).read_text(encoding="utf-8")
    head = source[source.index("import torch\n") : source.index("def run(")]
    (tmp_path / "test_resume_model.py").write_text(head.replace("import pytest\n", ""))
    script = SCRIPT.format(folder=str(tmp_path), path=str(path), out=str(out))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)
    end = torch.load(out, weights_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, end[name]), name


def test_what_was_trained_is_in_the_state_and_v_is_not():
    model = network()
    optimizer = LOZO(model, 0.01, nu=30, momentum=0.9)
    run(model, optimizer, 7)
    held = {k for s in optimizer.state_dict()["state"].values() for k in s}
    assert held == {"storage", "rank", "b", "base", "n"}


def test_settings_that_change_and_probes_replay():
    for mode in ("factored", "inplace"):
        base = network()
        model = copy.deepcopy(base)
        optimizer = LOZO(model, 1e-2, nu=4, mode=mode, log=True)
        for t in range(14):
            if t == 5:
                optimizer.param_groups[0]["rank"] = 3
            if t == 9:
                optimizer.param_groups[0]["weight_decay"] = 2.0
            if t % 3 == 0:
                optimizer.fd_error(closure_of(model, t))
            optimizer.step(closure_of(model, t))
        optimizer.flush()
        assert equal(replay(copy.deepcopy(base), optimizer.log), model)


def test_weights_loaded_after_the_optimizer_was_made_are_the_base():
    base, model = network(), network()
    optimizer = LOZO(model, 1e-2, nu=4, log=True)
    with torch.no_grad():
        for p, q in zip(base.parameters(), model.parameters(), strict=True):
            p.add_(1)
            q.add_(1)
    run(model, optimizer, 5)
    optimizer.flush()
    assert equal(replay(base, optimizer.log), model)


class TestWrongFiles:
    def log(self, tmp_path):
        model = network()
        optimizer = LOZO(model, 0.01, nu=5, log=True)
        run(model, optimizer, 12)
        return optimizer.log.save(tmp_path / "run.zo")

    def test_wrong_base(self, tmp_path):
        path = self.log(tmp_path)
        other = network()
        with torch.no_grad():
            other[2].bias[0] += 1
        with pytest.raises(ValueError, match="model is not the base of this log: the digest"):
            replay(other, path)

    def test_wrong_model(self, tmp_path):
        path = self.log(tmp_path)
        with pytest.raises(ValueError, match="model has no parameter '0.weight'"):
            replay(nn.ModuleDict({"other": nn.Linear(3, 3)}), path)
        narrow = network()
        narrow[4] = nn.Linear(9, 5)
        with pytest.raises(
            ValueError, match=r"4.weight of shape \[5, 9\], the log trained \[4, 9\]"
        ):
            replay(narrow, path)

    def test_truncated(self, tmp_path):
        path = self.log(tmp_path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(
            FileFormatError, match="is truncated: it should hold 12 steps .* ends in step 9"
        ):
            StepLog.load(path)

    def test_foreign_and_newer(self, tmp_path):
        path = self.log(tmp_path)
        newer = path.read_bytes().replace(b'"format":2', b'"format":9', 1)
        path.write_bytes(newer)
        with pytest.raises(FileFormatError, match="format 9, newer than 2"):
            StepLog.load(path)
        path.write_bytes(b"hello")
        with pytest.raises(FileFormatError, match="is no log of a zeroth-order run"):
            StepLog.load(path)
        with pytest.raises(FileFormatError, match="is no file"):
            StepLog.load(tmp_path / "nothing.zo")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda m: MeZO(m, 0.1), "state is of method 'lozo', not 'mezo'"),
            (lambda m: LOZO(m, 0.1, nu=6), "other settings: nu 5 instead of 6"),
            (lambda m: LOZO(m, 0.1, nu=5, rank=3), "state has rank 2, this optimiser 3"),
            (lambda m: LOZO(m, 0.1, nu=5, seed=1), "seed 0 instead of 1"),
            (lambda m: LOZO(list(m.parameters())[:2], 0.1, nu=5, model=m), "groups of sizes"),
        ],
    )
    def test_states_that_do_not_fit(self, make, message):
        model = network()
        optimizer = LOZO(model, 0.1, nu=5)
        run(model, optimizer, 3)
        state = optimizer.state_dict()
        with pytest.raises(ValueError, match=message):
            make(network()).load_state_dict(state)

    def test_no_state_between_the_halves_of_a_step(self):
        model = network()
        optimizer = LOZO(model, 0.1, nu=5)
        optimizer.estimate(closure_of(model))
        with pytest.raises(ValueError, match="must not come between"):
            optimizer.state_dict()
