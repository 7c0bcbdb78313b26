"""A run of MLflow: quantities as metrics, facts as parameters, certificates as an artifact."""

from __future__ import annotations

import json
import time

from surefoot._sinks.sending import Sent
from surefoot.errors import need

with need("mlflow", extra="sinks", part="tracker 'mlflow'"):
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

MOST_METRICS, MOST_PARAMS = 1000, 100
"""What one request of MLflow takes."""


def write(sent: Sent, place: str | None) -> None:
    """Write one run.

    Parameters
    ----------
    sent
        What it is given.
    place
        The tracking URI; None: what MLFLOW_TRACKING_URI says, or MLflow's own default.
    """
    client = MlflowClient(tracking_uri=place)
    known = client.get_experiment_by_name(sent.project)
    experiment = client.create_experiment(sent.project) if known is None else known.experiment_id
    run = client.create_run(experiment, run_name=sent.run).info.run_id
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, step) for step, row in sent.rows for name, value in row.items()
    ]
    for first in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run, metrics=metrics[first : first + MOST_METRICS])
    # Longer ones are refused by some servers.
    params = [Param(name, value[:500]) for name, value in sent.facts.items()]
    for first in range(0, len(params), MOST_PARAMS):
        client.log_batch(run, params=params[first : first + MOST_PARAMS])
    client.log_text(run, sent.certificates, "certificates.json")
    client.log_text(run, sent.summary, "certificates.txt")
    if sent.names:
        client.log_text(run, json.dumps(dict(sent.names), indent=1), "names.json")
    client.set_terminated(run)
