"""Flipped bits, cuts, additions, blanks: each is an error that names the file, or changes nothing."""

import pytest

for package in ("gguf", "peft", "transformers", "flwr"):
    pytest.importorskip(package, reason="needs the extras")

from tests.faults.damage import HEAD, KINDS_OF_LOSS, Tally, damaged, damages, try_damage
from tests.faults.formats import KINDS

# Old formats say that they carry no checksum; libraries have words of their own.
pytestmark = pytest.mark.filterwarnings("ignore")
# Loading a model for each trial takes its time.
SLOW = ("exported adapter", "GGUF model", "Opacus checkpoint", "autoencoder")


def check(tally, kind):
    """A sealed format loses nothing; one without a checksum may lose values, but ends in no foreign error."""
    lost = {k: n for k, n in tally.counts.items() if k in KINDS_OF_LOSS}
    allowed = {"silent"} if kind.unsealed else set()
    assert set(lost) <= allowed, (tally.row(), tally.examples)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.acceptance if n in SLOW else ()) for n in KINDS]
)
def test_a_few_damages_of_each_kind(name, tmp_path):
    tally = try_damage(KINDS[name], tmp_path, seed=7, flips=12, others=3)
    assert tally.tried >= 18
    check(tally, KINDS[name])


@pytest.mark.acceptance
def test_a_thousand_flips(tmp_path, measured):
    """The table `tried | named | harmless | lost`; cuts, additions and blanked stretches besides."""
    rows, flips = [], 1000 // len(KINDS) + 1
    for i, (name, kind) in enumerate(KINDS.items()):
        (tmp_path / str(i)).mkdir()
        tally = try_damage(kind, tmp_path / str(i), seed=i, flips=max(flips, 200), others=20)
        rows.append(tally.row())
        measured(f"damage: {name}", "lost 0" if not kind.unsealed else kind.unsealed, tally.row())
        check(tally, kind)
    print("\n".join([HEAD, *rows]))


def test_the_count_of_what_is_lost_counts():
    """The planted fault: a reader that takes whatever is there."""
    from tests.faults.damage import Kind

    def make(folder):
        (folder / "f").write_bytes(b"12345678")
        return [folder / "f"]

    def read(folder):
        return (folder / "f").read_bytes()

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        tally = try_damage(Kind("as it is", make, read), Path(folder), 0, 20, 5)
    assert (tally.named, tally.lost) == (0, tally.tried)
    assert tally.counts["silent"] == tally.tried > 30
    with pytest.raises(AssertionError, match="as it is"):
        check(tally, Kind("as it is", make, read))
    assert {way for way, _ in damages(0, 3, 2)} == {"flip", "cut", "add", "blank"}
    for way, rng in damages(1, 2, 2):
        assert damaged(b"content" * 9, way, rng) != b"content" * 9
    assert Tally("x").row() == "x | 0 | 0 | 0 | 0"
