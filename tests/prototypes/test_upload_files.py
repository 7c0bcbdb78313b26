"""An upload as a file and as a record: the same bits back, and a clear sentence for everything else."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.prototypes.clients import clients

from surefoot._numerics.npy import read_npy
from surefoot.errors import FileFormatError
from surefoot.prototypes import GaussianRelease, Ledger, PrototypeSet, extract_prototypes

Z, Y = clients(1, 48)[0]
Q = torch.linalg.qr(torch.randn(16, 3, generator=torch.Generator().manual_seed(0))).Q
DP = GaussianRelease(4.0, 1e-5)
SETS = {
    "mean": extract_prototypes(Z, Y, "mean", encoder_id="toy"),
    "private": extract_prototypes(Z, Y, "mean", dp=DP),
    "clip alone": extract_prototypes(Z, Y, "mean", dp=GaussianRelease(np.inf, 1e-5)),
    "cluster_var": extract_prototypes(Z, Y, "cluster_var"),
    "float64": extract_prototypes(Z.double(), Y, "cluster_var", 0.3),
    "random": extract_prototypes(Z, Y, "random", 0.5),
    "gauss": extract_prototypes(Z, Y, "gauss"),
    "basis": extract_prototypes(Z, Y, "gauss", dp=DP, basis=Q),
}


def equal(a, b):
    one, two = a.arrays(), b.arrays()
    return (
        a.about() == b.about()
        and set(one) == set(two)
        and all(one[k].dtype == two[k].dtype and np.array_equal(one[k], two[k]) for k in one)
        and a.counts == b.counts
    )


@pytest.mark.parametrize("name", SETS)
def test_files_and_records_give_back_every_bit(name, tmp_path):
    protos = SETS[name]
    basis = {"basis": Q} if name == "basis" else {}
    protos.save(tmp_path / "u.npz")
    assert equal(PrototypeSet.load(tmp_path / "u.npz", **basis), protos)
    assert equal(PrototypeSet.from_record(protos.to_record(), **basis), protos)
    # The same upload is the same file, whenever it is written.
    first = (tmp_path / "u.npz").read_bytes()
    protos.save(tmp_path / "u.npz")
    assert (tmp_path / "u.npz").read_bytes() == first
    assert [f.name for f in tmp_path.iterdir()] == ["u.npz"]
    with np.load(tmp_path / "u.npz", allow_pickle=False) as found:
        assert np.array_equal(found["features"], protos.arrays()["features"])


def test_what_depends_on_the_records_is_in_neither(tmp_path):
    protos = extract_prototypes(Z * 3, Y, "mean", dp=DP)
    assert protos.clipped > 0
    protos.save(tmp_path / "u.npz")
    assert PrototypeSet.load(tmp_path / "u.npz").clipped == 0
    assert set(protos.about()) == {
        "format",
        "method",
        "ratio",
        "encoder",
        "epsilon",
        "delta",
        "clip",
    }
    assert set(protos.to_record()) == {"arrays", "about"}


def test_a_basis_that_nobody_gives_is_missed():
    with pytest.raises(ValueError, match=r"moment must be \(16, 16\), got \(3, 3\)"):
        PrototypeSet.from_record(SETS["basis"].to_record())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "u.npz"
    SETS["cluster_var"].save(path)
    return path.read_bytes()


@settings(max_examples=40)
@given(st.data())
def test_a_flipped_bit_or_a_cut_never_passes(good, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    if data.draw(st.booleans()):
        path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    else:
        broken = bytearray(good)
        broken[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(bytes(broken))
    said = ""
    try:
        found = PrototypeSet.load(path)
    except FileFormatError as error:
        said = str(error)
    # Or a bit that means nothing: of a date, or of who wrote it.
    assert str(path) in said or equal(found, SETS["cluster_var"])


def zipped(path, parts, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, raw in parts.items():
            archive.writestr(name, raw)


def npy(value, **more):
    stream = io.BytesIO()
    np.save(stream, value, **more)
    return stream.getvalue()


def test_what_is_no_upload(good, tmp_path):
    path = tmp_path / "u.npz"
    with pytest.raises(FileFormatError, match="there is no file"):
        PrototypeSet.load(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        PrototypeSet.load(tmp_path)
    path.write_bytes(b"not a zip")
    with pytest.raises(FileFormatError, match="damaged or no upload"):
        PrototypeSet.load(path)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    zipped(path, parts, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileFormatError, match="must be stored uncompressed"):
        PrototypeSet.load(path)
    zipped(path, {k: v for k, v in parts.items() if k != "about.json"})
    with pytest.raises(FileFormatError, match=r"it has no about\.json"):
        PrototypeSet.load(path)
    zipped(path, parts | {"about.json": b"[1]"})
    with pytest.raises(FileFormatError, match="must be an object"):
        PrototypeSet.load(path)
    zipped(path, parts | {"labels.npy": npy(np.array([{}], dtype=object), allow_pickle=True)})
    with pytest.raises(FileFormatError, match="labels must hold plain real numbers, got object"):
        PrototypeSet.load(path)
    zipped(path, parts | {"secret.npy": npy(np.zeros(3))})
    with pytest.raises(FileFormatError, match=r"extra \['secret'\]"):
        PrototypeSet.load(path)
    zipped(path, parts | {"weights.npy": npy(-np.ones(len(SETS["cluster_var"]), np.float32))})
    with pytest.raises(FileFormatError, match="is no upload"):
        PrototypeSet.load(path)
    zipped(
        path, parts | {"about.json": parts["about.json"].replace(b'"format": 1', b'"format": 2')}
    )
    with pytest.raises(FileFormatError, match="another version of surefoot wrote it"):
        PrototypeSet.load(path)


def test_arrays_of_strangers():
    for value in (
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.eye(3)),
        np.zeros((0, 4)),
        np.int64(3),
    ):
        found = read_npy("x", npy(value))
        assert np.array_equal(found, value)
        assert found.flags.writeable
    assert np.array_equal(read_npy("x", npy(np.arange(3, dtype=">i4"))), [0, 1, 2])
    with pytest.raises(ValueError, match="x is no array in NumPy's format"):
        read_npy("x", b"")
    with pytest.raises(ValueError, match="x claims int64 of shape"):
        read_npy("x", npy(np.arange(3))[:-1])
    with pytest.raises(ValueError, match="x claims int64 of shape"):
        read_npy("x", npy(np.arange(3)) + b"0")
    # Forty terabytes are asked for, and none are there.
    with pytest.raises(ValueError, match="damaged or forged"):
        read_npy("x", npy(np.zeros(3)).replace(b"(3,), }             ", b"(5000000000000,), }  "))
    with pytest.raises(ValueError, match="plain real numbers"):
        read_npy("x", npy(np.zeros(2, complex)))


@pytest.mark.parametrize(
    "said",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"(" * 90 + b")" * 90 + b"}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"-" * 5000 + b"1}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        b"{'descr': [('a', '<f8', " + b"9" * 30 + b")], 'fortran_order': False, 'shape': (3,)}",
    ],
    ids=["nested", "many signs", "many digits", "below 0", "unfinished", "a field of many"],
)
def test_headers_of_strangers(said):
    """NumPy reads them as Python's literals, which fail in many ways."""
    body = said + b"\n"
    data = b"\x93NUMPY\x02\x00" + len(body).to_bytes(4, "little") + body + b"\0" * 24
    with pytest.raises(ValueError, match="^x "):
        read_npy("x", data)


def test_ledgers_as_records():
    ledger = Ledger(4.0, 1e-5)
    ledger.charge(GaussianRelease(2.0, 1e-5))
    found = Ledger.from_record(ledger.to_record())
    assert (found.max_epsilon, found.delta, found.mu_squared) == (4.0, 1e-5, ledger.mu_squared)
    record = ledger.to_record()
    del record["mu-squared"]
    with pytest.raises(ValueError, match="lacks mu-squared"):
        Ledger.from_record(record)
    for name, wrong in (("mu-squared", -1.0), ("delta", 2.0), ("max-epsilon", "4")):
        record = ledger.to_record()
        record[name] = wrong
        with pytest.raises(ValueError, match=name.replace("-", "_")):
            Ledger.from_record(record)
