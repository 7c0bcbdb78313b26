"""The front of compact networks beside Optuna's, a grid's and torch-pruning's, at equal CPU seconds.

Optuna and scikit-learn's grid train L-BFGS networks; both fronts then go through the same magnitude pruning
(15% at a time, 40 L-BFGS iterations after each) within the same seconds. Compared is the hypervolume of
(log10 non-zero numbers, test error / that of the constant model) over each side's validation front, reference
(3.5, 1). SUREFOOT_BENCH=small: wine, one seed, 3 seconds; SUREFOOT_SECONDS: of each side.
"""

import ctypes
import os
import shutil
import subprocess
import time
import warnings

import numpy as np
import pytest
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_friedman1,
)
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

import surefoot.architecture._fit.budget as clock
from surefoot.architecture import CompactMLPClassifier, CompactMLPRegressor
from surefoot.architecture._estimator.problem import problem
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._fit.candidates import Candidate, front, nonzero
from surefoot.architecture._fit.lbfgs import fit_network
from surefoot.architecture._fit.objective import mean_loss
from surefoot.architecture._fit.portfolio import constant
from surefoot.architecture._fit.pruning_path import pruning_path
from surefoot.architecture._fit.starts import random_network
from surefoot.architecture.compaction import module_of
from surefoot.architecture.folding import fold, run_module

