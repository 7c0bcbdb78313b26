"""A certificate is a query too: numbers of private columns stay inside, whichever way it leaves."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

import surefoot
from surefoot import Certificate, Guarantee, Record, Verdict, certify
from surefoot._run.environment import environment
from surefoot.certificate import WITHHELD, read_certificates, unmeasured, write_certificates
from surefoot.guarantee import Assumption

SECRET = 0.314159265
FACTS = {
    "mechanism": "poisson-subsampled gaussian", "noise_multiplier": 2.0, "sample_rate": 0.1, "steps": 40,
    "clip_norm": 24.0, "clipping": "per example", "non_finite": "zero", "sampling": "poisson",
    "adjacency": "add/remove", "divisor": "constant", "secret_noise": True, "secret_sampling": True,
    "population_public": True, "released": "noised scalars",
}  # fmt: skip


def record(private=("loss",), seeds=(0, 1)):
    made = Record()
    for seed in seeds:
        made.extend(seed, "loss", [SECRET * (1 + i) for i in range(4)])
        made.extend(seed, "c", [0.25, 0.5, 0.75, 1.0])
        made.note(seed, **FACTS)
    made.private(*private)
    return made


def claim(quantity="loss", bound=lambda record: 10.0, assumptions=lambda record: (), **more):
    return Guarantee(
        f"{quantity} is small", f"{quantity} <= b", "a test", quantity, "upper", "every run", bound,
        assumptions, **more,
    )  # fmt: skip


def holds_secret(text):
    """Whether a text has a multiple of the secret: its digits, or its ratio to the bound."""
    found = environment()
    for version in [
        *found["packages"].values(),
        *(v for e in found["extras"].values() for v in e.values()),
    ]:
        # A page names what ran: version 1.26 is within 2 % of four times the secret.
        text = re.sub(rf"(?<![\d.]){re.escape(str(version))}(?![\d.])", "", text)
    numbers = [float(n) for n in re.findall(r"\d+\.\d+(?:e-?\d+)?", text)]
    multiples = [SECRET * k / d for k in range(1, 5) for d in (1, 10)]
    return any(np.isclose(n, m, rtol=2e-2) for n in numbers for m in multiples)


def test_a_secret_that_begins_like_a_version_is_seen():
    # lazy-loader is of version 0.6.
    assert holds_secret(f"a loss of {2 * SECRET:.6f}")
    assert holds_secret("0.628")


def test_a_published_certificate_holds_no_number_and_no_verdict_of_a_private_column():
    found = certify(record(), claim())
    assert found.private == ("loss",)
    assert found.verdict is Verdict.KEPT
    for text in (found.to_json(), json.dumps(found.to_dict()), found.html(), found._repr_html_()):
        assert not holds_secret(text)
        assert "KEPT" not in text
        assert WITHHELD in text
    # Planted: the same certificate when it is asked for, and of a column that nobody called private.
    assert holds_secret(found.to_json(publish_private=True))
    assert holds_secret(found.html(publish_private=True))
    assert holds_secret(certify(record(private=()), claim()).to_json())


def test_what_is_read_for_the_bound_alone_is_private_too():
    found = certify(record(), claim("c", bound=lambda record: 10 * record["loss"]))
    assert found.private == ("loss",)
    assert found.published().curve.promised == []
    copied = claim("c", bound=lambda record: 10 * Record.concat([record]).of_seed(0)["loss"])
    assert certify(record(seeds=(0,)), copied).private == ("loss",)
    framed = claim("c", bound=lambda record: float(record.frame("loss").to_numpy().max()))
    assert certify(record(), framed).private == ("loss",)
    whole = claim("c", bound=lambda record: float(record.frame().to_numpy().max()))
    assert certify(record(), whole).private == ("loss",)
    tabled = claim("c", bound=lambda record: float(record.table().num_rows))
    assert certify(record(), tabled).private == ("loss",)


def test_public_columns_stay_as_they_are():
    found = certify(record(), claim("c", bound=lambda record: record.frame("c").to_numpy().max()))
    assert found.private == ()
    assert found.published() is found
    assert Certificate.from_json(found.to_json()) == found


@pytest.mark.parametrize("read", [False, True])
def test_conditions_that_no_secret_decides_stay(read):
    def assumptions(record):
        measured = float(record["loss"].max()) if read else None
        return (Assumption("a condition", "to hold", measured, False, "measured here"),)

    for found in (
        certify(record(), claim(assumptions=assumptions)),
        unmeasured(record(), claim("none", assumptions=assumptions), "measure it"),
    ):
        assert found.verdict is Verdict.NOT_PROMISED
        out = found.published()
        assert out.verdict is (Verdict.UNDECIDED if read else Verdict.NOT_PROMISED)
        assert ("a condition fails" in out.reason) is not read
        assert [a.holds for a in out.assumptions] == [None if read else False]
        assert not holds_secret(found.to_json())


def test_a_broken_promise_is_broken_inside_and_no_surprise_outside():
    found = certify(record(), claim(bound=lambda record: 0.1))
    assert found.verdict is Verdict.BROKEN
    assert found.surprise
    assert not found.published().surprise
    announced = dataclasses.replace(found, expected=Verdict.BROKEN).published()
    assert not announced.surprise


def test_published_once_is_published_for_good(tmp_path):
    found = certify(record(), claim())
    out = found.published()
    assert out.published().to_dict() == out.to_dict() == found.to_dict()
    again = Certificate.from_json(found.to_json())
    assert again.to_dict() == out.to_dict()
    assert again.private == ("loss",)
    write_certificates([found], tmp_path / "out.json")
    assert not holds_secret((tmp_path / "out.json").read_text())
    write_certificates([found], tmp_path / "in.json", publish_private=True)
    assert read_certificates(tmp_path / "in.json")[0].verdict is Verdict.KEPT


def test_the_mark_goes_wherever_the_record_goes(tmp_path):
    made = record()
    made.write(tmp_path / "record.parquet")
    with Record(tmp_path / "flushed") as flushed:
        flushed.append(0, 0, loss=1.0)
        flushed.private("loss")
    other = Record()
    other.append(7, 0, other=1.0)
    for found in (
        Record.read(tmp_path / "record.parquet"), Record.read(tmp_path / "flushed"), made.of_seed(1),
        Record.concat([other, made]), Record.concat([made.of_seed(0), made.of_seed(1)]),
    ):  # fmt: skip
        assert found.private_quantities == ("loss",)
    late = Record()
    late.private("loss")
    late.append(0, 0, loss=SECRET)
    assert certify(late, claim()).private == ("loss",)


def test_privacy_is_not_promised_of_a_record_whose_private_columns_were_published():
    made = record()
    inside = surefoot.certificates(made, delta=1e-5)[0]
    assert inside.verdict is Verdict.UNDECIDED
    outside = surefoot.certificates(made, delta=1e-5, publish_private=True)[0]
    assert outside.verdict is Verdict.NOT_PROMISED
    assert "without noise: loss" in outside.reason
    # Asking what would be is no publication.
    assert surefoot.certificates(made, delta=1e-5)[0].verdict is Verdict.UNDECIDED
    nothing = record(private=())
    kept = surefoot.certificates(nothing, delta=1e-5, publish_private=True)[0]
    assert kept.verdict is Verdict.UNDECIDED


def test_trackers_get_private_columns_only_if_asked(tmp_path, monkeypatch):
    from surefoot._sinks import sending

    sent = []
    monkeypatch.setattr(sending, "check_sink", lambda name: None)
    door = SimpleNamespace(write=lambda what, place: sent.append(what))
    monkeypatch.setattr(sending, "importlib", SimpleNamespace(import_module=lambda name: door))
    made = record()
    found = [certify(made, claim())]
    made.to("mlflow", certificates=found)
    assert len(sent) == 2
    for one in sent:
        assert {name for _, row in one.rows for name in row} == {"c"}
        assert not holds_secret(one.certificates + one.summary)
    assert surefoot.certificates(made, delta=1e-5)[0].verdict is Verdict.UNDECIDED
    made.to("mlflow", certificates=found, publish_private=True)
    assert {name for _, row in sent[-1].rows for name in row} == {"c", "loss"}
    assert holds_secret(sent[-1].certificates)
    # What left cannot be called back.
    assert surefoot.certificates(made, delta=1e-5)[0].verdict is Verdict.NOT_PROMISED


def test_pages_hold_no_number_of_a_private_column(tmp_path):
    from surefoot._run.single import write_single
    from surefoot.report import write_run_page, write_site

    pages = {}
    for private in ((), ("loss",)):
        made = record(private)
        root = tmp_path / str(len(private))
        folder = write_single(
            root, "watch", title="t", paper="p", part="training", about="t", record=made,
            certificates=[certify(made, claim())], tables={}, figures={}, config={}, command="c", seconds=1.0,
            confidence=0.99,
        )  # fmt: skip
        write_run_page(folder)
        write_site(root)
        texts = [p.read_text(encoding="utf-8") for p in root.rglob("*.html")]
        assert len(texts) == 2
        pages[private] = " ".join(texts)
        # Inside, beside the columns themselves, the certificate is whole.
        assert folder.certificates()[0].verdict is Verdict.KEPT
    assert WITHHELD in pages["loss",]
    assert not holds_secret(pages["loss",])
    # The legends explain the word and no row has it.
    assert pages["loss",].count("KEPT") < pages[()].count("KEPT")
    assert holds_secret(pages[()])
    assert WITHHELD not in pages[()]


def test_tables_and_figures_that_read_a_private_column_are_left_out():
    from surefoot._run.conclude import public

    made = record()
    assert public(made, lambda: {"t": made["loss"]}) == {}
    assert list(public(made, lambda: {"t": made["c"]})) == ["t"]


def test_runs_side_by_side_leave_private_columns_out(tmp_path):
    from surefoot._run.single import write_single
    from surefoot.comparing import compare

    made = record()
    folders = [
        write_single(
            tmp_path, name, title="t", paper="p", part="training", about="t", record=made,
            certificates=[certify(made, claim()), certify(made, claim("c"))], tables={}, figures={},
            config={}, command="c", seconds=1.0, confidence=0.99,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    found = compare([f.path for f in folders])
    assert [m.quantity for m in found.measured] == ["c"]
    assert not holds_secret(json.dumps(found.to_dict()))


def test_what_is_derived_from_a_private_column_is_private():
    """As the gap of a chain is, which is its loss minus a number."""
    from surefoot.lora.guarantee import derive

    made = Record()
    for seed in (0, 1):
        made.extend(seed, "loss", [SECRET, SECRET / 2])
        made.extend(seed, "grad_norm2", [1.0, 0.5])
    made.private("loss")
    derive(made, 0.0)
    assert set(made.private_quantities) == {"loss", "gap"}
    assert certify(made, claim("gap")).private == ("gap",)
    assert certify(made, claim("mean_grad_norm2")).private == ()


@pytest.mark.parametrize("column", ["arm: loss", "arm.loss", "loss, arm"])
def test_the_mark_of_one_of_several_is_of_its_column_by_any_name(column):
    made = Record()
    made.append(0, 0, c=1.0)
    made.update(0, 0, {column: SECRET})
    made.note(0, "arm", private_columns="loss")
    assert certify(made, claim(column)).private == (column,)
    assert certify(made, claim("c")).private == ()


def test_the_marks_of_all_parts_hold_where_all_parts_are_read(tmp_path):
    from surefoot._run.single import write_single

    made = record()
    folder = write_single(
        tmp_path / "runs", "watch", title="t", paper="p", part="training", about="t", record=made,
        certificates=[certify(made, claim())], tables={}, figures={}, config={}, command="c", seconds=1.0,
        confidence=0.99,
    )  # fmt: skip
    for part in (None, "training"):
        found = Record.read(folder.path / "record.parquet", part=part)
        assert found.private_quantities == ("loss",)


@pytest.mark.parametrize("name", [3, ["loss"], None])
def test_a_mark_is_of_a_column_by_its_name(name):
    with pytest.raises(TypeError, match="names of columns"):
        record().private(name)
