"""One shape of spline network, us and the peers in one process: `python kan_row.py WIDTHS G BATCH ROUNDS`.

A process a shape: peers that go through torch.compile recompile for every shape, and past the limit of
recompilations they fall back to eager mode without a word. CPU time of the thread, interleaved, least of
all rounds. Prints one JSON line.
"""

import contextlib
import io
import json
import sys
import time
import warnings
from itertools import pairwise

import torch
from torch import nn

from surefoot.kan import KAN

QUICK = "--quick" in sys.argv
"""Only the peers that need no compilation."""


class EfficientLinear(nn.Module):
    """efficient-kan's formula: Cox-de Boor by recursion on an extended grid, two products."""

    def __init__(self, a, b, grid):
        super().__init__()
        h = 2 / grid
        self.register_buffer("knots", torch.arange(-3, grid + 4) * h - 1)
        self.base = nn.Parameter(torch.randn(b, a) / a**0.5)
        self.spline = nn.Parameter(torch.randn(b, a, grid + 3) * 0.1 / a**0.5)

    def forward(self, x):
        t, x_ = self.knots, x[..., None]
        b = ((x_ >= t[:-1]) & (x_ < t[1:])).to(x.dtype)
        for k in range(1, 4):
            b = (x_ - t[: -(k + 1)]) / (t[k:-1] - t[: -(k + 1)]) * b[..., :-1] + (
                t[k + 1 :] - x_
            ) / (t[k + 1 :] - t[1:-k]) * b[..., 1:]
        out = nn.functional.linear(nn.functional.silu(x), self.base)
        return out + nn.functional.linear(b.flatten(1), self.spline.flatten(1))


class FastKANLayer(nn.Module):
    """FastKAN's formula: Gaussians of the normalised input, and SiLU."""

    def __init__(self, a, b, grid):
        super().__init__()
        self.norm = nn.LayerNorm(a)
        self.register_buffer("centres", torch.linspace(-2, 2, grid + 3))
        self.step = 4 / (grid + 2)
        self.spline = nn.Linear(a * (grid + 3), b, bias=False)
        self.base = nn.Linear(a, b)

    def forward(self, x):
        near = torch.exp(-(((self.norm(x)[..., None] - self.centres) / self.step) ** 2))
        return self.spline(near.flatten(1)) + self.base(nn.functional.silu(x))


def stack(layer, widths, *args):
    return nn.Sequential(*(layer(a, b, *args) for a, b in pairwise(widths)))


def mlp(widths):
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers)


def members(widths, grid):
    """Every network that is there; peers that are not installed are named as missing."""
    found = {
        "surefoot": KAN(widths, grid_size=grid),
        "surefoot, torch": KAN(widths, grid_size=grid, kernel="torch"),
        "efficient": stack(EfficientLinear, widths, grid),
        "FastKAN": stack(FastKANLayer, widths, grid),
        "MLP": mlp(widths),
    }
    missing = []

    def peer(name, make):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found[name] = make()
        except ImportError:
            missing.append(name)

    def inkan():
        from inkan import KANNetwork

        return KANNetwork(widths, grid_size=grid, compile_basis=not QUICK)

    def flashkan():
        from flashkan import KANNetwork

        return KANNetwork(widths, grid_size=grid)

    def kanditioned():
        from KANditioned import KANLayer

        return stack(
            lambda a, b: KANLayer(a, b, "random_normal", grid + 3, 2.0, impl="embedding_bag"),
            widths,
        )

    def pykan():
        from kan import MultKAN

        return MultKAN(
            width=list(widths), grid=grid, k=3, auto_save=False, symbolic_enabled=False
        ).speed()

    peer("inkan", inkan)
    peer("pykan", pykan)
    peer("KANditioned", kanditioned)
    if not QUICK:
        peer("flashkan", flashkan)
        for name in ("inkan", "flashkan"):
            if name in found:
                found[f"{name}, compiled"] = torch.compile(found[name])
    return found, missing


def measure(widths, grid, batch, rounds):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    networks, missing = members(widths, grid)
    # A peer's constructor reseeds the global generators: the input has one of its own.
    x = torch.rand(batch, widths[0], generator=torch.Generator().manual_seed(1)) * 1.9 - 0.95
    x.requires_grad_()
    steps, forwards, failed = {}, {}, {}
    for name, network in networks.items():

        def step(network=network):
            network.zero_grad(set_to_none=True)
            x.grad = None
            network(x).sum().backward()

        def forward(network=network):
            with torch.no_grad():
                network(x)

        try:
            for _ in range(3):
                step()
                forward()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        steps[name], forwards[name] = step, forward
    seconds = {kind: dict.fromkeys(steps, float("inf")) for kind in ("step", "forward")}
    for _ in range(rounds):
        for kind, calls in (("step", steps), ("forward", forwards)):
            for name, call in calls.items():
                start = time.thread_time()
                call()
                spent = time.thread_time() - start
                seconds[kind][name] = min(seconds[kind][name], spent)
    ms = {kind: {name: 1e3 * s for name, s in each.items()} for kind, each in seconds.items()}
    return {"ms": ms, "missing": missing, "failed": failed}


if __name__ == "__main__":
    given = [a for a in sys.argv[1:] if not a.startswith("--")]
    print(json.dumps(measure([int(w) for w in given[0].split("-")], *map(int, given[1:]))))