SMALL = os.environ.get("SUREFOOT_BENCH") == "small"
SECONDS = float(os.environ.get("SUREFOOT_SECONDS", 3 if SMALL else 20))
SEEDS = (0,) if SMALL else (0, 1, 2)
TABLES = ("wine",) if SMALL else ("friedman1", "diabetes", "wine", "breast_cancer", "digits")
LOADERS = {
    "digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine,
    "diabetes": load_diabetes,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cpu_clock(monkeypatch):
    """Both sides are given seconds of this process, as the machine may be busy."""
    monkeypatch.setattr(clock, "now", time.process_time)


def table(name, seed):
    if name == "friedman1":
        X, y = make_friedman1(1200, n_features=10, noise=0.5, random_state=seed)
    else:
        X, y = LOADERS[name](return_X_y=True)
    strata = None if name in ("friedman1", "diabetes") else y
    return train_test_split(X, y, test_size=0.25, random_state=seed, stratify=strata)


class Peer:
    """Networks of one shape each on the same split; magnitude pruning of the best in the same seconds."""

    def __init__(self, name, seed):
        self.X, self.Xt, self.y, self.yt = table(name, seed)
        self.number = name in ("friedman1", "diabetes")
        classes = 1 if self.number else int(self.y.max()) + 1
        labels = None if self.number else self.y
        if self.number:
            y, task = self.y[:, None], "squared"
        elif classes == 2:
            y, task = self.y[:, None].astype(float), "logistic"
        else:
            y, task = np.eye(classes)[self.y], "softmax"
        self.table = problem(
            self.X, y, labels, np.ones(len(y)), task, validation_fraction=0.2, certify_fraction=0.0,
            # The split that random_state=seed gives the estimator: both sides choose by the same rows.
            seed=int(check_random_state(seed).randint(np.iinfo(np.int32).max)),
        )  # fmt: skip
        self.train = self.table.rows(self.table.training)
        self.validation = self.table.rows(self.table.validation)
        self.inputs = np.flatnonzero(self.table.by.varies)
        self.rng, self.budget = np.random.default_rng(seed), Budget(SECONDS, None)
        self.found = [constant(self.train, self.validation)]

    def fit(self, widths, activation, alpha, iterations):
        start = random_network(self.inputs, len(self.train.y), widths, activation, self.rng)
        fitted = fit_network(
            start, self.train, self.validation, alpha, iterations, self.budget, keep_zeros=False
        )
        c = Candidate(fitted.network, fitted.val_loss, "peer", alpha)
        self.found.append(c)
        return c

    def prune(self):
        self.budget.share = 1.0
        for c in sorted(self.found[1:], key=lambda c: c.val_loss):
            if self.budget.over():
                break
            each = c
            for step in pruning_path(
                c.network, self.train, self.validation, c.alpha, self.budget, criterion="magnitude"
            ):
                each = Candidate(step.network, step.val_loss, "peer", c.alpha)
                self.found.append(each)

    def points(self):
        """(non-zero numbers, outputs on the test rows) of the validation front."""
        for c in front(self.found, self.number):
            module = module_of(fold(c.network, self.table.by), self.X.shape[1])
            yield nonzero(c.network, self.number), run_module(module, self.Xt)


def optuna_front(name, seed):
    """TPE over widths, depth, activation and weight decay; two objectives, the same L-BFGS."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    peer = Peer(name, seed)
    peer.budget.share = 0.5

    def objective(trial):
        widths = [
            trial.suggest_int(f"width{i}", 1, 16) for i in range(trial.suggest_int("depth", 1, 2))
        ]
        c = peer.fit(
            widths, trial.suggest_categorical("activation", ["tanh", "relu"]),
            trial.suggest_float("alpha", 1e-5, 1e-1, log=True), 150,
        )  # fmt: skip
        if peer.budget.over():
            trial.study.stop()
        return c.val_loss, float(c.network.n_params)

    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    study.optimize(objective)
    peer.prune()
    return peer, list(peer.points())


def grid_front(name, seed):
    """Eleven shapes, both activations, two weight decays, again and again."""
    peer = Peer(name, seed)
    peer.budget.share = 0.5
    shapes = [(w,) for w in (1, 2, 3, 4, 6, 8, 12, 16)] + [(4, 4), (8, 8), (16, 16)]
    while not peer.budget.over():
        for alpha in (1e-4, 1e-2):
            for widths in shapes:
                for activation in ("tanh", "relu"):
                    if not peer.budget.over():
                        peer.fit(widths, activation, alpha, 150)
    peer.prune()
    return peer, list(peer.points())


def ours_front(name, seed):
    X, Xt, y, _ = table(name, seed)
    kind = CompactMLPRegressor if name in ("friedman1", "diabetes") else CompactMLPClassifier
    model = kind(time_budget=SECONDS, random_state=seed).fit(X, y)
    return [(p.n_nonzero, run_module(p.module, Xt)) for p in model.pareto_]


def error(f, y, number):
    """Test error over that of the constant model."""
    if number:
        return float(np.mean((f[:, 0] - y) ** 2) / np.var(y))
    chosen = (f[:, 0] > 0).astype(int) if f.shape[1] == 1 else f.argmax(axis=1)
    return float(np.mean(chosen != y) / (1 - np.bincount(y).max() / len(y)))


def hypervolume(points):
    """Of (size, error) below (3.5, 1), size in log10 and at least 0, errors clipped to [0, 1]."""
    area, best = 0.0, 1.0
    for size, y in sorted(points):
        x, y = min(max(np.log10(max(size, 1)), 0.0), 3.5), min(max(y, 0.0), 1.0)
        if y < best:
            area += (3.5 - x) * (best - y)
            best = y
    return area / 3.5


def test_hypervolume_by_hand():
    assert hypervolume([(1, 0.0)]) == 1
    assert hypervolume([(10, 0.5), (100, 0.25)]) == pytest.approx((2.5 * 0.5 + 1.5 * 0.25) / 3.5)


@pytest.mark.parametrize("name", TABLES)
def test_hypervolume_at_equal_cpu_seconds(name, capsys):
    ratios = {"Optuna": [], "grid": []}
    for seed in SEEDS:
        _, _, _, yt = table(name, seed)
        number = name in ("friedman1", "diabetes")
        mine = hypervolume([(s, error(f, yt, number)) for s, f in ours_front(name, seed)])
        for peer, run in (("Optuna", optuna_front), ("grid", grid_front)):
            _, points = run(name, seed)
            theirs = hypervolume([(s, error(f, yt, number)) for s, f in points])
            ratios[peer].append(mine / theirs)
    with capsys.disabled():
        for peer, found in ratios.items():
            print(
                f"\n{name}: hypervolume ours / {peer} + magnitude pruning, {SECONDS:g} CPU s: "
                f"mean {np.mean(found):.4f} ({', '.join(f'{r:.3f}' for r in found)})"
            )
    assert np.mean(ratios["Optuna"]) >= 0.98


def torch_pruned(peer):
    """Structured pruning by torch-pruning (group L2) of the best dense network, polished like all."""
    tp = pytest.importorskip("torch_pruning")
    import torch

    from surefoot.architecture.compaction import network_of

    best = min(peer.found[1:], key=lambda c: c.val_loss)
    found, n = [], len(peer.inputs)
    for ratio in (0.25, 0.5, 0.75):
        module = module_of(best.network, peer.X.shape[1], torch.float32)
        body = module if n == peer.X.shape[1] else module[1:]
        example = torch.zeros(1, n)
        last = [m for m in body if isinstance(m, torch.nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            body, example, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
            ignored_layers=[last],
        )  # fmt: skip
        pruner.step()
        network = network_of(body)
        network = type(network)(peer.inputs, network.weights, network.biases, network.activations)
        fitted = fit_network(
            network, peer.train, peer.validation, best.alpha, 150, Budget(60.0, None),
            keep_zeros=False,
        )  # fmt: skip
        found.append(Candidate(fitted.network, fitted.val_loss, "torch-pruning", best.alpha))
    return found


def test_beside_structured_pruning(capsys):
    name, seed = TABLES[0], 0
    peer = Peer(name, seed)
    peer.budget.share = 0.5
    for widths in ((4,), (8,), (16,), (8, 8)):
        for activation in ("tanh", "relu"):
            peer.fit(widths, activation, 1e-4, 150)
    X, _, y, _ = table(name, seed)
    kind = CompactMLPRegressor if name in ("friedman1", "diabetes") else CompactMLPClassifier
    model = kind(time_budget=SECONDS, random_state=seed).fit(X, y)
    for c in torch_pruned(peer):
        size = nonzero(c.network, peer.number)
        mine = model.at(max_nonzero=size)
        loss = mean_loss(c.network, peer.validation)
        with capsys.disabled():
            print(
                f"\n{name}: {size} non-zero numbers: validation loss torch-pruning {loss:.4g}, "
                f"ours {mine.chosen_.val_loss:.4g} with {mine.n_nonzero_}"
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

    X, Xt, y, yt = table("digits", 0)
    model = CompactMLPClassifier(time_budget=SECONDS, random_state=0).fit(X, y).at(max_nonzero=400)
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
