"""DP-SGD on the branches, made on the plain network: the law of a step, and what plain Opacus does."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot import Verdict, certify
from surefoot.reparam import RepSGD, convert_to_plain, make_private, merge_state
from surefoot.reparam.guarantee import noised_law

from .nets import net

pytest.importorskip("opacus", reason="needs the privacy extra")
from opacus import PrivacyEngine

# Of Opacus: that its random numbers are not secure, and of hooks on leaves.
pytestmark = pytest.mark.filterwarnings("ignore")

SIGMA, CLIP, LR, N = 1.5, 0.3, 0.1, 12


def data(seed=3, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(N, 3, 8, 8, generator=g, dtype=torch.float64)
    return TensorDataset(x, torch.randint(0, 5, (N,), generator=g))


def private(csla, *, sigma=SIGMA, exact=True, clip=CLIP, seed=0, **settings):
    """(module, optimizer, loader, M by name), under our law or under plain Opacus'."""
    plain, mults = convert_to_plain(csla, seed=None)
    optimizer = RepSGD(plain.named_parameters(), LR, grad_mults=mults, **settings)
    given = {
        "module": plain, "optimizer": optimizer, "data_loader": DataLoader(data(), batch_size=N),
        "noise_multiplier": sigma, "max_grad_norm": clip, "poisson_sampling": False,
        "noise_generator": torch.Generator().manual_seed(seed),
    }  # fmt: skip
    made = (
        make_private(PrivacyEngine(), **given) if exact else PrivacyEngine().make_private(**given)
    )
    return *made, mults


def step(module, optimizer, loader):
    x, y = next(iter(loader))
    optimizer.zero_grad()
    nn.functional.cross_entropy(module(x), y).backward()
    optimizer.step()


def weights(module):
    return {n.removeprefix("_module."): p.detach().clone() for n, p in module.named_parameters()}


