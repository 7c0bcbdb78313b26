"""Chains under a GradScaler, clipping and other hands on the gradients between backward and step."""

import copy

import accelerate
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from surefoot.certificate import Verdict
from surefoot.lora import ChainOfLora, ChainStateError, RacCallback, RacConfig

STEPS, OVERFLOWS = 6, (0, 3, 4)


def problem():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=g, dtype=torch.float64)
    y = torch.randn(60, 3, generator=g, dtype=torch.float64)
    return x, y, torch.linalg.eigvalsh(x.T @ x / len(x))


def ridge(config=None, fused=False):
    spectrum = problem()[2]
    base = nn.Sequential(nn.Linear(6, 3, bias=False)).double()
    nn.init.zeros_(base[0].weight)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules=["0"]))
    chain = ChainOfLora(model, RacConfig(steps_per_block=1, seed=3, **(config or {})))
    groups = chain.param_groups(gamma=1 / float(spectrum[-1]))
    return chain, torch.optim.SGD(groups, lr=1.0, fused=fused)


def run(scaler=None, *, config=None, between=None, fused=False, told=False, overflows=()):
    """STEPS taken steps; those of `overflows` come on top."""
    x, y, _ = problem()
    chain, optimizer = ridge(config, fused)
    if told:
        chain.attach(optimizer, scaler=scaler)
    done = calls = 0
    while done < STEPS:
        loss = (chain.model(x) - y).square().sum() / (2 * len(x))
        if not chain.step_in_block:
            chain.observe(loss=loss.item())
        bad = calls in overflows
        calls += 1
        done += not bad
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss * (torch.inf if bad else 1)).backward()
        if between is not None:
            between(optimizer, scaler)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        chain.step(optimizer)
    return chain


def scaler(scale=2.0**16):
    return torch.amp.GradScaler("cpu", init_scale=scale)


def descent(chain):
    _, _, spectrum = problem()
    found = chain.certificates(L=float(spectrum[-1]), mu=float(spectrum[0]), f_star=0.0)
    return next(c for c in found if "G1" in c.name), chain.guarantee(L=float(spectrum[-1]))


def unscale(optimizer, scaler):
    scaler.unscale_(optimizer)


CASES = {
    "bare": {}, "unscaled early": {"between": unscale}, "fused": {"fused": True},
    "fused, unscaled early": {"fused": True, "between": unscale},
    "preconditioned": {"config": {"sketch": "gaussian", "precondition": True}},
    "alternate": {"config": {"train": "alternate"}}, "told": {"told": True},
}  # fmt: skip


