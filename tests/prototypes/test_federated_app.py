"""apps/mpft: simulated on Ray and deployed on real nodes, the bits of a loop; the ledger of a site."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.federated.bits import same_bits
from tests.prototypes.federation import config_of, feature_file, loop

from surefoot.federated.launcher import Federation, FederationError
from surefoot.prototypes import PrototypeSet

APP = Path(__file__).parents[2] / "apps" / "mpft"
PARTITIONS = 3
# Seconds, of a run that hangs: every message starts a process.
LIMIT = 900.0
WAYS = (
    {"method": "cluster_var", "seed": 3},
    {"method": "gauss", "num-server-rounds": 2, "adapt-shots": 2},
)


@pytest.mark.acceptance
@pytest.mark.parametrize("deployed", [False, True])
def test_the_app_equals_the_loop_and_its_ledgers_outlive_runs(deployed, tmp_path, measured):
    """8.12 and 8.15; a dry run first, whose upload is then sent, and nothing beyond it."""
    where = "deployed" if deployed else "simulated"
    path = feature_file(tmp_path / "f.npz", PARTITIONS)
    site = tmp_path / "site"
    site.mkdir()
    with Federation(APP, PARTITIONS, secure=deployed, folder=tmp_path / "f") as federation:
        for more in WAYS:
            config = {**config_of(path, PARTITIONS, **more), "node-timeout": 300.0}
            out = federation.run(tmp_path / "adapter.safetensors", config, LIMIT)
            expected = loop(config)
            assert bool(expected["up.weight"].abs().max() > 0)
            assert same_bits(out, expected)
            rounds = json.loads(Path(f"{out}.json").read_text())["rounds"]
            assert [(r["lost"], r["rejected"]) for r in rounds] == [({}, {})] * len(rounds)
            assert all(r["partitions"] == [0, 1, 2] for r in rounds)
            measured("8.12 mpft = loop", "bitwise", f"{where}, {more['method']}: yes")
        private = {
            **config_of(path, PARTITIONS, method="mean", epsilon=4.0, steps=20), "epochs": "auto",
            "site-dir": str(site), "node-timeout": 300.0,
        }  # fmt: skip
        with pytest.raises(FederationError, match=r"dry run, nothing was sent"):
            federation.run(tmp_path / "a.safetensors", private | {"dry-run": True}, LIMIT)
        assert not list(site.glob("ledger-*.json"))
        inspected = [(site / f"upload-{p}.npz").read_bytes() for p in range(PARTITIONS)]
        out = federation.run(tmp_path / "a.safetensors", private | {"send-inspected": True}, LIMIT)
        assert [(site / f"upload-{p}.npz").read_bytes() for p in range(PARTITIONS)] == inspected
        sets = [PrototypeSet.load(site / f"upload-{p}.npz") for p in range(PARTITIONS)]
        assert same_bits(out, loop(private, sets, steps=20))
        kept = [json.loads((site / f"ledger-{p}.json").read_text()) for p in range(PARTITIONS)]
        assert [k["epsilon"] for k in kept] == pytest.approx([4.0] * PARTITIONS, abs=1e-6)
        assert same_bits(site / "adapter-global-1.safetensors", load_file(out))
        # The ServerApp starts anew, the site remembers.
        with pytest.raises(FederationError, match=r"above max_epsilon 4 \(4 spent before\)"):
            federation.run(tmp_path / "b.safetensors", private, LIMIT)
        report = json.loads((tmp_path / "b.safetensors.json").read_text())
        assert sorted(report["rounds"][0]["lost"]) == ["0", "1", "2"]
        more = private | {"max-epsilon": 6.5, "epsilon": 4.0}
        federation.run(tmp_path / "c.safetensors", more, LIMIT)
        spent = json.loads((site / "ledger-0.json").read_text())["epsilon"]
        assert 4 < spent <= 6.5
        measured("8.15 ledger after restart", "refused", f"{where}: yes; two releases {spent:.4f}")
