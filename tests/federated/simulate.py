"""A simulation on Ray, run by test_simulation.py as a process of its own: `simulate.py OUT`.

Three federations one after the other on the same four nodes, since it is Ray's start that takes time.
"""

import sys
import tempfile
from pathlib import Path

from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from surefoot.federated import make_server_app
from surefoot.reparam import repopt_client_app
from surefoot.reparam.doors.flower import repopt_strategy, repopt_task

PARTITIONS = 4
SETTINGS = {
    "data": "digits", "examples": 120, "depths": "1", "widths": "4", "alpha": 10.0,
    "num-partitions": PARTITIONS,
}  # fmt: skip
# name: (rounds, fraction); the planted fault is in a round that only the last one has.
RUNS = {"all": (2, 1.0), "half": (2, 0.5), "fault": (3, 1.0)}
FAULT = "planted in partition 1"


def make_task(config):
    """The app's task, whose partition 1 raises in round 3."""
    task = repopt_task(config)
    honest = task.train

    def train(state, visit):
        if (visit.server_round, visit.partition) == (3, 1):
            raise RuntimeError(FAULT)
        return honest(state, visit)

    task.train = train
    return task


def main(out):
    server = ServerApp()

    @server.main()
    def run_all(grid, context):
        for name, (rounds, fraction) in RUNS.items():
            own = {"num-server-rounds": rounds, "fraction": fraction, "out": str(out / name)}
            own["node-timeout"] = (
                600.0  # Ray's workers stand behind everything else on a busy machine
            )
            app = make_server_app(repopt_task, repopt_strategy, SETTINGS | own)
            app(grid, context)

    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        run_simulation(
            server, repopt_client_app(make_task, **SETTINGS), PARTITIONS,
            backend_config={
                "client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 2, "_temp_dir": folder}
            },
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
