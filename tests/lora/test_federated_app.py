"""apps/raclora: simulated on Ray and deployed on real nodes, the bits of a loop."""

import json
from pathlib import Path

import pytest
import torch
from tests.federated.bits import same_bits

from surefoot.federated import Visit, weighted_mean
from surefoot.federated.launcher import Federation
from surefoot.federated.partition import draw_partitions
from surefoot.lora.doors.flower import merge_factor, rac_client_train
from surefoot.lora.doors.flower_digits import digits_problem

APP = Path(__file__).parents[2] / "apps" / "raclora"
PARTITIONS, ROUNDS = 4, 3
CONFIG = {"alpha": 10.0, "rank": 3, "gamma": 0.2, "local-steps": 2, "eta": 0.5}


def loop(fraction, seed, train):
    """Algorithm 2 of the paper without Flower: draw, train each factor from zero, average, merge."""
    problem = digits_problem({**CONFIG, "num-partitions": PARTITIONS, "seed": seed})
    W = problem.initial(seed)
    settings = {"rank": CONFIG["rank"], "seed": seed, "train": train}
    for block in range(ROUNDS):
        replies = {}
        for p in draw_partitions(seed, block + 1, range(PARTITIONS), fraction):
            visit = Visit(p, PARTITIONS, block + 1, 0)
            factors = rac_client_train(
                W, lambda w, k, visit=visit: problem.loss(w, visit, k), block=block, **settings,
                local_steps=CONFIG["local-steps"], gamma=CONFIG["gamma"],
            )  # fmt: skip
            replies[p] = (factors, problem.examples(visit))
        W = merge_factor(W, weighted_mean(replies), block=block, eta=CONFIG["eta"], **settings)
    return W


@pytest.mark.acceptance
@pytest.mark.parametrize("deployed", [False, True])
def test_the_app_equals_the_loop_bit_for_bit(deployed, tmp_path, measured):
    """Both factors' sides, all nodes and half of them: a node that sat a round out gets the matrices."""
    with Federation(APP, PARTITIONS, secure=deployed, folder=tmp_path / "f") as federation:
        for fraction, seed, train in ((1.0, 0, "B"), (0.5, 1, "A")):
            own = {"num-server-rounds": ROUNDS, "fraction": fraction, "seed": seed, "train": train}
            out = federation.run(tmp_path / "final.safetensors", {**CONFIG, **own}, 300)
            expected = loop(fraction, seed, train)
            assert bool(expected["linear.weight"].abs().max() > 0)
            assert same_bits(out, expected)
            rounds = json.loads(Path(f"{out}.json").read_text())["rounds"]
            assert [(r["lost"], r["rejected"]) for r in rounds] == [({}, {})] * ROUNDS
            assert [len(r["partitions"]) for r in rounds] == [PARTITIONS * fraction] * ROUNDS
            where = "deployed" if deployed else "simulated"
            measured("11 raclora = loop", "bitwise", f"{where}, fraction {fraction}, {train}: yes")
    assert not torch.equal(loop(1.0, 1, "A")["linear.weight"], expected["linear.weight"])
