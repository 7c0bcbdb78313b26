"""Long checks of the embedding: error after training, ablations, warm starts, speed of batches and steps."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from surefoot.architecture import MLPSpace, NetworkAutoencoder, search
from surefoot.architecture.experiments.spaces import RAW, S3, S8
from surefoot.architecture.experiments.warm_start import DECODED, RANDOM, head_start

pytestmark = pytest.mark.acceptance
# As many steps as the prototype of the derivation made in 60 and in 40 seconds of one core.
STEPS_8, STEPS_3 = 1460, 700


@pytest.fixture(scope="module")
def trained_3():
    return NetworkAutoencoder(S3).fit(steps=STEPS_3)


def shown(title, found):
    print(
        f"\n{title}: median {found['median']:.3f}, mean {found['mean']:.3f}, own depth "
        f"{found['own_depth_median']:.3f}, winners {np.round(found['winners'], 3)}, by depth "
        f"{[round(v['median'], 3) for v in found['by_source_depth'].values()]}"
    )


def test_eight_inputs_are_embedded():
    found = NetworkAutoencoder(S8).fit(steps=STEPS_8).certificate(600)
    shown("S8, probe", found)
    assert found["median"] <= 0.35
    assert found["winners"].min() >= 0.05


def test_the_own_depth_decoder_learns_with_the_default_loss(trained_3):
    found = trained_3.certificate(800)
    shown("S3, probe", found)
    assert found["own_depth_median"] <= 0.25


def test_without_standard_outputs_nothing_is_learnt():
    found = NetworkAutoencoder(RAW).fit(steps=STEPS_3).certificate(800)
    shown("S3, raw outputs", found)
    assert found["median"] > 0.8


@pytest.mark.filterwarnings("ignore:decoders of depth")
def test_with_the_winner_alone_decoders_collapse():
    model = NetworkAutoencoder(S3, winner_weight=1.0, all_weight=0.0).fit(steps=STEPS_3)
    found = model.certificate(800)
    shown("S3, winner only", found)
    assert found["winners"].min() < 0.03


def test_decoded_starts_are_ahead(trained_3):
    found = head_start(trained_3, 48, 10, seed=0)
    medians = {name: np.median(e, axis=0) for name, e in found.items()}
    for name, m in medians.items():
        print(f"\n{name}: after 0, 1, 2, 5, 10: {np.round(m[[0, 1, 2, 5, 10]], 4)}")
    assert medians[DECODED][1] <= medians[RANDOM][1] / 2
    assert medians[DECODED][5] <= 0.02
    assert medians[DECODED][5] < medians[RANDOM][5]


def fastest(call, repeats):
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize(("networks", "points", "least"), [(1000, 16, 10), (256, 256, 1.2)])
def test_a_batch_is_faster_than_a_loop(networks, points, least):
    g = torch.Generator().manual_seed(0)
    nets, x = S3.sample(networks, 2, g), S3.sample_inputs(points, g)
    modules = [nets.to_sequential(i) for i in range(networks)]
    with torch.no_grad():
        ratio = fastest(lambda: [m(x) for m in modules], 7) / fastest(lambda: nets(x), 15)
    print(f"\n{networks} networks x {points} points: {ratio:.1f} x")
    assert ratio >= least


def seconds_of_steps(cases, steps, repeats=8):
    """{name: CPU seconds of a step}; the cases take turns, so that a busy machine is busy for all of them."""
    found = dict.fromkeys(cases, np.inf)
    for _ in range(repeats):
        for name, (rows, width) in cases.items():
            g = torch.Generator().manual_seed(0)
            X = torch.randn(rows, 10, generator=g)
            space = MLPSpace(10, 1, width, 2, ("tanh", "relu"))
            ticks = []

            def clock(ticks=ticks):
                ticks.append(time.process_time())
                return len(ticks) / steps

            search(
                space, X, X[:, 0] * X[:, 1], task="regression", depth=2, restarts=8, seconds=1.0,
                batch_size=128, generator=g, clock=clock,
            )  # fmt: skip
            # Of the steps of one search the median; a look at the penalised loss is in some of them.
            found[name] = min(found[name], float(np.median(np.diff(ticks[1:]))))
    return found


def test_a_step_costs_the_same_for_any_number_of_rows():
    found = seconds_of_steps({rows: (rows, 8) for rows in (10**3, 10**4, 10**5)}, 100)
    print("\n", {k: f"{v * 1e3:.2f} ms" for k, v in found.items()})
    assert max(found.values()) <= 1.5 * min(found.values())


def test_a_step_grows_by_at_most_20_from_width_8_to_64():
    found = seconds_of_steps({w: (1000, w) for w in (8, 64)}, 60)
    print("\n", {k: f"{v * 1e3:.2f} ms" for k, v in found.items()})
    assert found[64] <= 20 * found[8]


def test_a_chunked_decoder_does_not_grow_with_the_square_of_the_width():
    """Its size at W = 64 is that at W = 16, an MLP's is many times as large; and it learns."""
    sizes = {}
    for kind in ("mlp", "chunked"):
        for w in (16, 64):
            model = NetworkAutoencoder(dataclasses.replace(S3, max_width=w), decoder=kind)
            sizes[kind, w] = sum(p.numel() for p in model.decoder.parameters())
    assert sizes["chunked", 64] < 1.01 * sizes["chunked", 16]
    assert sizes["mlp", 64] > 3 * sizes["mlp", 16]
    found = NetworkAutoencoder(S3, decoder="chunked").fit(steps=300).certificate(400)
    shown("S3, probe, chunked", found)
    assert found["median"] < 0.6
