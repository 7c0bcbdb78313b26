"""The trainings of the study against autograd, and that they do what their names say."""

import numpy as np
import pytest
import torch
from torch.func import grad, vmap

from surefoot.privacy.experiments import language
from surefoot.privacy.experiments.opacus_engine import OpacusTraining
from surefoot.privacy.experiments.softmax_runs import CANARIES, Batched, make_canary
from surefoot.privacy.experiments.training import DPSGD, Canaries, Network, digits


@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 6, 4, 3)])
@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_clipped_sum_is_autograds(sizes, clip):
    network = Network(sizes)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(network.parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (20,), generator=generator)
    each = vmap(grad(lambda f, a, b: network.losses(f, a[None], b[None])[0]), (None, 0, 0))
    gradients = each(flat, x, y)
    factor = (clip / gradients.norm(dim=1)).clamp(max=1)
    expected = (gradients * factor[:, None]).sum(dim=0)
    torch.testing.assert_close(network.clipped_sum(flat, x, y, clip), expected)
    empty = network.clipped_sum(flat, x[:0], y[:0], clip)
    assert empty.shape == flat.shape
    assert empty.abs().sum() == 0


def test_canaries_move_their_coordinate_only():
    network = Network((4, 3))
    x, y = torch.zeros(10, 4), torch.zeros(10, dtype=torch.long)
    start = network.initial(0)
    coordinates = torch.tensor([0, 5, 9])
    canaries = Canaries(coordinates, torch.tensor([True, False, True]))
    settings = DPSGD(0.0, 1.0, 7, lr=0.1)
    plain = settings.train(network, start, x, y, seed=1)
    moved = plain - settings.train(network, start, x, y, seed=1, canaries=canaries)
    # Inputs are 0: weights do not feel each other. Seven steps of .1 / 10.
    expected = torch.zeros(network.parameters)
    expected[torch.tensor([0])] = 0.07
    weights = torch.ones(network.parameters, dtype=torch.bool)
    weights[[4, 9, 14]] = False
    torch.testing.assert_close(moved[weights], expected[weights], atol=1e-6, rtol=0)
    assert moved[9] > 0.05


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator():
    x, y, _, _ = digits(50)
    network = Network((64, 10))
    state = torch.random.get_rng_state()
    ends = [DPSGD(1.0, 0.2, 5).train(network, network.initial(0), x, y, seed=3) for _ in range(2)]
    assert torch.equal(*ends)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_private_network_learns_digits():
    x, y, test_x, test_y = digits()
    network = Network((64, 64, 10))
    end = DPSGD(1.0, 0.1, 100).train(network, network.initial(0), x, y, seed=0)
    assert network.accuracy(end, test_x, test_y) > 0.88


class TestBatched:
    def setup_method(self):
        x, y, _, _ = digits(30)
        self.x, self.y = torch.cat([x, torch.ones(30, 1)], dim=1), y

    def test_one_step_of_everybody_is_the_clipped_sum(self):
        training = Batched(self.x, self.y, 0.0, 1.0, 1)
        made = training._chunk(
            make_canary("constant", self.x, self.y),
            torch.tensor([False]),
            torch.Generator().manual_seed(0),
        )
        network = Network((64, 10))
        total = network.clipped_sum(network.initial(0), self.x[:, :-1], self.y, 1.0)
        torch.testing.assert_close(made[0].flatten(), -total / 30, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("name", CANARIES)
    def test_canaries_have_norm_at_most_one_and_raise_their_score(self, name):
        canary = make_canary(name, self.x, self.y)
        assert canary.gradient(torch.zeros(1, 10, 65)).norm() <= 1 + 1e-6
        training = Batched(self.x, self.y, 0.5, 0.2, 20)
        included = torch.arange(200) % 2 == 0
        scores = training.train(canary, included, seed=0)
        assert scores[included.numpy()].mean() > scores[~included.numpy()].mean()

    def test_unknown_canary(self):
        with pytest.raises(ValueError, match="canary must be one of"):
            make_canary("feather", self.x, self.y)


class TestLanguage:
    def test_size(self):
        assert sum(p.numel() for p in language.initial(0).values()) == 25_760

    def test_causal(self):
        start = language.initial(0)
        ids = torch.randint(0, 256, (1, 17), generator=torch.Generator().manual_seed(0))
        other = ids.clone()
        other[0, 16] = (other[0, 16] + 1) % 256
        # The last byte is only a target: all but its own term agree.
        a, b = language.scores(start, ids), language.scores(start, other)
        assert abs(float(a - b)) < 2
        assert abs(float(a - b)) > 0

    def test_training_lowers_the_loss_of_a_text_and_keeps_the_generator(self):
        text = torch.randint(97, 110, (40, 17), generator=torch.Generator().manual_seed(1))
        start = language.initial(0)
        state = torch.random.get_rng_state()
        end = language.Training(0.1, 0.5, 20)(start, text, text[:0], seed=0)
        assert torch.equal(state, torch.random.get_rng_state())
        assert language.scores(end, text).mean() > language.scores(start, text).mean() + 0.5

    def test_canaries_use_bytes_that_no_text_has(self):
        assert int(language.canaries(10, 0).min()) >= 128


def test_opacus_training_is_seeded_and_sees_its_canaries():
    pytest.importorskip("opacus", reason="needs the privacy extra")
    x, y, test_x, test_y = digits(300)
    training = OpacusTraining(x, y, 500, 0.5, 30, 3)
    assert training.sample_rate == pytest.approx(0.1)
    assert training.steps == 30
    include = torch.arange(500) % 2 == 0
    first, again = training(include, 1), training(include, 1)
    np.testing.assert_array_equal(first, again)
    assert training.accountants[0].history == [(0.5, 0.1, 30)]
    inside, outside = first[include.numpy()], first[~include.numpy()]
    assert inside.mean() > outside.mean() + 3 * outside.std() / np.sqrt(250)
    assert training.accuracy(test_x, test_y) > 0.3
