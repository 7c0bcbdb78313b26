"""The front of compact networks beside Optuna's, a grid's and torch-pruning's, at equal CPU seconds.

Optuna and scikit-learn's grid train L-BFGS networks; both fronts then go through the same magnitude pruning
(15% at a time, 40 L-BFGS iterations after each) within the same seconds. Compared is the hypervolume of
(log10 non-zero numbers, test error / that of the constant model) over each side's validation front, reference
(3.5, 1). The arms are those of the study's part `ablation`. SUREFOOT_BENCH=small: wine, one seed, 3 seconds;
SUREFOOT_SECONDS: of each side; SUREFOOT_SEED: the first of three.
"""

import ctypes
import os
import shutil
import subprocess
import time
import warnings

import numpy as np
import pytest

from surefoot.architecture import CompactMLPClassifier, random_decoder
from surefoot.architecture.experiments.ablation import warm_up
from surefoot.architecture.experiments.arms import ARMS, METHOD, PEER, Given
from surefoot.architecture.experiments.real_tables import TABLES, hypervolume, split
from surefoot.architecture.folding import run_module
from surefoot.architecture.pareto import choose
from surefoot.architecture.pretraining import DEFAULT_SPACE

SMALL = os.environ.get("SUREFOOT_BENCH") == "small"
SECONDS = float(os.environ.get("SUREFOOT_SECONDS", 3 if SMALL else 20))
FIRST = int(os.environ.get("SUREFOOT_SEED", 0))
SEEDS = (FIRST,) if SMALL else range(FIRST, FIRST + 3)
NAMES = ("wine",) if SMALL else TABLES


def front(arm, table, seed):
    decoder = random_decoder(DEFAULT_SPACE, seed)
    warm_up(arm, seed, decoder)
    return ARMS[arm](Given(table, SECONDS, seed, decoder))


def scored(points, table):
    return hypervolume(
        [(p.n_nonzero, table.relative_error(run_module(p.module, table.X_test))) for p in points]
    )


def test_hypervolume_by_hand():
    assert hypervolume([(1, 0.0)]) == 1
    assert hypervolume([(10, 0.5), (100, 0.25)]) == pytest.approx((2.5 * 0.5 + 1.5 * 0.25) / 3.5)


@pytest.mark.parametrize("name", NAMES)
def test_hypervolume_at_equal_cpu_seconds(name, capsys):
    pytest.importorskip("optuna")
    ratios = {PEER: [], "grid + pruning": []}
    for seed in SEEDS:
        table = split(name, seed)
        mine = scored(front(METHOD, table, seed), table)
        for peer, found in ratios.items():
            found.append(mine / scored(front(peer, table, seed), table))
    with capsys.disabled():
        for peer, found in ratios.items():
            print(
                f"\n{name}: hypervolume ours / {peer}, {SECONDS:g} CPU s: "
                f"mean {np.mean(found):.4f} ({', '.join(f'{r:.3f}' for r in found)})"
            )
    assert np.mean(ratios[PEER]) >= 0.98


def test_beside_structured_pruning(capsys):
    pytest.importorskip("torch_pruning")
    table = split(NAMES[0], FIRST)
    ours = front(METHOD, table, FIRST)
    for theirs in front("torch-pruning", table, FIRST):
        mine = ours[choose(ours, "best", None, theirs.n_nonzero)]
        with capsys.disabled():
            print(
                f"\n{NAMES[0]}: {theirs.n_nonzero} non-zero numbers: validation loss torch-pruning "
                f"{theirs.val_loss:.4g}, ours {mine.val_loss:.4g} with {mine.n_nonzero}"
            )


def compiled(source, folder):
    (folder / "m.c").write_text(
        source + "void predict(const double *x, double *out) { surefoot_predict(x, out); }\n"
    )
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "m.so"), str(folder / "m.c")]
    subprocess.run([*command, "-lm"], check=True)
    return ctypes.CDLL(str(folder / "m.so")).predict


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_c_of_digits_predicts_faster_than_the_grid_model(tmp_path, capsys):
    """Row by row through one loop: the C network of at most 400 numbers, scikit-learn's of equal accuracy."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, Xt, y, yt, _ = split("digits", 0)
    model = CompactMLPClassifier(time_budget=SECONDS, random_state=0)
    model._clock = time.process_time
    model = model.fit(X, y).at(max_nonzero=400)
    wanted, grid = model.score(Xt, yt), []
    for width in (4, 6, 8, 10, 12, 16):
        peer = make_pipeline(
            StandardScaler(),
            MLPClassifier(
                hidden_layer_sizes=(width,), solver="lbfgs", max_iter=100, random_state=0,
                early_stopping=False,
            ),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it stops at max_iter
            peer.fit(X, y)
        grid.append((abs(peer.score(Xt, yt) - wanted), width, peer))
    _, width, peer = min(grid, key=lambda g: g[:2])
    predict, out = compiled(model.export("c"), tmp_path), (ctypes.c_double * 10)()
    rows = [np.ascontiguousarray(x) for x in Xt]
    where = [x.ctypes.data_as(ctypes.c_void_p) for x in rows]

    def by_c(i):
        predict(where[i], out)
        return max(range(10), key=out.__getitem__)

    def by_sklearn(i):
        return int(peer.predict(rows[i][None])[0])

    def loop(one):
        start = time.process_time()
        found = [one(i) for i in range(len(rows))]
        return time.process_time() - start, found

    times = {f.__name__: min(loop(f)[0] for _ in range(3)) for f in (by_c, by_sklearn)}
    agreed = np.mean(np.array(loop(by_c)[1]) == model.predict(Xt))
    ratio = times["by_sklearn"] / times["by_c"]
    with capsys.disabled():
        print(
            f"\ndigits: {model.n_nonzero_} numbers, accuracy {wanted:.3f}; scikit-learn {width} neurons, "
            f"{peer.score(Xt, yt):.3f}; C is {ratio:.0f} times as fast a row"
        )
    assert agreed == 1
    assert ratio >= 20
