"""The authors' search, the untrained decoder, random features, and the decoder that is kept in the cache."""

import threading

import numpy as np
import pytest
import torch

from surefoot.architecture import (
    MLPSpace,
    NetworkAutoencoder,
    pretrained,
    pretrained_path,
    random_decoder,
    random_features,
    search,
    search_paper,
)
from surefoot.architecture.paper_search import pruned, sparsity

SMALL = MLPSpace(2, 1, 5, 2, ("tanh", "relu"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    x = SMALL.sample_inputs(200, generator())
    y = torch.tanh(2 * x[:, 0]) - x[:, 1]
    return x, (y - y.mean()) / y.std()


def test_the_authors_sparsity_is_the_formula():
    nets, t = SMALL.sample(2, 1, generator()), torch.tensor([0.0, 0.5])
    for i in range(2):
        w = torch.cat([m[i].flatten() for m in nets.weights]).double().numpy()
        wanted = (0.5 / (1 + np.exp(-10 * (abs(w) - float(t[i])))) + 0.1 * abs(w)).sum()
        assert sparsity(nets, t)[i].item() == pytest.approx(wanted, rel=1e-5)
        soft = pruned(nets, t, hard=False).weights[0][i].double().numpy()
        own = nets.weights[0][i].double().numpy()
        np.testing.assert_allclose(
            soft, own / (1 + np.exp(-100 * (abs(own) - float(t[i])))), atol=1e-6
        )
        hard = pruned(nets, t, hard=True).weights[0][i].numpy()
        assert (hard[abs(own) < float(t[i])] == 0).all()
        assert (
            hard[abs(own) >= float(t[i])] == own[abs(own) >= float(t[i])].astype(np.float32)
        ).all()


def test_the_authors_search_finds_plain_networks_of_every_depth(data):
    x, y = data
    model = NetworkAutoencoder(SMALL, 16, gate="hard")
    found = search_paper(model, x, y, restarts=2, steps=20, generator=generator())
    assert [f.depth for f in found] == [1, 2]
    for nets in found:
        plain = nets.to_sequential(0)
        loss = ((plain(x)[:, 0] - y) ** 2).mean().item()
        assert loss == pytest.approx(nets.losses[0].item(), rel=1e-3)
        assert nets.losses[0] <= nets.losses[1]
    assert min(f.losses[0] for f in found) < 1
    with pytest.raises(ValueError, match="must have 2 and 1 columns"):
        search_paper(model, np.ones((5, 3)), np.ones(5), steps=1)


def test_an_untrained_decoder_is_searched_like_any_other(data):
    model = random_decoder(SMALL, 3)
    assert not any(p.requires_grad for p in model.parameters())
    found = search(
        model, *data, task="regression", depth=1, restarts=2, steps=8, generator=generator()
    )
    assert len(found) == 2
    assert not torch.equal(
        next(model.decoder.parameters()), next(random_decoder(SMALL, 4).decoder.parameters())
    )


@pytest.mark.parametrize("task", ["regression", "two", "three"])
def test_random_features_are_better_than_nothing_and_plain(data, task):
    x, y = data
    if task != "regression":
        y = (y > 0).long() + (0 if task == "two" else (y > 1).long())
    kind = "regression" if task == "regression" else "classification"
    found = random_features(SMALL, x, y, task=kind, depth=2, networks=64)
    assert len(found) == 8
    assert (found.losses.diff() >= 0).all()
    assert found.losses[0] < {"regression": 0.5, "two": 0.69, "three": 1.0}[task]
    torch.testing.assert_close(found.to_sequential(0)(x), found(x)[0], rtol=1e-4, atol=1e-4)
    again = random_features(SMALL, x, y, task=kind, depth=2, networks=64)
    assert torch.equal(again.losses, found.losses)


def test_a_pretrained_decoder_is_trained_once_and_read_again(tmp_path):
    steps = []
    first = pretrained(SMALL, 3, folder=tmp_path, callback=lambda s, _: steps.append(s))
    again = pretrained(SMALL, 3, folder=tmp_path, callback=lambda s, _: steps.append(s))
    assert steps == [0, 1, 2]
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    names = {
        pretrained_path(SMALL, 3, folder=tmp_path), pretrained_path(SMALL, 4, folder=tmp_path),
        pretrained_path(SMALL, 3, 1, folder=tmp_path),
        pretrained_path(MLPSpace(2, 1, 5, 2), 3, folder=tmp_path),
    }  # fmt: skip
    assert len(names) == 4


def test_the_cache_is_where_data_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path))
    assert pretrained_path().parent == tmp_path / "architecture"


def test_a_damaged_file_is_trained_anew(tmp_path):
    path = pretrained_path(SMALL, 1, folder=tmp_path)
    pretrained(SMALL, 1, folder=tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="trained anew"):
        pretrained(SMALL, 1, folder=tmp_path)
    NetworkAutoencoder.load(path)


def test_two_that_ask_at_once_train_it_once(tmp_path):
    steps = []
    workers = [
        threading.Thread(
            target=pretrained, args=(SMALL, 2),
            kwargs={"folder": tmp_path, "callback": lambda s, _: steps.append(s)},
        )
        for _ in range(2)
    ]  # fmt: skip
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert steps == [0, 1]


def test_half_a_training_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="must not stop"):
        pretrained(SMALL, 3, folder=tmp_path, callback=lambda s, _: True)
    assert not pretrained_path(SMALL, 3, folder=tmp_path).exists()
