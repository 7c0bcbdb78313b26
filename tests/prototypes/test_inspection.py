"""What leaves the site is said before it leaves, and no record with it."""

import json

import numpy as np
import pytest
import torch
from tests.prototypes.clients import clients

from surefoot.cli import main
from surefoot.prototypes import (
    GaussianRelease,
    audit_membership,
    extract_prototypes,
    inspect_upload,
)

(Z, Y), (OTHER, Y_OTHER) = clients(2, 60)


def test_numbers_of_an_upload_without_noise():
    protos = extract_prototypes(Z, Y, "cluster", 0.3, encoder_id="toy")
    report = inspect_upload(protos, Z, Y, OTHER, Y_OTHER)
    assert (report.rows, report.d, report.nbytes) == (len(protos), 16, protos.nbytes)
    assert report.epsilon is None
    assert report.classes == {
        c: (int((protos.labels == c).sum()), n) for c, n in protos.counts.items()
    }
    for c in protos.counts:
        rows, own = protos.features[protos.labels == c].double(), Z[c == Y].double()
        away = torch.stack([(own - r).norm(dim=1).min() for r in rows])
        assert report.nearness.least[c] == pytest.approx(float(away.min()), abs=1e-12)
        assert report.nearness.median[c] == pytest.approx(float(away.median()), abs=1e-12)
    audit = audit_membership(protos, Z, Y, OTHER, Y_OTHER)
    assert report.nearness.audit.auc == audit.auc
    assert report.nearness.raw_rows == 0
    assert any("no noise" in w for w in report.warnings)


def test_raw_records_are_called_so():
    raw = extract_prototypes(Z, Y, "random", 0.5)
    report = inspect_upload(raw, Z, Y)
    assert report.nearness.raw_rows == len(raw)
    assert any("rows are records themselves" in w for w in report.warnings)
    with pytest.warns(UserWarning, match="one record each"):
        single = extract_prototypes(Z[:5], torch.tensor([0, 0, 1, 2, 2]), "mean")
    report = inspect_upload(single)
    assert report.singletons == 1
    assert any("1 rows stand for one record each" in w for w in report.warnings)
    # k-means without a least size of its clusters.
    lonely = extract_prototypes(Z, Y, "cluster", 0.5, min_cluster=1)
    alone = int((lonely.weights == 1).sum())
    assert alone > 0
    found = inspect_upload(lonely, Z, Y)
    assert found.singletons == alone
    assert found.nearness.raw_rows >= alone


def test_a_private_upload_says_its_promise():
    protos = extract_prototypes(Z, Y, "mean", dp=GaussianRelease(4.0, 1e-5))
    report = inspect_upload(protos, Z, Y)
    assert (report.epsilon, report.delta) == (4.0, 1e-5)
    assert report.nu == pytest.approx(1.081162, abs=1e-6)
    assert report.advantage == pytest.approx(0.3563, abs=1e-4)
    assert report.warnings == []
    assert "epsilon 4 at delta 1e-05 (nu 1.08116" in str(report)
    clipped = extract_prototypes(Z, Y, "mean", dp=GaussianRelease(np.inf, 1e-5))
    assert any("no noise" in w for w in inspect_upload(clipped).warnings)
    assert inspect_upload(clipped).to_dict()["epsilon"] == "inf"


def test_records_that_do_not_fit():
    protos = extract_prototypes(Z, Y, "mean")
    for given in ((Z, None), (None, Y), (Z, Y, OTHER), (None, None, OTHER, Y_OTHER)):
        with pytest.raises(ValueError, match="give both|give feats and y"):
            inspect_upload(protos, *given)
    with pytest.raises(ValueError, match=r"feats must be \(N, 16\)"):
        inspect_upload(protos, Z[:, :8], Y)
    assert inspect_upload(protos, Z[Y != 2], Y[Y != 2]).nearness.without_records == [2]


def test_the_command(tmp_path, capsys):
    protos = extract_prototypes(Z, Y, "mean", dp=GaussianRelease(4.0, 1e-5), encoder_id="toy")
    protos.save(tmp_path / "u.npz")
    np.savez(tmp_path / "own.npz", features=Z.numpy(), labels=Y.numpy())
    np.savez(tmp_path / "other.npz", features=OTHER.numpy(), labels=Y_OTHER.numpy())
    words = ["prototypes", "inspect", str(tmp_path / "u.npz")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"4 rows of 16 numbers (float32), {protos.nbytes:,} bytes" in said
    assert "nearest record" not in said
    more = ["--records", str(tmp_path / "own.npz"), "--others", str(tmp_path / "other.npz")]
    assert main([*words, *more]) == 0
    said = capsys.readouterr().out
    assert "membership attack: AUC" in said
    assert main([*words, *more, "--json"]) == 0
    said = capsys.readouterr().out
    found = json.loads(said)
    report = inspect_upload(protos, Z, Y, OTHER, Y_OTHER)
    assert found == json.loads(json.dumps(report.to_dict()))
    # No number of a record, nor of a prototype, is in it.
    for value in (*Z.flatten().tolist(), *protos.features.flatten().tolist()):
        assert f"{value:.6f}" not in said


def test_the_command_refuses_clearly(tmp_path, capsys):
    protos = extract_prototypes(Z, Y, "mean")
    protos.save(tmp_path / "u.npz")
    own = tmp_path / "own.npz"
    base = ["prototypes", "inspect"]
    cases = [
        ([str(tmp_path / "none.npz")], "there is no file"),
        ([str(tmp_path / "u.npz"), "--records", str(tmp_path / "none.npz")], "there is no file"),
        ([str(tmp_path / "u.npz"), "--records", str(own)], "lacks the arrays labels"),
    ]
    np.savez(own, features=Z.numpy())
    for words, said in cases:
        assert main([*base, *words]) == 2
        assert said in capsys.readouterr().err
    np.savez(own, features=Z.numpy(), labels=Y.numpy(), classes=["a", "b", "c", "d"])
    assert main([*base, str(tmp_path / "u.npz"), "--records", str(own)]) == 2
    assert "numbers them in the server's order" in capsys.readouterr().err
    np.savez(own, features=Z.numpy(), labels=Y.double().numpy())
    assert main([*base, str(tmp_path / "u.npz"), "--records", str(own)]) == 2
    assert "labels must be (60,) whole numbers" in capsys.readouterr().err
    np.save(tmp_path / "one.npy", Z.numpy())
    assert main([*base, str(tmp_path / "u.npz"), "--records", str(tmp_path / "one.npy")]) == 2
    assert "save several with numpy.savez" in capsys.readouterr().err
