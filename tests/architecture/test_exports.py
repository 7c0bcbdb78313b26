"""Outside torch: C compiled and compared, NumPy, scikit-learn; torch.export."""

import ctypes
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.architecture.tables import plain, table
from torch import nn

from surefoot.architecture import (
    ACTIVATIONS,
    CompactMLPClassifier,
    CompactMLPRegressor,
    MixedActivation,
    Select,
)
from surefoot.architecture.exporting import export_c, export_numpy

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler here")
DOUBLES = ctypes.POINTER(ctypes.c_double)


def compiled(source, folder):
    """The C function on rows of an array, warnings being errors."""
    (folder / "model.c").write_text(
        source + "void rows(const double *x, double *out, long n, long d, long k)\n"
        "{ for (long i = 0; i < n; i++) surefoot_predict(x + i * d, out + i * k); }\n"
    )
    library = folder / "model.so"
    command = [CC, "-O2", "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(folder / "model.c"), "-lm"], check=True)
    function = ctypes.CDLL(str(library)).rows

    def run(x, outputs):
        x = np.ascontiguousarray(x, dtype=np.float64)
        out = np.empty((len(x), outputs))
        where = [a.ctypes.data_as(DOUBLES) for a in (x, out)]
        function(*where, *(ctypes.c_long(v) for v in (len(x), x.shape[1], outputs)))
        return out

    return run


def agree(module, found, x, exact):
    with torch.no_grad():
        f = module(torch.as_tensor(x, dtype=module[-1].weight.dtype)).double().numpy()
    size = np.maximum(np.maximum(1, np.abs(f)), f.std(axis=0))
    assert (np.abs(found - f) <= (1e-9 if exact else 1e-5) * size).all()


@pytest.fixture(scope="module")
def models():
    X, _, y, _ = table("wine")
    wine = CompactMLPClassifier(steps=120, random_state=0, restarts=2).fit(X, y)
    Xd, _, yd, _ = table("diabetes")
    diabetes = CompactMLPRegressor(steps=80, random_state=0, strategy="dense").fit(Xd, yd)
    moved = CompactMLPRegressor(steps=80, random_state=0, strategy="dense", select="best").fit(
        1e-2 * Xd + 10, yd
    )
    assert moved.module_[-1].weight.dtype == torch.float64
    return {"wine": (wine, X), "diabetes": (diabetes, Xd), "moved": (moved, 1e-2 * Xd + 10)}


@needs_compiler
def test_c_is_the_module(models, tmp_path):
    for name, (model, X) in models.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = X[np.random.default_rng(0).integers(len(X), size=1000)]
        for i, point in enumerate([model.pareto_[0], model.pareto_[-1], model.chosen_]):
            each = folder / str(i)
            each.mkdir()
            found = compiled(export_c(point.module), each)(rows, point.module[-1].out_features)
            agree(point.module, found, rows, point.module[-1].weight.dtype == torch.float64)


def several_activations():
    module = plain([4, 6, 5, 2], seed=1)
    module[1] = MixedActivation([1, 1, 1, 1, 1, 1], list(ACTIVATIONS))
    return nn.Sequential(Select([5, 0, 2, 7], 8), *module)


@needs_compiler
def test_c_of_every_activation_and_of_zeros(tmp_path):
    module = several_activations()
    with torch.no_grad():
        module[1].weight[2] = 0
        module[3].weight[:, 1] = 0
    x = np.random.default_rng(0).standard_normal((200, 8)) * 3
    agree(module, compiled(export_c(module), tmp_path)(x, 2), x, exact=True)
    assert export_c(module).count("malloc") == 0
    assert [line for line in export_c(module).splitlines() if "#include" in line] == [
        "#include <math.h>"
    ]


def test_numpy_is_the_module_and_pickles(models):
    x = np.random.default_rng(0).standard_normal((200, 8)) * 3
    agree(several_activations(), export_numpy(several_activations(), 8)(x), x, exact=True)
    for model, X in models.values():
        function = pickle.loads(pickle.dumps(model.export("numpy")))
        agree(model.module_, function(X), X, model.module_[-1].weight.dtype == torch.float64)
        with pytest.raises(ValueError, match="shape"):
            function(X[:, :-1])


def test_sklearn_predicts_the_same(models):
    for model, X in models.values():
        for point in model.pareto_:
            each = model.at(max_params=point.n_params, max_nonzero=point.n_nonzero)
            names = {n for layer in each.activations_ for n in layer}
            if len(names) > 1:
                continue
            found = each.export("sklearn")
            if hasattr(model, "classes_"):
                assert (found.predict(X) == each.predict(X)).all()
                assert np.allclose(found.predict_proba(X), each.predict_proba(X), atol=1e-4)
            else:
                scale = each.predict(X).std() + abs(each.predict(X).mean())
                assert np.allclose(found.predict(X), each.predict(X), atol=1e-4 * scale)


def test_sklearn_has_one_activation():
    X, _, y, _ = table("wine")
    model = CompactMLPClassifier(steps=20, random_state=0, strategy="dense").fit(X, y)
    model.module_ = nn.Sequential(*several_activations())
    with pytest.raises(ValueError, match="one activation"):
        model.export("sklearn")
    one = CompactMLPClassifier(steps=20).fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="two classes"):
        one.export("sklearn")
    with pytest.raises(ValueError, match="format must be one of 'torch', 'numpy', 'c', 'sklearn'"):
        model.export("onnx")


def test_torch_export_runs(models):
    model, X = models["wine"]
    x = torch.as_tensor(X, dtype=model.module_[-1].weight.dtype)
    program = torch.export.export(model.export("torch"), (x,))
    assert torch.allclose(program.module()(x), model.module_(x))


def test_numpy_export_needs_no_torch(models, tmp_path):
    """A function that is unpickled elsewhere computes on arrays alone."""
    model, X = models["wine"]
    f = model.export("numpy")
    parts = {"inputs": f.inputs, "n": f.n_features}
    assert parts["n"] == X.shape[1]
    assert all(isinstance(w, np.ndarray) for w in (*f.weights, *f.biases))
    assert sys.getsizeof(pickle.dumps(f)) < 50_000
