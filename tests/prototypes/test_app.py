"""apps/mpft: settings that are refused before anybody sends, its keys, what its server leaves."""

import json
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from safetensors.torch import load_file
from tests.federated.grid import InProcessGrid
from tests.prototypes.federation import (
    config_of,
    loop,
    same,
    ways,
)

from surefoot.errors import SurefootError
from surefoot.prototypes.doors.app import KEYS, mpft_server_app


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"release": "sum"}, "SecAgg and SecAgg\\+ for its legacy API only"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"epsilon": 4.0, "method": "cluster_var"}, "no finite sensitivity"),
        ({"epsilon": 4.0, "method": "mean", "delta": 1.0}, "delta must be"),
        ({"epsilon": 4.0, "method": "mean", "clip": 0.0}, "clip must be"),
        ({"delta": 1e-6}, "delta = 1e-06 is not used without epsilon"),
        ({"max-epsilon": 4.0}, "max-epsilon = 4.0 is not used without epsilon"),
        ({"fraction": 0.5}, "unknown keys fraction"),
        ({"num-server-rounds": 2}, "num-server-rounds must be 1 with adapt-shots = 0"),
        ({"adapt-shots": 2}, "num-server-rounds must be 2"),
        ({"kd-weight": 2.0}, "not used without adapt-shots"),
        ({"sampler": "additive"}, 'additive sampler is for method "mean"'),
        ({"sampler": "magic"}, "sampler must be"),
        ({"min-clients": 4}, "min_clients must be"),
        ({"solver": "certified", "steps": 10, "epochs": "auto"}, "certified"),
        ({"residual": False}, "residual=False"),
        ({"evaluate": "yes"}, 'evaluate must be true, false or "auto"'),
        ({"epochs": 2.5}, "epochs must be"),
        ({"ratio": 1.5, "epochs": 1}, "ratio must be"),
        ({"data": "pictures"}, "data must be"),
        ({"data": "wordnet-views"}, "data-path = "),
        ({"data-path": ""}, "data-path must name a file"),
        ({"data-path": "/nowhere.npz"}, "there is no file"),
        ({"held-out": 1.0}, "held-out must be"),
        ({"own-data": True}, "unknown keys own-data"),
    ],
)  # fmt: skip
def test_settings_are_refused_before_anybody_sends(more, said, path):
    with pytest.raises(ValueError, match=said):
        ways(config_of(path, **more))


def test_the_keys_of_the_app_are_those_that_are_read_and_its_defaults_are_ours(path):
    project = Path(__file__).parents[2] / "apps" / "mpft" / "pyproject.toml"
    config = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    assert set(config) == KEYS
    own = {"data": "features", "data-path": str(path), "num-partitions": 3}
    _, named = ways(config | own)
    _, bare = ways(own)
    assert (named.training, named.asked, named.dp) == (bare.training, bare.asked, bare.dp)
    assert (named.min_nodes, named.node_timeout, named.evaluate) == (3, 120.0, True)


def test_the_server_app_leaves_the_adapter_and_all_that_happened(path, tmp_path):
    out = tmp_path / "adapter.safetensors"
    config = config_of(path, method="mean", out=str(out))
    app, _ = ways(config)
    grid = InProcessGrid(app, 3, config)
    context = Context(1, 0, {}, RecordDict(), config)
    mpft_server_app()(grid, context)
    assert same(load_file(out), loop(config))
    report = json.loads((tmp_path / "adapter.safetensors.json").read_text())
    assert 0 <= report["metrics"]["1"]["accuracy"] <= 1
    assert "accuracy, partition 2" in report["metrics"]["1"]
    assert {c["name"][:2] for c in report["certificates"]} >= {"G1", "G2", "G3", "G4", "G5", "G6"}
    assert "error" not in report
    grid.faults = lambda server_round, partition, reply: "the scanner is down"
    with pytest.raises(SurefootError, match="0 good uploads of 3"):
        mpft_server_app()(grid, context)
    report = json.loads((tmp_path / "adapter.safetensors.json").read_text())
    assert "0 good uploads of 3" in report["error"]