def branches_by_hand(csla):
    """One step without noise: each example's gradient of the branches, clipped, summed, in a loop."""
    sums = [torch.zeros_like(p) for p in csla.parameters()]
    for x, y in data():
        loss = nn.functional.cross_entropy(csla(x[None]), y[None])
        gradients = torch.autograd.grad(loss, list(csla.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        for total, g in zip(sums, gradients, strict=True):
            total += g * min(1.0, CLIP / (float(norm) + 1e-6))
    with torch.no_grad():
        for p, total in zip(csla.parameters(), sums, strict=True):
            p -= LR * total / N
    return merge_state(csla)


def test_without_noise_a_step_is_that_of_the_branches():
    module, optimizer, loader, _ = private(net("silu", norm="none"), sigma=0.0)
    step(module, optimizer, loader)
    expected = branches_by_hand(net("silu", norm="none"))
    for name, found in weights(module).items():
        assert torch.allclose(found, expected[name], rtol=1e-12, atol=1e-14), name
    # Planted: under plain Opacus the clip is by another norm, and the step another one.
    other, plain_dp, loader, _ = private(net("silu", norm="none"), sigma=0.0, exact=False)
    step(other, plain_dp, loader)
    assert any(not torch.allclose(w, expected[n], rtol=1e-3) for n, w in weights(other).items())


def noise_of(exact, draws=300):
    """(mean of noise^2 / (M sigma^2 C^2), its standard error, the same over M^2) of one step, many draws."""
    csla = net("silu", norm="none")
    quiet, without, loader, mults = private(csla, sigma=0.0, exact=exact)
    step(quiet, without, loader)
    still = weights(quiet)
    module, optimizer, loader, _ = private(csla, exact=exact, seed=5)
    start = weights(module)
    squares, ones, count = 0.0, 0.0, 0
    for _ in range(draws):
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(start[name.removeprefix("_module.")])
        step(module, optimizer, loader)
        for name, found in weights(module).items():
            if name in mults:
                mult = mults[name].double()
                moved = mult > 0
                noise = ((found - still[name]) * N / (LR * SIGMA * CLIP)).square()[moved]
                squares += float((noise / mult[moved]).sum())
                ones += float((noise / mult[moved].square()).sum())
                count += int(moved.sum())
    return squares / count, (2 / count) ** 0.5, ones / count


def test_the_noise_of_a_step_has_variance_m():
    mean, error, _ = noise_of(exact=True)
    assert abs(mean - 1) < 3 * error


def test_repsgd_under_plain_opacus_follows_another_law():
    """Its noise has standard deviation M."""
    mean, error, over_square = noise_of(exact=False, draws=100)
    assert abs(mean - 1) > 30 * error
    assert abs(over_square - 1) < 3 * error


def certificate(optimizer):
    return next(c for c in optimizer.original_optimizer.certificates() if "noise" in c.name)


def test_the_law_is_kept_and_says_so():
    module, optimizer, loader, _ = private(net("silu", norm="none"), momentum=0.9)
    for _ in range(5):
        step(module, optimizer, loader)
    found = certificate(optimizer)
    assert found.verdict is Verdict.KEPT
    assert {a.holds for a in found.assumptions} == {True}
    # The noise hides the sums: its size is no number to publish.
    assert found.private == ("deviations of the merged noise",)
    trajectory = optimizer.original_optimizer.certificates()[0]
    assert trajectory.verdict is Verdict.NOT_PROMISED
    assert "clipped per example and noised" in trajectory.reason


def test_a_wrong_root_breaks_it():
    module, optimizer, loader, _ = private(net("silu", norm="none"))
    optimizer.roots = {p: 1.5 * r for p, r in optimizer.roots.items()}
    # The measurement takes the roots for what they are not, as a wrong program would.
    step(module, optimizer, loader)
    exact = {p: m.sqrt() for p, m in optimizer.mults.items()}
    assert all(not torch.equal(optimizer.roots[p], exact[p]) for p in exact)
    assert certify(optimizer.original_optimizer.record, noised_law()).verdict is Verdict.BROKEN


def test_plain_opacus_is_named_as_another_law():
    module, optimizer, loader, _ = private(net("silu", norm="none"), exact=False)
    step(module, optimizer, loader)
    found = certificate(optimizer)
    assert found.verdict is Verdict.NOT_PROMISED
    assert "merged gradients" in found.reason


def test_batch_norm_and_other_misuse_are_refused():
    with pytest.raises(ValueError, match="batch norm"):
        private(net("silu", norm="bn"))
    plain, _ = convert_to_plain(net(norm="none"), seed=None)
    loader = DataLoader(data(), batch_size=4)
    given = {"noise_multiplier": 1.0, "max_grad_norm": 1.0}
    with pytest.raises(ValueError, match="grad_mults"):
        make_private(PrivacyEngine(), plain, RepSGD(plain.parameters(), LR), loader, **given)
    with pytest.raises(ValueError, match="optimizer"):
        make_private(
            PrivacyEngine(), plain, torch.optim.SGD(plain.parameters(), LR), loader, **given
        )
    with pytest.raises(ValueError, match="max_grad_norm"):
        private(net(norm="none"), clip=0.0)


@pytest.mark.parametrize("norm", ["none", "group_norm"])
def test_a_state_goes_round(norm):
    module, optimizer, loader, _ = private(net("silu", norm=norm))
    for _ in range(2):
        step(module, optimizer, loader)
    again, second, loader, _ = private(net("silu", norm=norm))
    again.load_state_dict(module.state_dict())
    second.load_state_dict(optimizer.state_dict())
    for one, two in zip(weights(module).values(), weights(again).values(), strict=True):
        assert torch.equal(one, two)
    # Also from a RepSGD that still has its multipliers: they are not applied twice.
    plain, mults = convert_to_plain(net("silu", norm=norm), seed=None)
    second.load_state_dict(RepSGD(plain.named_parameters(), LR, grad_mults=mults).state_dict())
    assert all("grad_mult" not in s for s in second.original_optimizer.state.values())
