"""What a hurried user gives: named, or taken for what it is; nothing else of theirs is changed."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from tests.prototypes.clients import D, clients, head

from surefoot.errors import NonFiniteError
from surefoot.prototypes import (
    PrototypeSet,
    ResidualAdapter,
    accuracy_matrix,
    adapt_locally,
    additive_model,
    audit_membership,
    compare_with_pooled,
    coverage,
    extract_prototypes,
    inspect_upload,
    train_global_adapter,
)

Z, Y = clients(1, 24)[0]
UPLOAD, MEANS = extract_prototypes(Z, Y), extract_prototypes(Z, Y, "mean")
ADAPTER = ResidualAdapter(D, seed=0)


def test_nobody_s_generators_move():
    """A seed that is given is the only source; noise has none."""
    np.random.seed(3)  # noqa: NPY002
    # Python's own is not looked at: the checks of shapes draw from it in tests.
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    adapter, _ = train_global_adapter([extract_prototypes(Z, Y)], head(), steps=2)
    adapt_locally(adapter, Z, Y, head(), epochs=1)
    coverage(Z, Y, UPLOAD).certificates(adapter, head())
    audit_membership(UPLOAD, Z, Y, Z, Y)
    train_global_adapter([MEANS], head(), steps=2, sampler="additive")
    after = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


def test_an_adapter_without_a_seed_is_drawn_by_the_user_s_generator():
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(ResidualAdapter(D).up.weight)
    assert torch.equal(*drawn)
    assert not torch.equal(ResidualAdapter(D).up.weight, drawn[0])


def test_a_mask_is_not_dropped():
    hidden = np.ma.masked_greater(Z.numpy(), 0.5)
    assert np.ma.is_masked(hidden)
    for call in (
        lambda: extract_prototypes(hidden, Y),
        lambda: accuracy_matrix(ADAPTER, [(hidden, Y)], head()),
        lambda: coverage(hidden, Y, UPLOAD),
    ):
        with pytest.raises(ValueError, match="feats must be .* a masked one that hides"):
            call()
    with pytest.raises(ValueError, match="feats must be .* a masked one that hides"):
        extract_prototypes(list(hidden), Y)
    classes = np.ma.masked_equal(Y.numpy(), 1)
    with pytest.raises(ValueError, match="y must be .* a masked one that hides"):
        extract_prototypes(Z, classes)
    for masked in (np.ma.masked, np.ma.masked_array(0.5, mask=True)):
        with pytest.raises(ValueError, match="ratio must be a number"):
            extract_prototypes(Z, Y, ratio=masked)
    half = np.ma.masked_array(0.1, mask=False)
    assert torch.equal(extract_prototypes(Z, Y, ratio=half).features, UPLOAD.features)
    seen = np.ma.masked_array(Z.numpy(), mask=False)
    assert torch.equal(extract_prototypes(seen, Y).features, UPLOAD.features)


@pytest.mark.parametrize(("dtype", "long"), [(torch.float32, 1e25), (torch.float64, 1e160)])
def test_numbers_whose_squares_do_not_fit(dtype, long):
    z = Z.double().numpy() * long if dtype is torch.float64 else (Z * long).numpy()
    for method in ("cluster_var", "mean", "gauss"):
        with pytest.raises(ValueError, match="squares do not fit float.*; scale the embeddings"):
            extract_prototypes(z, Y, method)
    assert len(extract_prototypes(z * 1e-20 / long * 1e20, Y)) == len(UPLOAD)


@pytest.mark.parametrize("wrong", [MEANS, "uploads", 3, None, [MEANS, "u.npz"], {"a": MEANS}, []])
def test_sets_are_a_list_of_uploads(wrong):
    for call in (
        lambda: train_global_adapter(wrong, head(), steps=1),
        lambda: additive_model(wrong),
        lambda: compare_with_pooled(wrong, Z, Y, head(), steps=1),
    ):
        with pytest.raises(ValueError, match="sets must"):
            call()


def test_uploads_may_come_one_by_one():
    listed, _ = train_global_adapter([UPLOAD], head(), steps=3)
    for sets in ((UPLOAD,), iter([UPLOAD]), (u for u in [UPLOAD])):
        found, _ = train_global_adapter(sets, head(), steps=3)
        assert torch.equal(found.up.weight, listed.up.weight)


@pytest.mark.parametrize("wrong", ["u.npz", None, [UPLOAD], Z])
def test_an_upload_is_no_file_name(wrong):
    for call in (
        lambda: inspect_upload(wrong),
        lambda: coverage(Z, Y, wrong),
        lambda: audit_membership(wrong, Z, Y, Z, Y),
    ):
        with pytest.raises(ValueError, match="protos must be a PrototypeSet.*load reads a file"):
            call()


def test_records_of_other_kinds_are_the_same_records():
    z, y = Z.numpy(), Y.numpy()
    pairs = [(pd.DataFrame(z, index=np.arange(len(z))[::-1]), pd.Series(y)), (z.astype(">f4"), y * 1.0),
             (np.asfortranarray(z), y), (Z.clone().requires_grad_(), Y), (list(z), y.tolist()),
             (np.repeat(z, 2, 0)[::2], np.repeat(y, 2)[::2])]  # fmt: skip
    for feats, labels in pairs:
        assert torch.equal(extract_prototypes(feats, labels).features, UPLOAD.features)
        assert coverage(feats, labels, UPLOAD).distance == coverage(Z, Y, UPLOAD).distance
        options = {"method": "random", "ratio": 1.0}
        _, report = compare_with_pooled(
            [extract_prototypes(Z, Y, **options)], feats, labels, head(), steps=2
        )
        assert report.certificates()[0].verdict.name == "KEPT"


def test_bytes_follow_what_was_given_and_not_how_it_is_wrapped():
    wide = extract_prototypes(Z.double(), Y)
    assert wide.features.dtype is torch.float64
    for feats in (Z.double().numpy(), pd.DataFrame(Z.double().numpy()), Z.double().tolist()):
        assert torch.equal(extract_prototypes(feats, Y).features, wide.features)
    for feats in (Z.half(), Z.bfloat16(), pd.DataFrame(Z.half().numpy()), (Z * 9).int().tolist()):
        assert extract_prototypes(feats, Y).features.dtype is torch.float32


def test_a_class_that_the_upload_lacks_is_one_of_the_upload():
    with pytest.raises(ValueError, match="y must be below 4, the classes of the upload, got 4"):
        coverage(Z, Y + 1, UPLOAD)


def test_a_domain_is_a_pair():
    with pytest.raises(ValueError, match="tests must hold a pair .* for each domain"):
        accuracy_matrix(ADAPTER, (Z, Y), head())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 3, "epochs": 5}, "give steps or epochs"),
        ({"solver": "certified", "batch_size": 5}, "batch_size is for"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_an_option_that_would_not_be_used_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        train_global_adapter([UPLOAD], head(), **options)


def test_a_training_that_diverges_gives_no_adapter():
    with pytest.raises(NonFiniteError, match=r"step \d+.*take an lr below 1e\+30"):
        train_global_adapter([UPLOAD], head(), lr=1e30, steps=50)
    with pytest.raises(NonFiniteError, match="take an lr below"):
        adapt_locally(ADAPTER, Z, Y, head(), lr=1e30)


def test_an_adapter_of_nan_has_no_accuracy():
    broken = ResidualAdapter(D, seed=0)
    with torch.no_grad():
        broken.up.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="model 1 gives logits on domain 0 that are not finite"):
        accuracy_matrix([ADAPTER, broken], [(Z, Y)] * 2, head())


def test_a_frozen_adapter_is_adapted_in_a_copy():
    frozen = ResidualAdapter(D, seed=0).requires_grad_(False)
    expected = adapt_locally(ADAPTER, Z, Y, head(), epochs=1)
    assert torch.equal(adapt_locally(frozen, Z, Y, head(), epochs=1).up.weight, expected.up.weight)
    assert not frozen.up.weight.requires_grad


@pytest.mark.parametrize("name", ["residual", "authors_batches", "early_stop"])
def test_a_word_is_no_switch(name):
    """It would count as true."""
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'"):
        train_global_adapter([MEANS], head(), steps=1, sampler="additive", **{name: "no"})


@pytest.mark.parametrize("name", ["features", "labels", "weights"])
@pytest.mark.parametrize(
    "bad", ["words", None, [1, 2], torch.ones(2, dtype=torch.complex64)], ids=str
)
def test_prototypes_that_are_no_real_tensors(name, bad):
    good = {
        "features": torch.ones(2, 3), "labels": torch.tensor([0, 1]), "weights": torch.ones(2),
        "method": "mean", "ratio": 1.0, "counts": {0: 1, 1: 1},
    }  # fmt: skip
    PrototypeSet(**good)
    # As a user calls it, whose shapes nothing checks before.
    plain = inspect.unwrap(PrototypeSet.__init__)
    with pytest.raises(ValueError, match=f"{name} must be"):
        plain(PrototypeSet.__new__(PrototypeSet), **good | {name: bad})


@pytest.mark.parametrize("name", ["features", "weights"])
def test_prototypes_of_whole_numbers(name):
    plain = inspect.unwrap(PrototypeSet.__init__)
    given = {
        "features": torch.ones(2, 3), "labels": torch.tensor([0, 1]), "weights": torch.ones(2),
        "method": "mean", "ratio": 1.0, "counts": {0: 1, 1: 1},
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"{name} must be real numbers, got torch.bool"):
        plain(PrototypeSet.__new__(PrototypeSet), **given | {name: given[name].bool()})


@pytest.mark.parametrize("tests", [3, None, "words"])
def test_accuracies_on_what_holds_no_domains(tests):
    plain = inspect.unwrap(accuracy_matrix)
    with pytest.raises(ValueError, match="tests must hold a pair"):
        plain(ADAPTER, tests, head())
