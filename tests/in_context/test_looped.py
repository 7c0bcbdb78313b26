import subprocess
import sys
from pathlib import Path

import pytest
import torch

from surefoot.in_context import GaussianPrompts, LoopedTransformer
from surefoot.in_context._attention import read_attention


def filled(d, loops, *, tied=True, seed=0, form="auto"):
    model = LoopedTransformer(d, loops, tied=tied, train_u=True, dtype=torch.float64, form=form)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.A.copy_(0.3 * torch.randn(model.A.shape, generator=g, dtype=torch.float64))
        model.u.copy_(torch.randn(d, generator=g, dtype=torch.float64))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n", [9, 4])
def test_the_three_forms_are_one_model(n, tied):
    p = GaussianPrompts(6, n, seed=1).sample(64)
    literal, feature, gram, auto = (
        filled(6, 4, tied=tied, form=form)(p.X, p.y, p.xq)
        for form in ("literal", "feature", "gram", "auto")
    )
    assert literal.abs().max() > 0.1
    assert (literal - feature).abs().max() < 1e-11
    assert (literal - gram).abs().max() < 1e-11
    assert torch.equal(auto, feature if n >= 6 else gram)


def test_without_bias_it_is_gradient_descent():
    """Written out: w <- w - A' grad of |X'w - y|^2 / 2n, by autograd, from w = 0."""
    model = filled(5, 3)
    with torch.no_grad():
        model.u.zero_()
    p = GaussianPrompts(5, 8, seed=2).sample(1)
    w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    path = [w.detach()]
    for _ in range(3):
        loss = (p.X[0].T @ w - p.y[0]).square().sum() / 16
        (slope,) = torch.autograd.grad(loss, w)
        w = (w - model.A.detach().T @ slope).detach().requires_grad_()
        path.append(w.detach())
    found = model.weights(p.X, p.y, return_all=True)[0].detach()
    assert torch.allclose(found, torch.stack(path), rtol=1e-12, atol=1e-14)
    assert torch.allclose(model(p.X, p.y, p.xq).detach(), p.xq @ path[-1], rtol=1e-12)