def cases(long=()):
    """Every case by its name; the long ones run with the acceptance tests."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.acceptance] if name in long else [])
        for name, case in CASES.items()
    ]


@pytest.mark.parametrize("case", cases(("unscaled early", "fused, unscaled early", "told")))
def test_a_scaled_run_is_the_plain_run(case):
    plain = run(**{k: v for k, v in case.items() if k == "config"})
    scaled = run(scaler(), overflows=OVERFLOWS, **case)
    assert (plain.total_steps, scaled.total_steps) == (STEPS, STEPS)
    assert scaled.state.skipped_steps == len(OVERFLOWS)
    torch.testing.assert_close(scaled.weight("0"), plain.weight("0"), rtol=1e-9, atol=1e-12)
    for name in ("projected_grad_norm2", "grad_norm2_estimate", "loss"):
        torch.testing.assert_close(
            torch.tensor(scaled.record[name]), torch.tensor(plain.record[name]), rtol=1e-9, atol=0
        )
    certificate, guarantee = descent(scaled)
    assert certificate.verdict is Verdict.KEPT
    assert guarantee.status == "covered"


@pytest.mark.parametrize("told", [True, False])
def test_a_scale_that_is_no_power_of_two_must_be_told(told):
    chain = run(scaler(1000.0), told=told)
    certificate, guarantee = descent(chain)
    if told:
        assert certificate.verdict is Verdict.KEPT
        plain = run()
        assert chain.reports[3].grad_norm2 == pytest.approx(plain.reports[3].grad_norm2, rel=1e-5)
    else:
        assert guarantee.status == "not covered"
        assert any("scaler=scaler" in reason for reason in guarantee.reasons)
        assert chain.reports[3].grad_norm2 is None


def clip(optimizer, _):
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 0.3)


def noise(optimizer, _):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad.add_(torch.randn_like(p.grad))


def sign(optimizer, _):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad.sign_()


def clip_unscaled(optimizer, scaler):
    scaler.unscale_(optimizer)
    clip(optimizer, scaler)


@pytest.mark.parametrize(
    ("between", "scaled"), [(clip, False), (noise, False), (sign, False), (clip_unscaled, True)]
)
def test_gradients_that_somebody_changed_are_not_covered(between, scaled):
    chain = run(scaler() if scaled else None, between=between)
    certificate, guarantee = descent(chain)
    assert certificate.verdict is not Verdict.KEPT
    assert guarantee.status == "not covered"
    assert any("between backward and the step" in reason for reason in guarantee.reasons)
    assert chain.reports[0].grad_norm2 is None


def test_averaging_over_micro_batches_is_no_change():
    x, y, _ = problem()
    chain, optimizer = ridge()
    for part in range(4):
        rows = slice(15 * part, 15 * part + 15)
        ((chain.model(x[rows]) - y[rows]).square().sum() / 2 / 15).backward()
    for p in chain.trainable_parameters():
        p.grad /= 4  # a power of two, as a scale would be: what the step uses is what counts
    optimizer.step()
    report = chain.step(optimizer)
    assert report.grad_norm2 == pytest.approx(run().reports[0].grad_norm2, rel=1e-12)


def test_an_accumulated_step_counts_once_and_its_absence_not_at_all(toys):
    chain, optimizer = toys.make(steps_per_block=3)
    chain.step(optimizer)  # nothing has stepped
    assert (chain.total_steps, chain.state.skipped_steps) == (0, 1)
    toys.train(chain, optimizer, 2)
    assert chain.step(optimizer) is None
    assert chain.total_steps == 2
    with torch.no_grad():
        assert toys.train(chain, optimizer, 0) == []


class Unseen:
    """An optimizer that torch's hooks never see."""

    def __init__(self, params, lr):
        self.param_groups = [{"params": list(params), "lr": lr}]
        self.state = {}

    def step(self):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                if p.grad is not None:
                    p -= self.param_groups[0]["lr"] * p.grad

    def zero_grad(self):
        for p in self.param_groups[0]["params"]:
            p.grad = None


def test_steps_of_an_optimizer_that_hooks_do_not_see_are_counted(toys):
    chain, _ = toys.make()
    optimizer = Unseen(chain.trainable_parameters(), 0.1)
    assert len(toys.train(chain, optimizer, 12)) == 3
    chain.step(optimizer)
    assert (chain.total_steps, chain.state.skipped_steps) == (12, 1)


def test_a_copy_of_a_chain_counts_its_own_steps(toys):
    chain, _ = toys.make()
    twin = copy.deepcopy(chain)
    toys.train(twin, toys.adam(twin), 5)
    assert (chain.total_steps, twin.total_steps) == (0, 5)


class Rows(torch.utils.data.Dataset):
    def __init__(self, toys):
        self.x, self.y = toys.batch(0, rows=32)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


class Wrapped(nn.Module):
    def __init__(self, toys):
        super().__init__()
        self.net = toys.mlp()
        self.infinite = 0

    def forward(self, x, labels):
        loss = nn.functional.cross_entropy(self.net(x), labels)
        self.infinite -= 1
        return {"loss": loss * torch.inf if self.infinite == 0 else loss}


