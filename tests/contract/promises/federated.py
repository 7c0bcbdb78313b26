"""Promises of surefoot.federated."""

from tests.contract.promise import Promise

from surefoot.federated import guarantee as federated

PROMISES = [
    Promise(
        federated.uplink,
        federated.uplink,
        {"bytes up": [300.0, 200.0], "promised bytes up": [300.0, 200.0]},
        {"bytes up": [300.0, 201.0]},
        why="it is counted, whatever was trained",
    ),
    Promise(
        federated.downlink,
        federated.downlink,
        {"bytes down": [300.0, 200.0], "promised bytes down": [300.0, 250.0]},
        {"bytes down": [300.0, 251.0]},
        why="it is counted, whatever was trained",
    ),
]
