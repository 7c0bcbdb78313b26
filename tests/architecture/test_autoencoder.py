"""The autoencoder: embedding, decoding, gradients through gates, its loss, training, file and certificate."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import nn

from surefoot.architecture import MLPSpace, NetBatch, NetworkAutoencoder
from surefoot.architecture._autoencoder.loss import errors_of, functional_loss
from surefoot.errors import FileFormatError

SMALL = MLPSpace(2, 1, 5, 3, ("tanh", "relu"))
PAPER = MLPSpace.paper()
KINDS = [
    ("probe", "mlp"),
    ("matrix", "mlp"),
    ("conv", "mlp"),
    ("probe", "chunked"),
    ("conv", "conv"),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def trained():
    return NetworkAutoencoder(SMALL).fit(steps=15)


@pytest.mark.parametrize(
    ("space", "encoder", "decoder"),
    [
        *((SMALL, *kind) for kind in KINDS),
        (PAPER, "conv", "conv"),
        *(pytest.param(PAPER, *kind, marks=pytest.mark.acceptance) for kind in KINDS[:-1]),
    ],
)
def test_every_depth_decodes_every_embedding(space, encoder, decoder):
    model = NetworkAutoencoder(space, 16, encoder, decoder)
    for source in (1, space.max_depth):
        z = model.encode(space.sample(3, source, generator()))
        assert z.shape == (3, 16)
        assert z.isfinite().all()
        for depth in range(1, space.max_depth + 1):
            nets = model.decode(z, depth)
            assert nets.depth == depth
            hard = model.decode(z, depth, hard=True)
            x = space.sample_inputs(5, generator(1))
            for i in range(3):
                f = hard.to_sequential(i)(x)
                torch.testing.assert_close(f, hard(x)[i], rtol=1e-4, atol=1e-4)
            # Straight through: what is trained is what is decoded.
            torch.testing.assert_close(nets(x), hard(x), rtol=1e-4, atol=1e-4)


def test_the_papers_network_has_its_shapes():
    model = NetworkAutoencoder.paper()
    assert model.encoder.sizes == [768, 1280, 1792, 2304]
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.1e6, rel=0.01)
    ends = [arm[-1][0].in_features for arm in model.decoder.arms]
    assert ends == [8 * w for w in (12, 20, 28, 36)]
    assert (model.gate, model.winner_weight, model.all_weight, model.loss) == (
        "hard",
        1,
        0,
        "plain",
    )
    small = NetworkAutoencoder(SMALL, 8, gate="hard").fit(steps=1, recipe="paper")
    assert small.record.fact("recipe").all == ("paper",)


def test_the_other_arms_of_the_encoder_give_zeros():
    model = NetworkAutoencoder(PAPER, 8, "conv")
    nets = PAPER.sample(2, 2, generator())
    seen = []
    model.encoder.shared.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.encode(nets)
    a, b = 768, 768 + 1280
    assert (seen[0][:, :a] == 0).all()
    assert (seen[0][:, b:] == 0).all()
    assert (seen[0][:, a:b] != 0).any()


@pytest.mark.parametrize(("gate", "reaches"), [("ste", True), ("soft", True), ("hard", False)])
def test_the_gradient_reaches_the_gates(gate, reaches):
    """d loss / d logit is exactly 0 for "hard" only."""
    model = NetworkAutoencoder(SMALL, gate=gate)
    raw = model.entries(torch.randn(4, 128, generator=generator()), 2)
    logits = [g.detach().requires_grad_() for g in raw.gate_logits]
    from surefoot.architecture._autoencoder.entries import to_nets

    nets = to_nets(raw._replace(gate_logits=logits), SMALL, gate=gate, temperature=0.05, hard=False)
    loss = nets(SMALL.sample_inputs(20, generator())).square().sum()
    found = torch.autograd.grad(loss, logits, allow_unused=True)
    assert all((g is not None and bool((g != 0).any())) is reaches for g in found)


def test_straight_through_gates_are_whole_and_soft_ones_are_not():
    z = torch.randn(4, 128, generator=generator())
    ste, soft = (NetworkAutoencoder(SMALL, gate=g).decode(z, 1).gates[0] for g in ("ste", "soft"))
    torch.testing.assert_close(ste, ste.round(), rtol=0, atol=1e-6)
    assert ((soft > 0.01) & (soft < 0.99)).any()


def test_a_layer_keeps_the_neuron_of_the_largest_logit():
    from surefoot.architecture._autoencoder.entries import Entries, to_nets

    nets = SMALL.sample(1, 1, generator())
    logits = torch.tensor([[-3.0, -1.0, -2.0, -5.0, -4.0]])
    raw = Entries(nets.weights, nets.biases, [logits], nets.acts)
    kept = to_nets(raw, SMALL, gate="ste", temperature=0.05, hard=True)
    assert kept.gates[0].tolist() == [[0, 1, 0, 0, 0]]
    gone = to_nets(raw, SMALL, gate="ste", temperature=0.05, hard=True, keep_one=False)
    assert gone.gates[0].sum() == 0


def test_temperature_mixes_activations_above_one_half():
    model, z = NetworkAutoencoder(SMALL), torch.randn(2, 128, generator=generator())
    warm = model.decode(z, 1, temperature=1.0).acts[0]
    assert ((warm > 0.01) & (warm < 0.99)).any()
    cold = model.decode(z, 1, temperature=0.1).acts[0]
    torch.testing.assert_close(cold, cold.round(), rtol=0, atol=1e-6)
    for bad in (0.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            model.decode(z, 1, temperature=bad)


def test_the_error_and_the_loss_are_the_formulas():
    nets, x = SMALL.sample(2, 1, generator()), SMALL.sample_inputs(50, generator())
    y = torch.randn(2, 50, 1)
    f = nets(x).double().numpy()
    wanted = [((f[i] - y[i].numpy()) ** 2).mean() / (y[i].numpy().var() + 1e-3) for i in range(2)]
    np.testing.assert_allclose(errors_of(nets, x, y).numpy(), wanted, rtol=1e-5)
    plain = [((f[i] - y[i].numpy()) ** 2).mean() for i in range(2)]
    np.testing.assert_allclose(errors_of(nets, x, y, "plain").numpy(), plain, rtol=1e-5)
    e = torch.tensor([[1.0, 3.0], [6.0, 2.0]])
    assert functional_loss(e, 1.0, 0.25).item() == pytest.approx((1 + 0.25 * 2 + 2 + 0.25 * 4) / 2)
    assert functional_loss(e, 1.0, 0.0).item() == pytest.approx(1.5)


def test_the_mean_over_outputs_each_by_its_own_variance():
    space = MLPSpace(2, 2, 5, 1)
    nets, x = space.sample(1, 1, generator()), space.sample_inputs(50, generator())
    y = torch.randn(1, 50, 2) * torch.tensor([1.0, 100.0])
    one = [
        ((nets(x)[..., k] - y[..., k]) ** 2).mean() / (y[..., k].var(correction=0) + 1e-3)
        for k in (0, 1)
    ]
    assert errors_of(nets, x, y).item() == pytest.approx(sum(one).item() / 2, rel=1e-5)


def test_permuted_copies_have_one_embedding_where_it_probes():
    """Printed side by side: 0 for "probe"; of the order of an unrelated network for "matrix"."""
    space = MLPSpace(3, 1, 7, 3)
    found = {}
    for encoder in ("probe", "matrix"):
        model = NetworkAutoencoder(space, encoder=encoder)
        ratios = []
        for depth in (1, 2, 3):
            nets = space.sample(60, depth, generator(depth))
            z, moved = (
                model.encode(nets).double(),
                model.encode(nets.permuted(generator(9))).double(),
            )
            ratios.append((z - moved).norm(dim=1) / torch.pdist(z).median())
        found[encoder] = torch.stack(ratios)
    print({k: v.median(1).values.tolist() for k, v in found.items()})
    assert found["probe"].max() <= 1e-5
    assert found["matrix"].median(1).values.min() > 0.3


def test_dead_neurons_and_rescaled_ones_change_nothing():
    model = NetworkAutoencoder(MLPSpace(2, 1, 5, 1, ("relu",)))
    nets = model.space.sample(3, 1, generator())
    other = NetBatch(model.space, *([t.clone() for t in p] for p in nets.parts))
    other.weights[0], other.biases[0] = other.weights[0] * 4, other.biases[0] * 4
    other.weights[1] = other.weights[1] / 4
    other.weights[1][:, 3:] *= other.gates[0][:, 3:, None]
    other.weights[0][:, :, 3:] *= other.gates[0][:, None, 3:]
    torch.testing.assert_close(model.encode(other), model.encode(nets), rtol=1e-5, atol=1e-6)


def test_anything_that_computes_can_be_embedded(trained):
    nets = SMALL.sample(1, 2, generator())
    plain = nets.to_sequential(0)
    wanted = trained.encode(nets)

    class Estimator:
        def predict(self, X):
            assert X.dtype == np.float64
            return plain(torch.from_numpy(X).float()).detach().numpy()[:, 0]

    for same in (plain, plain.double(), Estimator().predict):
        plain.float() if not isinstance(same, nn.Module) else None
        torch.testing.assert_close(trained.encode(same), wanted, rtol=1e-3, atol=1e-4)
    plain.float()
    torch.testing.assert_close(trained.encode(Estimator()), wanted, rtol=1e-3, atol=1e-4)
    X = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    forest = RandomForestRegressor(20, random_state=0).fit(X, X[:, 0] ** 2)
    decoded = trained.decode(trained.encode(forest), 2, hard=True)
    assert decoded.to_sequential(0)(torch.zeros(1, 2)).isfinite().all()


def test_a_constant_is_embedded_and_bad_functions_are_refused(trained):
    for value in (0.0, 3.0, -1e6):
        assert trained.encode(lambda X, v=value: np.full(len(X), v)).isfinite().all()
    # Rounding noise of a constant is not stretched to a spread of 1.
    noisy = trained.encode(lambda X: 3.0 + 1e-13 * np.sin(1e4 * X[:, 0]))
    torch.testing.assert_close(
        noisy, trained.encode(lambda X: np.full(len(X), 3.0)), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match="NaN or infinity"):
        trained.encode(lambda X: X[:, 0] * np.inf)
    with pytest.raises(ValueError, match=r"shape \(256, 1\)"):
        trained.encode(lambda X: X)
    with pytest.raises(TypeError, match="encode takes"):
        trained.encode(3)
    with pytest.raises(TypeError, match="probe"):
        NetworkAutoencoder(SMALL, encoder="matrix").encode(lambda X: X[:, 0])
    with pytest.raises(ValueError, match="activations of module"):
        NetworkAutoencoder(SMALL, encoder="matrix").encode(
            nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1))
        )


def test_training_in_steps_repeats_bit_for_bit_and_reduces_the_error():
    a, b = (NetworkAutoencoder(SMALL, 16).fit(steps=6, seed=3) for _ in range(2))
    assert all(torch.equal(s, t) for s, t in zip(a.parameters(), b.parameters(), strict=True))
    c = NetworkAutoencoder(SMALL, 16).fit(steps=6, seed=4)
    assert not torch.equal(next(a.decoder.parameters()), next(c.decoder.parameters()))
    nets, x = [SMALL.sample(50, 2, generator(7))], SMALL.sample_inputs(100, generator(8))
    before = NetworkAutoencoder(SMALL, 16).errors(nets, x).min(1)
    assert np.median(a.errors(nets, x).min(1)) < np.median(before)
    assert a.record.fact("steps").all == (6,)
    assert a.record.fact("encoder").all == ("probe",)


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    NetworkAutoencoder(SMALL, 16).fit(steps=2)
    assert torch.equal(torch.rand(3), wanted)


def test_a_callback_sees_every_step_and_stops():
    seen = []
    NetworkAutoencoder(SMALL, 8).fit(
        steps=10, callback=lambda s, loss: seen.append((s, loss)) or s == 3
    )
    assert [s for s, _ in seen] == [0, 1, 2, 3]
    assert all(math.isfinite(loss) for _, loss in seen)


def test_training_says_what_is_wrong():
    model = NetworkAutoencoder(SMALL, 8)
    for wrong in ({}, {"seconds": 1.0, "steps": 1}):
        with pytest.raises(ValueError, match="either steps or seconds"):
            model.fit(**wrong)
    for name, value in (("seconds", 0.0), ("steps", 0), ("recipe", "other")):
        with pytest.raises(ValueError, match=name):
            model.fit(**{"steps": 1, name: value} if name == "recipe" else {name: value})
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(math.nan)
    with pytest.raises(ArithmeticError, match="at step 0"):
        model.fit(steps=1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("space", 3), ("z_dim", 0), ("encoder", "gpt"), ("decoder", "gpt"), ("gate", "open"),
     ("winner_weight", -1.0), ("all_weight", math.nan), ("loss", "weights"), ("seed", 1.5)],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        NetworkAutoencoder(**{"space": SMALL, argument: value})
    with pytest.raises(ValueError, match="must not both be 0"):
        NetworkAutoencoder(SMALL, winner_weight=0, all_weight=0)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    # Its encoder and its decoder each stand in another pair.
    [pytest.param(*k, marks=pytest.mark.acceptance) if k == ("conv", "mlp") else k for k in KINDS],
)
def test_a_saved_one_is_the_same(tmp_path, encoder, decoder):
    model = NetworkAutoencoder(SMALL, 8, encoder, decoder, "soft", 0.5, 0.1, "plain", seed=2)
    model.save(tmp_path / "a.safetensors")
    again = NetworkAutoencoder.load(tmp_path / "a.safetensors")
    assert again.config() == model.config()
    nets = SMALL.sample(2, 1, generator())
    assert torch.equal(again.encode(nets), model.encode(nets))
    assert json.loads((tmp_path / "a.json").read_text())["encoder"] == encoder
    from safetensors.torch import load_file

    there = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(there[k], v) for k, v in model.state_dict().items())


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    NetworkAutoencoder(SMALL, 4).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:-1], whole[:100], whole[:4], b"", whole + b"x", b"\xff" * 50]
    for at in rng.integers(len(whole) // 2, len(whole), 5):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    damaged.append(whole.replace(b'\\"z_dim\\": 4', b'\\"z_dim\\": 5'))
    damaged.append(whole.replace(b'\\"version\\": 1', b'\\"version\\": 2'))
    for content in damaged:
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(FileFormatError):
            NetworkAutoencoder.load(path)


def test_a_file_keeps_its_dtype_and_its_name(tmp_path):
    model = NetworkAutoencoder(SMALL, 4).double()
    model.save(tmp_path / "a.safetensors")
    again = NetworkAutoencoder.load(tmp_path / "a.safetensors")
    assert next(again.parameters()).dtype == torch.float64
    assert again.digest() == model.digest() != NetworkAutoencoder(SMALL, 4).digest()
    with pytest.raises(ValueError, match=r"must not end in \.json"):
        model.save(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"float64.*got torch.bfloat16"):
        model.bfloat16().save(tmp_path / "b.safetensors")


def test_a_changed_configuration_is_no_longer_what_was_written(tmp_path):
    """Of the same shapes, so that the tensors alone would not tell."""
    path = tmp_path / "a.safetensors"
    NetworkAutoencoder(SMALL, 4, gate="hard").save(path)
    whole = path.read_bytes()
    changed = whole.replace(b'\\"gate\\": \\"hard\\"', b'\\"gate\\": \\"soft\\"')
    assert changed != whole
    path.write_bytes(changed)
    with pytest.raises(FileFormatError, match="not those that were written"):
        NetworkAutoencoder.load(path)


def test_what_is_embedded_is_evaluated_and_left_as_it_was(trained):
    module = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.9)).train()
    assert torch.equal(trained.encode(module), trained.encode(module))
    assert [m.training for m in module] == [True, True]
    wanted = trained.encode(lambda X: X[:, 0] * 0)

    def writes(X):
        X[:] = 0
        return X[:, 0]

    assert torch.equal(trained.encode(writes), wanted)
    assert torch.equal(trained.encode(writes), wanted)
    plain = trained.encode(lambda X: X[:, 0])
    assert not torch.equal(plain, wanted)


@pytest.mark.filterwarnings("ignore:decoders of depth")
def test_a_certificate_can_be_recomputed_by_whoever_holds_it(trained):
    found = trained.certificate(n=120, seed=5)
    nets, x, e = found["networks"], found["inputs"], found["errors"]
    assert e.shape == (120, 3)
    assert found["source_depth"].tolist() == [b.depth for b in nets for _ in range(len(b))]
    at = 0
    for batch in nets:
        z = trained.encode(batch)
        for i in range(0, len(batch), 10):
            y = batch.to_sequential(i)(x).detach().double().numpy()
            for d in (1, 2, 3):
                plain = trained.decode(z[i : i + 1], d, hard=True).to_sequential(0)
                f = plain(x).detach().double().numpy()
                wanted = ((f - y) ** 2).mean() / (y.var() + 1e-3)
                assert e[at + i, d - 1] == pytest.approx(wanted, rel=1e-3)
        at += len(batch)
    best = np.sort(e.min(1))
    assert found["median"] == pytest.approx(np.median(best))
    # (n, q, 1 - confidence) -> k: (120, .5, .05) -> 70, (120, .9, .05) -> 114.
    assert found["median_bound"] == best[69]
    assert found["q90_bound"] == best[113]
    np.testing.assert_allclose(found["winners"], np.bincount(e.argmin(1), minlength=3) / 120)
    assert found["identity_ratio"] <= 1e-5
    assert sum(v["n"] for v in found["by_source_depth"].values()) == 120


@pytest.mark.filterwarnings("ignore:decoders of depth")
def test_too_few_networks_bound_nothing():
    found = NetworkAutoencoder(SMALL, 4).certificate(n=20, seed=0)
    assert found["q90_bound"] == math.inf
    assert found["median_bound"] < math.inf


def test_a_collapsed_decoder_is_warned_of():
    model = NetworkAutoencoder(SMALL, 4)
    with torch.no_grad():
        # Outputs of thousands: this decoder never wins.
        for p in model.decoder.nets[2].parameters():
            p.mul_(30)
    with pytest.warns(UserWarning, match=r"depth \[3\] win less than 2%"):
        found = model.certificate(n=60)
    assert found["collapsed"] == [3]


@pytest.mark.parametrize(
    ("name", "value"), [("n", 1), ("confidence", 1.0), ("confidence", 0.0), ("seed", 0.5)]
)
def test_a_certificate_refuses_by_name(trained, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        trained.certificate(**{name: value})