@pytest.mark.parametrize("form", ["feature", "gram", "literal"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_the_prediction(form, tied):
    model = filled(4, 3, tied=tied, form=form)
    p = GaussianPrompts(4, 6, seed=3).sample(5)
    with torch.no_grad():
        assert torch.allclose((model.weights(p.X, p.y) * p.xq).sum(1), model(p.X, p.y, p.xq))
        every = model.weights(p.X, p.y, return_all=True)
        assert every.shape == (5, 4, 4)
        for loops in range(4):
            fewer = model(p.X, p.y, p.xq, loops=loops)
            assert torch.allclose((every[:, loops] * p.xq).sum(1), fewer)


def test_a_tied_model_is_an_untied_one_of_equal_layers():
    one, many = filled(4, 3), filled(4, 3, tied=False)
    with torch.no_grad():
        many.A.copy_(one.A.expand(3, 4, 4))
        many.u.copy_(one.u)
        p = GaussianPrompts(4, 6, seed=3).sample(5)
        for form in ("feature", "gram", "literal"):
            one.form = many.form = form
            assert torch.allclose(one(p.X, p.y, p.xq), many(p.X, p.y, p.xq), rtol=1e-12)


def test_of_untied_layers_the_first_is_applied_first():
    model = filled(3, 2, tied=False)
    with torch.no_grad():
        model.A[1].zero_()
        p = GaussianPrompts(3, 6, seed=3).sample(5)
        assert torch.allclose(model(p.X, p.y, p.xq), model(p.X, p.y, p.xq, loops=1))
        model.A[1].copy_(model.A[0])
        model.A[0].zero_()
        assert not torch.allclose(model(p.X, p.y, p.xq), model(p.X, p.y, p.xq, loops=1))


@pytest.mark.parametrize("form", ["auto", "feature", "gram", "literal"])
def test_nothing_to_go_by_predicts_zero(form):
    model = filled(3, 2, form=form)
    X = torch.zeros(4, 3, 0, dtype=torch.float64)
    y, xq = torch.zeros(4, 0, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64)
    assert torch.equal(model(X, y, xq), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(model.weights(X, y), torch.zeros(4, 3, dtype=torch.float64))
    p = GaussianPrompts(3, 5, seed=0).sample(4)
    assert torch.equal(model(p.X, p.y, p.xq, loops=0), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(LoopedTransformer(3, 0, dtype=torch.float64)(p.X, p.y, p.xq), 0 * p.target)


@pytest.mark.parametrize("n", [4, 2])
@pytest.mark.parametrize("form", ["feature", "gram", "literal"])
def test_gradients(form, n):
    model = filled(3, 3, form=form)
    p = GaussianPrompts(3, n, seed=5).sample(2)
    inputs = [v.clone().requires_grad_() for v in (p.X, p.y, p.xq)]

    def call(A, u, X, y, xq):
        return torch.func.functional_call(model, {"A": A, "u": u}, (X, y, xq))

    assert torch.autograd.gradcheck(call, (model.A, model.u, *inputs))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("train_u", [True, False])
def test_state_dict_round_trip(tied, train_u):
    model = LoopedTransformer(3, 2, tied=tied, train_u=train_u, init_std=0.3, sigma=torch.eye(3))
    other = LoopedTransformer(3, 2, tied=tied, train_u=train_u)
    other.load_state_dict(model.state_dict())
    p = GaussianPrompts(3, 5, seed=0, dtype=torch.float32).sample(4)
    assert torch.equal(model(p.X, p.y, p.xq), other(p.X, p.y, p.xq))
    assert set(model.state_dict()) == {"A", "u"}
    assert {k for k, _ in model.named_parameters()} == ({"A", "u"} if train_u else {"A"})


def test_precision_follows_the_module():
    model = LoopedTransformer(3, 2, init_std=0.3)
    p = GaussianPrompts(3, 5, seed=0).sample(4)
    single = model(p.X.float(), p.y.float(), p.xq.float())
    double = model.double()(p.X, p.y, p.xq)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-6)
    back = model.float()(p.X.float(), p.y.float(), p.xq.float())
    assert torch.allclose(back, single, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^X must have the model's dtype torch.float32.*\.double"):
        model(p.X, p.y, p.xq)


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.acceptance)]
)
def test_it_compiles_whole(backend):
    script = Path(__file__).with_name("compiled.py")
    done = subprocess.run(
        [sys.executable, script, backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_layers_of_their_own_start_apart_and_by_the_seed():
    a, b = (LoopedTransformer(3, 2, tied=False, seed=s) for s in (0, 1))
    assert not torch.equal(a.A[0], a.A[1])
    assert not torch.equal(a.A, b.A)
    assert torch.equal(a.A, LoopedTransformer(3, 2, tied=False).A)
    assert not LoopedTransformer(3, 2).A.any()


def attention_matrices(A, u, scale=2.0, seed=0):
    """W_q, W_k, W_v, W_o of a layer with Q = [[A, 0], [0, 0]] / scale and P = scale [[0, 0], [u', 1]]."""
    d = len(A)
    Q, P = torch.zeros(d + 1, d + 1).double(), torch.zeros(d + 1, d + 1).double()
    Q[:d, :d], P[d, :d], P[d, d] = A / scale, scale * u, scale
    mix = torch.randn(2, d + 1, d + 1, generator=torch.Generator().manual_seed(seed)).double()
    return torch.linalg.inv(mix[0]).T @ Q, mix[0], mix[1] @ P, torch.linalg.inv(mix[1])


def by_hand(W_q, W_k, W_v, W_o, p, loops, sign):
    n = p.X.shape[-1]
    Z = torch.cat([torch.cat([p.X, p.y[:, None]], 1), torch.zeros(len(p.y), len(W_q[0]), 1)], 2)
    Z[:, :-1, -1] = p.xq
    for _ in range(loops):
        scores = (W_k @ Z).mT @ (W_q @ Z)
        values = W_o @ (W_v @ Z)
        Z = Z + sign * values[..., :n] @ scores[:, :n] / n
    return -Z[:, -1, -1]


@pytest.mark.parametrize(("residual", "sign"), [("subtract", -1), ("add", 1)])
def test_a_users_layer_is_read(residual, sign):
    source = filled(3, 2)
    matrices = attention_matrices(source.A.detach(), source.u.detach())
    p = GaussianPrompts(3, 7, seed=1).sample(6)
    model = LoopedTransformer.from_attention(*matrices, loops=2, residual=residual)
    with torch.no_grad():
        assert torch.allclose(model(p.X, p.y, p.xq), by_hand(*matrices, p, 2, sign), rtol=1e-9)
        if residual == "subtract":
            assert torch.allclose(model.A, source.A, rtol=1e-9)
            assert torch.allclose(model.u, source.u, rtol=1e-9)


def spoiled(which, row, column):
    matrices = [
        m.clone() for m in attention_matrices(torch.eye(3).double(), torch.ones(3).double())
    ]
    matrices[1], matrices[3] = torch.eye(4).double(), torch.eye(4).double()
    Q, P = torch.zeros(4, 4).double(), torch.zeros(4, 4).double()
    Q[:3, :3], P[3] = torch.eye(3), 1.0
    {"Q": Q, "P": P}[which][row, column] = 0.01
    return Q, matrices[1], P, matrices[3]


@pytest.mark.parametrize(
    ("matrices", "says"),
    [
        (spoiled("Q", 3, 0), "^W_k'W_q must be zero outside"),
        (spoiled("Q", 0, 3), "^W_k'W_q must be zero outside"),
        (spoiled("P", 0, 0), "^W_o W_v must be zero outside"),
        (spoiled("P", 1, 3), "^W_o W_v must be zero outside"),
        ((torch.eye(4), torch.eye(3), torch.eye(4)), "^W_k must have the shape"),
        ((torch.eye(4), torch.eye(4), torch.eye(3)), "^W_v must have 4 columns"),
        ((torch.eye(4), torch.eye(4), torch.eye(4)[:2]), r"^W_v must have shape \(4, 4\)"),
        ((torch.eye(4), torch.eye(4), torch.eye(4), torch.eye(3)), "^W_o must have shape"),
        ((torch.eye(4) * float("nan"), torch.eye(4), torch.eye(4)), "^W_q must be finite"),
        ((torch.eye(1), torch.eye(1), torch.eye(1)), "^W_q must act on tokens"),
    ],
)
def test_what_is_no_such_layer_is_refused(matrices, says, unchecked):
    with pytest.raises(ValueError, match=says):
        LoopedTransformer.from_attention(*matrices)


def test_a_layer_that_reads_no_label_is_refused(unchecked):
    Q, P = torch.zeros(4, 4), torch.zeros(4, 4)
    Q[:3, :3], P[3, 0] = torch.eye(3), 1.0
    with pytest.raises(ValueError, match="^W_v must pass the label on"):
        LoopedTransformer.from_attention(Q, torch.eye(4), P)


@pytest.mark.parametrize(
    ("args", "options", "says"),
    [
        ((0, 2), {}, "^d must be"), ((3, -1), {}, "^loops must be"), ((3, 1.5), {}, "^loops must be"),
        ((3, 2), {"form": "fast"}, "^form must be one of"), ((3, 2), {"tied": 1}, "^tied must be True"),
        ((3, 2), {"train_u": None}, "^train_u must be True or False"),
        ((3, 2), {"init_std": -1}, "^init_std must be"), ((3, 2), {"seed": -1}, "^seed must be"),
        ((3, 2), {"sigma": torch.diag(torch.tensor([1.0, 1.0, 0.0]))}, "^sigma must be positive definite"),
        ((3, 2), {"sigma": torch.diag(torch.tensor([1.0, 1.0, -1.0]))}, "^sigma must be positive definite"),
        ((3, 2), {"sigma": torch.eye(2)}, "^sigma must have shape"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(args, options, says, unchecked):
    with pytest.raises(ValueError, match=says):
        LoopedTransformer(*args, **options)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X": torch.zeros(4, 2, 5)}, r"^X must have shape \(batch, 3, n\)"),
        ({"X": torch.zeros(3, 5)}, "^X must have shape"),
        ({"y": torch.zeros(4, 6)}, r"^y must have shape \(4, 5\)"),
        ({"xq": torch.zeros(4, 2)}, r"^xq must have shape \(4, 3\)"),
        ({"X": torch.full((4, 3, 5), float("nan"))}, "^X must be finite"),
        ({"y": torch.full((4, 5), float("inf"))}, "^y must be finite"),
        ({"xq": torch.full((4, 3), -float("inf"))}, "^xq must be finite"),
        ({"X": [[1.0]]}, "^X must be a tensor"), ({"y": torch.zeros(4, 5).long()}, "^y must be a tensor"),
        ({"y": torch.zeros(4, 5).double()}, "^y must have the model's dtype"),
        ({"loops": -1}, "^loops must be"), ({"loops": 3}, "^loops must be at most 2"),
    ],
)  # fmt: skip
def test_bad_prompts_are_named(change, says, unchecked):
    model = LoopedTransformer(3, 2, tied=False)
    good = {
        "X": torch.zeros(4, 3, 5),
        "y": torch.zeros(4, 5),
        "xq": torch.zeros(4, 3),
        "loops": None,
    }
    model(**good)
    with pytest.raises(ValueError, match=says):
        model(**{**good, **change})


def test_large_finite_numbers_are_no_infinity():
    """Their sum overflows where none of them does."""
    model = LoopedTransformer(3, 1)
    X = torch.full((4, 3, 5), 3e38)
    assert model(X, torch.zeros(4, 5), torch.zeros(4, 3)).shape == (4,)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_layer_in_16_bits_is_read_in_float64(kind):
    """What lies outside the blocks is judged by the numbers that are there, large or small."""
    d, value = 300, 1e-4 if kind == torch.float16 else 1.0
    P = torch.zeros(d + 1, d + 1, dtype=kind)
    P[d, d] = 1
    Q = torch.zeros(d + 1, d + 1, dtype=kind)
    Q[:d, :d] = value * torch.eye(d, dtype=kind)
    model = LoopedTransformer.from_attention(Q, torch.eye(d + 1, dtype=kind), P)
    assert model.A.dtype == kind
    assert torch.equal(model.A.detach(), Q[:d, :d])
    Q[d, :d] = value / 100  # a tenth of a hundredth of the norm
    with pytest.raises(ValueError, match="zero outside the block"):
        LoopedTransformer.from_attention(Q, torch.eye(d + 1, dtype=kind), P)


@pytest.mark.parametrize("bias", [False, True])
def test_layers_in_place_of_their_matrices_are_refused_with_what_to_give(bias):
    layers = [torch.nn.Linear(4, 4, bias=bias) for _ in range(3)]
    words = "^W_q must be a matrix, got the module Linear; give its .weight"
    with pytest.raises(ValueError, match=words) as caught:
        read_attention(*layers, None, residual="subtract", tol=1e-6)
    assert ("mind its bias" in str(caught.value)) == bias


def drawn_model():
    model = LoopedTransformer(4, 3, init_std=0.2, train_u=True, dtype=torch.float32)
    with torch.no_grad():
        model.u.fill_(0.1)
    return model, GaussianPrompts(4, 12, seed=0, dtype=torch.float32).sample(5)


def test_autocast_does_not_round_the_loops():
    model, p = drawn_model()
    plain, weights = model(p.X, p.y, p.xq), model.weights(p.X, p.y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(p.X, p.y, p.xq), plain)
        assert torch.equal(model.weights(p.X, p.y), weights)


def test_gradients_of_each_prompt_under_torch_func():
    model, p = drawn_model()
    parameters = {k: v.detach() for k, v in model.named_parameters()}

    def loss(values, X, y, xq, target):
        out = torch.func.functional_call(model, values, (X[None], y[None], xq[None]))
        return (out[0] - target) ** 2

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0))
    found = each(parameters, p.X, p.y, p.xq, p.target)
    for i in range(5):
        model.zero_grad()
        ((model(p.X, p.y, p.xq) - p.target)[i] ** 2).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name][i], parameter.grad, rtol=1e-4, atol=1e-5)
