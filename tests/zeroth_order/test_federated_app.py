"""apps/zofed: simulated on Ray and deployed on real nodes, the bits of a loop."""

import json
from pathlib import Path

import pytest
from tests.federated.bits import same_bits

from surefoot.federated.launcher import Federation
from surefoot.zeroth_order.doors.flower import federate_scalars
from surefoot.zeroth_order.doors.flower_digits import TEST, agreement_of, digits_scalars

APP = Path(__file__).parents[2] / "apps" / "zofed"
PARTITIONS, ROUNDS = 4, 4
CONFIG = {"alpha": 10.0, "lr": 0.02, "nu": 3, "directions": 2}


@pytest.mark.acceptance
@pytest.mark.parametrize("deployed", [False, True])
def test_the_app_equals_the_loop_bit_for_bit(deployed, tmp_path, measured):
    """All sites and half of them, and one private run, of which only the shape can be known."""
    private = {"clip": 2.0, "noise-multiplier": 1.0, "sample-rate": 0.2}
    with Federation(APP, PARTITIONS, secure=deployed, folder=tmp_path / "f") as federation:
        for own in ({}, {"fraction": 0.5, "seed": 1}, private):
            config = {**CONFIG, **own, "num-server-rounds": ROUNDS}
            out = federation.run(tmp_path / "final.safetensors", config, 300)
            told = json.loads(Path(f"{out}.json").read_text())
            assert [(r["lost"], r["rejected"]) for r in told["rounds"]] == [({}, {})] * ROUNDS
            verdicts = {c["name"]: c["verdict"] for c in told["certificates"]}
            assert verdicts["scalars alone on the wire"] == "KEPT"
            known = {**config, "num-partitions": PARTITIONS}
            problem = digits_scalars({k: v for k, v in known.items() if k != "num-server-rounds"})
            agreed = agreement_of(known, len(problem.labels) - TEST)
            seed, fraction = int(own.get("seed", 0)), own.get("fraction", 1.0)
            run = federate_scalars(
                problem, ROUNDS, PARTITIONS, agreed, seed=seed, fraction=fraction
            )
            same = same_bits(out, {"c": run.scalars})
            assert same is (own is not private)
            if own is private:
                assert told["facts"]["secret_noise"] == told["facts"]["secret_sampling"] == [True]
                assert told["facts"]["steps"] == [ROUNDS]
        where = "deployed" if deployed else "simulated"
        measured("8 zofed = loop", "bitwise", f"{where}: yes")