class Scaled(Trainer):
    """On a CPU a Trainer has no scaler of its own."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = scaler()


def under_trainer(toys, folder, kind, infinite=0, **more):
    model = toys.wrapped(Wrapped(toys), target_modules=["net.first", "net.second"])
    model.get_base_model().infinite = infinite
    chain = ChainOfLora(model, RacConfig(steps_per_block=2, seed=1))
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=6, learning_rate=0.1, report_to="none", save_steps=4,
        logging_strategy="no", disable_tqdm=True, per_device_train_batch_size=8, max_grad_norm=0,
        optim="sgd", lr_scheduler_type="constant", use_cpu=True,
    )  # fmt: skip
    trainer = kind(
        model=model, args=arguments, train_dataset=Rows(toys), callbacks=[RacCallback(chain)]
    )
    trainer.train(**more)
    return chain


@pytest.mark.acceptance
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_trainer_with_a_scaler(toys, tmp_path):
    plain = under_trainer(toys, tmp_path / "a", Trainer)
    scaled = under_trainer(toys, tmp_path / "b", Scaled)
    assert [r.grad_norm2 for r in scaled.reports] == pytest.approx(
        [r.grad_norm2 for r in plain.reports], rel=1e-5
    )
    skipping = under_trainer(toys, tmp_path / "c", Scaled, infinite=3)
    assert (skipping.total_steps, skipping.state.skipped_steps) == (5, 1)
    # The Trainer's own count has the skipped step: a checkpoint knows of both.
    again = under_trainer(
        toys, tmp_path / "c", Scaled, resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-4")
    )
    assert (again.total_steps, again.state.skipped_steps) == (5, 1)
    torch.testing.assert_close(again.weight("net.first"), skipping.weight("net.first"))


def test_a_bare_loop_over_accelerate(toys):
    plain = toys.make(seed=1)[0]
    toys.train(plain, torch.optim.SGD(plain.trainable_parameters(), lr=0.1), 8)
    chain, _ = toys.make(seed=1)
    inner = torch.optim.SGD(chain.trainable_parameters(), lr=0.1)
    accelerate.state.AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.scaler = scaler(3000.0)  # no power of two: accelerate's wrapper tells it
    optimizer = accelerator.prepare_optimizer(inner)
    chain.attach(optimizer)
    for i in range(8):
        x, y = toys.batch(i)
        accelerator.backward(nn.functional.cross_entropy(chain.model(x), y))
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    assert [r.grad_norm2 for r in chain.reports] == pytest.approx(
        [r.grad_norm2 for r in plain.reports], rel=1e-4
    )


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("interval", [2000, 1])
def test_the_scaler_of_accelerate_is_known_whatever_its_scale(attached, interval):
    plain = run()
    x, y, _ = problem()
    chain, inner = ridge()
    accelerate.state.AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler(
        "cpu", init_scale=1000.0, growth_interval=interval, growth_factor=3.0
    )
    optimizer = accelerator.prepare_optimizer(inner)
    if attached:
        chain.attach(optimizer)
    for _ in range(STEPS):
        loss = (chain.model(x) - y).square().sum() / (2 * len(x))
        chain.observe(loss=loss.item())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    assert [r.grad_norm2 for r in chain.reports] == pytest.approx(
        [r.grad_norm2 for r in plain.reports], rel=1e-5
    )
    certificate, guarantee = descent(chain)
    assert certificate.verdict is Verdict.KEPT
    assert guarantee.status == "covered"


def test_clipping_under_accelerate_is_no_scale():
    x, y, _ = problem()
    chain, inner = ridge()
    accelerate.state.AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.scaler = scaler(1000.0)
    optimizer = accelerator.prepare_optimizer(inner)
    accelerator.backward((chain.model(x) - y).square().sum() / (2 * len(x)))
    accelerator.scaler.unscale_(inner)
    clip(inner, None)
    optimizer.step()
    assert chain.step(optimizer).grad_norm2 is None
    assert descent(chain)[1].status == "not covered"


@pytest.mark.parametrize(
    ("between", "made", "why"),
    [
        (None, lambda: scaler(1000.0), r"chain\.attach\(optimizer, scaler=scaler\)"),
        (clip, lambda: None, "clipping"), (noise, lambda: None, "changed between backward"),
    ],
)  # fmt: skip
def test_an_estimate_that_there_is_not_says_why(between, made, why):
    chain = run(made(), between=between)
    with pytest.raises(ChainStateError, match=why):
        chain.grad_norm2_estimate()


def test_an_older_estimate_does_not_stand_for_one_that_there_is_not():
    x, y, _ = problem()
    chain, optimizer = ridge()
    for clipped in (False, True, False):
        optimizer.zero_grad()
        ((chain.model(x) - y).square().sum() / (2 * len(x))).backward()
        if clipped:
            clip(optimizer, None)
        optimizer.step()
        report = chain.step(optimizer)
        if clipped:
            with pytest.raises(ChainStateError, match="clipping"):
                chain.grad_norm2_estimate()
        else:
            assert chain.grad_norm2_estimate() == report.grad_norm2
