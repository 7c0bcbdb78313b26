"""The front doors: scikit-learn, pyRiemann, POT, sensor fusion, a sweep, a torch layer."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wishart
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags

from surefoot.barycenter import (
    SUOTBarycenterLayer,
    SUOTMean,
    fuse_gaussians,
    mean_suot,
    suot_barycenter,
    suot_bures_barycenter,
    suot_gaussian,
    tau_path,
)


def spds(seed, n, d, low=0.1, high=1.0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    A = (Q * rng.uniform(low, high, (n, d))[:, None]) @ Q.swapaxes(-1, -2)
    return (A + A.swapaxes(-1, -2)) / 2


def test_estimator_finds_the_planted_outlier():
    covs = spds(0, 12, 4)
    covs[5] *= 200
    model = clone(SUOTMean(tau=0.5)).fit(covs, sample_weight=np.full(12, 3.0))
    np.testing.assert_allclose(model.covariance_, suot_barycenter(covs, tau=0.5).cov, atol=1e-12)
    assert model.location_ is None
    assert np.flatnonzero(model.predict_outlier(0.95)).tolist() == [5]
    np.testing.assert_allclose(model.score_samples(covs), model.scores_, atol=1e-12)
    with pytest.raises(ValueError, match="q must be between"):
        model.predict_outlier(2)
    with pytest.raises(NotFittedError):
        SUOTMean().predict_outlier(0.9)


@pytest.mark.parametrize("mass", ["fixed", "free"])
def test_debias_keeps_the_mean_trace_and_nothing_else_moves(mass):
    covs = spds(9, 3 * 7, 4, 0.05, 2).reshape(3, 7, 4, 4)
    lam = np.arange(1, 8) / 28
    plain = suot_barycenter(covs, weights=lam, tau=0.5, mass=mass)
    r = suot_barycenter(covs, weights=lam, tau=0.5, mass=mass, debias="trace")
    traces = np.trace(covs, axis1=-2, axis2=-1)
    kept = (r.weights_ * traces).sum(-1)
    np.testing.assert_allclose(np.trace(r.cov, axis1=-2, axis2=-1), kept, rtol=1e-14)
    np.testing.assert_allclose(r.cov / r.scale[:, None, None], plain.cov, rtol=1e-14)
    assert (r.scale > 1).all()
    np.testing.assert_array_equal(r.outlier_score, plain.outlier_score)
    assert (plain.scale == 1).all()


def test_debias_in_other_places():
    covs = spds(10, 6, 3)
    model = SUOTMean(tau=0.5, debias="trace").fit(covs)
    assert np.trace(model.covariance_) == pytest.approx(np.trace(covs.mean(0)), rel=1e-14)
    np.testing.assert_allclose(model.score_samples(covs), model.scores_, atol=1e-12)
    assert "to keep the mean trace" in model.result_.summary()
    intersected = suot_barycenter(covs, tau=0, debias="trace").cov
    harmonic = np.linalg.inv(np.linalg.inv(covs).mean(0))
    ratio = np.trace(covs.mean(0)) / np.trace(harmonic)
    np.testing.assert_allclose(intersected, ratio * harmonic, atol=1e-12)
    with pytest.raises(ValueError, match=r'debias must be None or "trace"'):
        suot_barycenter(covs, debias="det")


def test_debias_takes_the_clean_bias_of_noisy_covariances_away():
    """Wishart matrices: their arithmetic mean is unbiased, and the barycenter below it."""
    truth = np.diag([2.0, 1.0, 0.5, 0.5])
    x = np.random.default_rng(11).multivariate_normal(np.zeros(4), truth, (60, 12))
    covs = np.stack([np.cov(part.T) for part in x])
    plain, free = (suot_barycenter(covs, tau=1.0, debias=d).cov for d in (None, "trace"))
    assert np.trace(plain) < 0.8 * np.trace(truth)
    assert np.trace(free) == pytest.approx(np.trace(truth), rel=0.1)
    assert np.linalg.norm(free - truth) < 0.5 * np.linalg.norm(plain - truth)


def test_mean_in_a_real_mdm():
    classification = pytest.importorskip("pyriemann.classification")
    rng = np.random.default_rng(1)
    bases = [np.diag([4.0, 1.0, 1.0]), np.diag([1.0, 1.0, 4.0])]
    X, y = [], []
    for label in (0, 1):
        for _ in range(20):
            samples = rng.multivariate_normal(np.zeros(3), bases[label], 60)
            X.append(np.cov(samples.T))
            y.append(label)
    X, y = np.array(X), np.array(y)
    train, test = np.arange(40) % 2 == 0, np.arange(40) % 2 == 1
    bad = X.copy()
    bad[np.flatnonzero(train)[:3]] += 500 * np.diag([0.0, 0.0, 1.0])
    mdm = classification.MDM(metric={"mean": mean_suot(tau=0.5), "distance": "riemann"})
    assert mdm.fit(bad[train], y[train]).score(X[test], y[test]) >= 0.9
    alone = suot_barycenter(bad[train][y[train] == 1], tau=0.5, record=False)
    np.testing.assert_allclose(mdm.covmeans_[1], alone.cov, atol=1e-10)


def test_pot_signature():
    covs, m = spds(2, 5, 3), np.random.default_rng(2).standard_normal((5, 3))
    mean, cov, log = suot_bures_barycenter(m, covs, tau=math.inf, log=True)
    gaussian = pytest.importorskip("ot.gaussian")
    peer = gaussian.bures_wasserstein_barycenter(m, covs, num_iter=1000, eps=1e-12)
    np.testing.assert_allclose(mean, np.ravel(peer[0]), atol=1e-12)
    np.testing.assert_allclose(cov, peer[1], atol=1e-6)
    assert log["converged"]
    assert len(suot_bures_barycenter(m, covs)) == 2


def test_fusion_at_zero_is_covariance_intersection():
    covs, m = spds(3, 2, 2), np.array([[0.0, 1.0], [1.0, 0.0]])
    P = np.linalg.inv(covs)
    fused = fuse_gaussians(m, covs, tau=0)
    np.testing.assert_allclose(fused.cov, np.linalg.inv(P.mean(0)), atol=1e-13)
    np.testing.assert_allclose(fused.mean, fused.cov @ np.einsum("ijk,ik->j", P, m) / 2, atol=1e-13)


def test_path_equals_single_solves_in_fewer_steps():
    covs, taus = spds(4, 8, 5, 0.02, 1), np.logspace(-2, 1, 12)
    path = tau_path(covs, taus, tol=1e-10)
    single = [suot_barycenter(covs, tau=t, tol=1e-10) for t in taus]
    np.testing.assert_allclose(path.covs, [r.cov for r in single], atol=1e-6)
    assert path.scores.shape == (12, 8)
    assert sum(r.n_iter for r in path.results) < sum(r.n_iter for r in single)
    with pytest.raises(ValueError, match="at least one"):
        tau_path(covs, [])


def deficient(seed):
    a = np.random.default_rng(seed).standard_normal((2, 6, 2))
    return a @ a.swapaxes(-1, -2)


BATCHES = {
    "together": (lambda seed: spds(seed, 5, 3), {}),
    "free mass": (lambda seed: spds(seed, 5, 3), {"mass": "free", "mass_tau": 0.5}),
    "by products": (lambda seed: spds(seed, 40, 12), {}),
    "singular": (deficient, {}),
    "complex": (lambda seed: spds(seed, 5, 3) + 0j, {}),
}


@pytest.mark.parametrize("how", BATCHES)
def test_a_path_of_a_batch_is_the_path_of_each(how):
    make, options = BATCHES[how]
    covs = np.stack([[make(2 * i + j) for j in range(2)] for i in range(3)])
    d = covs.shape[-1]
    path = tau_path(covs, [0.5, 1.0], tol=1e-9, **options)
    assert path.covs.shape == (2, 3, 2, d, d)
    for i, j in np.ndindex(3, 2):
        single = tau_path(covs[i, j], [0.5, 1.0], tol=1e-9, **options)
        np.testing.assert_allclose(path.covs[:, i, j], single.covs, atol=1e-7)
    for leading in ((2, 3), (2,), (5,)):
        start = np.broadcast_to(np.eye(d, dtype=covs.dtype), (*leading, d, d))
        with pytest.raises(ValueError, match=rf"init must be one matrix \({d}, {d}\), or one for"):
            suot_barycenter(covs, tau=1.0, init=start, **options)


def central(f, h):
    return (f(h) - f(-h)) / (2 * h)


@pytest.mark.parametrize("tau", [0.1, 1.0, 30.0, math.inf])
def test_implicit_gradient_by_central_differences(tau, measured):
    covs, weights, W = spds(5, 4, 3), np.array([1.0, 2.0, 0.5, 1.5]), spds(6, 1, 3)[0]
    rng = np.random.default_rng(7)
    A = torch.tensor(covs, requires_grad=True)
    w = torch.tensor(weights, requires_grad=True)
    layer = SUOTBarycenterLayer(tau, learn_tau=math.isfinite(tau), tol=1e-12)
    (layer(A, w) * torch.tensor(W)).sum().backward()

    def loss(covs, weights, tau):
        lam = weights / weights.sum()
        return float((suot_barycenter(covs, weights=lam, tau=tau, tol=1e-13).cov * W).sum())

    E = rng.standard_normal(covs.shape)
    E = E + E.swapaxes(-1, -2)
    v = rng.standard_normal(4)
    in_a = central(lambda h: loss(covs + h * E, weights, tau), 1e-5)
    in_w = central(lambda h: loss(covs, weights + h * v, tau), 1e-5)
    errors = [
        abs(float((A.grad.numpy() * E).sum()) / in_a - 1),
        abs(float((w.grad.numpy() * v).sum()) / in_w - 1),
    ]
    if math.isfinite(tau):
        in_tau = central(lambda h: loss(covs, weights, tau * math.exp(h)), 1e-4)
        errors.append(abs(float(layer.log_tau.grad) / in_tau - 1))
    measured(f"8.15 implicit gradient, tau={tau:g}", "1e-5", f"{max(errors):.1e}")
    assert max(errors) <= 1e-5


def test_layer_batches_keeps_dtype_and_the_graph_is_one_node():
    covs = torch.tensor(spds(8, 6, 3).reshape(2, 3, 3, 3), requires_grad=True)
    layer = SUOTBarycenterLayer(0.3)
    out = layer(covs)
    # What is kept for the backward pass is the inputs and the result, whatever the iterations.
    assert out.grad_fn.name() == "_BarycenterBackward"
    assert len(out.grad_fn.saved_tensors) == 4
    out.sum().backward()
    for i in range(2):
        one = covs.detach()[i].clone().requires_grad_()
        layer(one).sum().backward()
        torch.testing.assert_close(covs.grad[i], one.grad, atol=1e-8, rtol=0)
    assert layer(covs.detach().float()).dtype == torch.float32


def test_layer_survives_equal_inputs_and_refuses_singular_ones():
    covs = torch.eye(3, dtype=torch.float64).expand(4, 3, 3).clone().requires_grad_()
    SUOTBarycenterLayer(1.0)(covs).trace().backward()
    torch.testing.assert_close(covs.grad, torch.eye(3, dtype=torch.float64).expand(4, 3, 3) / 4)
    low = torch.diag_embed(torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()).requires_grad_()
    with pytest.raises(ValueError, match="full rank"):
        SUOTBarycenterLayer(1.0)(low).sum().backward()
    for options in ({"tau": 0.0}, {"tau": math.inf, "learn_tau": True}):
        with pytest.raises(ValueError, match="tau must be positive"):
            SUOTBarycenterLayer(**options)


def test_learning_tau_recovers_the_one_that_made_the_target():
    covs = torch.tensor(spds(9, 5, 3))
    target = torch.tensor(suot_barycenter(covs.numpy(), tau=0.4).cov)
    layer = SUOTBarycenterLayer(3.0, learn_tau=True)
    optimiser = torch.optim.LBFGS(
        layer.parameters(), lr=1, max_iter=60, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = 1e4 * ((layer(covs) - target) ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert float(layer.tau.detach()) == pytest.approx(0.4, rel=1e-3)


def test_estimator_takes_means():
    covs, m = spds(10, 4, 2), np.eye(4)[:, :2]
    model = SUOTMean(tau=1.0, mass="free").fit(covs, means=m)
    pairs = suot_gaussian(covs, model.covariance_, 1.0, mean_a=m, mean_b=model.location_)
    np.testing.assert_allclose(model.scores_, pairs.upsilon, atol=1e-10)


# -- a search over tau ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [None, 3.5, 40])
def test_score_is_the_wishart_likelihood(dof):
    model = SUOTMean(tau=1.0, dof=dof).fit(spds(20, 9, 4))
    held, n = spds(21, 6, 4), 4 if dof is None else dof
    # scipy has the law of dof S with scale covariance_; that of S itself has scale covariance_ / dof.
    law = wishart(df=n, scale=model.covariance_ / n)
    each = np.array([law.logpdf(S) for S in held])
    assert model.score(held) == pytest.approx(each.mean(), rel=1e-12)
    w = np.arange(1.0, 7.0)
    assert model.score(held, sample_weight=w) == pytest.approx(
        np.average(each, weights=w), rel=1e-12
    )


def test_which_scores_higher_does_not_depend_on_dof():
    covs, held = spds(22, 8, 3), spds(23, 8, 3)

    def order(dof):
        scores = [SUOTMean(tau=t, dof=dof).fit(covs).score(held) for t in (0.01, 0.1, 1.0, 10.0)]
        return np.argsort(scores).tolist()

    assert order(None) == order(3) == order(50.0)


def test_the_true_covariance_scores_highest():
    """In expectation no other matrix does better: the inequality of Gibbs."""
    truth = np.diag([3.0, 1.0, 0.3])
    held = wishart(df=30, scale=truth / 30).rvs(400, random_state=0)
    model = SUOTMean(tau=1.0).fit(held)
    scores = {}
    for factor in (0.5, 1.0, 2.0):
        model.covariance_ = factor * truth
        scores[factor] = model.score(held)
    assert max(scores, key=scores.get) == 1.0


def test_a_grid_search_chooses_tau():
    """Contaminated training matrices, clean held-out ones: a small tau leaves out what inf averages in."""
    clean = wishart(df=20, scale=np.diag([2.0, 1.0, 0.5]) / 20).rvs(60, random_state=1)
    X = clean.copy()
    X[:8] *= 300
    folds = [(np.arange(40), np.arange(40, 60))]
    grid = {"tau": [1.0, math.inf], "debias": [None]}
    search = GridSearchCV(SUOTMean(), grid, cv=folds, error_score="raise").fit(X)
    assert search.best_params_["tau"] == 1.0
    by_hand = [SUOTMean(tau=t).fit(X[:40]).score(X[40:]) for t in grid["tau"]]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], by_hand, rtol=1e-12)


def test_tags_say_three_dimensions():
    tags = get_tags(SUOTMean())
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required


def test_what_cannot_be_scored():
    model = SUOTMean(tau=1.0).fit(spds(24, 5, 3))
    with pytest.raises(NotFittedError):
        SUOTMean().score(spds(24, 5, 3))
    with pytest.raises(ValueError, match=r"X must have shape \(n, 3, 3\), got \(5, 4, 4\)"):
        model.score(spds(24, 5, 4))
    singular = spds(24, 5, 3)
    singular[2] = np.diag([1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="singular matrix at index 2"):
        model.score(singular)
    with pytest.raises(ValueError, match="dof must be"):
        SUOTMean(tau=1.0, dof=2).fit(spds(24, 5, 3)).score(spds(24, 5, 3))
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(5,\)"):
        model.score(spds(24, 5, 3), sample_weight=np.ones(4))
    model.covariance_ = np.diag([1.0, 1.0, 0.0])
    assert model.score(spds(24, 5, 3)) == -math.inf


def test_read_only_arrays_pass_without_a_warning():
    """As joblib hands them to its workers; warnings are errors here."""
    covs, means, w = spds(25, 6, 3), np.zeros((6, 3)), np.full(6, 1 / 6)
    for array in (covs, means, w):
        array.setflags(write=False)
    model = SUOTMean(tau=1.0, init=covs[0]).fit(covs, sample_weight=w, means=means)
    model.score(covs, sample_weight=w)
    model.score_samples(covs)
    model.predict_outlier(0.5)
    mean_suot(covs, sample_weight=w)
    suot_bures_barycenter(means, covs, weights=w)
    fuse_gaussians(means, covs)
    tau_path(covs, np.array([0.5, 1.0]))
