"""How the server of MPFT grows with the number of its clients: time and memory against uploads.

Records of real shape (15 classes, d = 384, as of `wordnet_views` behind MiniLM) arrive as Flower messages;
measured is what `MPFTStrategy` does with them: reading, checking, training, writing down. The number of steps
is fixed, so that training costs the same for all; with epochs it grows with the rows. CPU seconds, least of
the rounds; memory is what Python and NumPy hold at the peak (tracemalloc) without torch's tensors, and the
tensors counted beside it.
"""

import math
import time
import tracemalloc

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from surefoot.federated.records import facts_record
from surefoot.prototypes import MPFTStrategy, ZeroShotHead, extract_prototypes

CLASSES, D, RECORDS = 15, 384, 34
CLIENTS = (10, 100, 1000)


def upload(client):
    """One client's, of 34 records a class."""
    g = torch.Generator().manual_seed(client)
    y = torch.arange(CLASSES).repeat_interleave(RECORDS)
    z = torch.nn.functional.normalize(torch.randn(len(y), D, generator=g), dim=1)
    return extract_prototypes(z, y, "random", 0.1, seed=client, encoder_id="minilm")


def replies_of(sets):
    """What arrives: a reply of each node, its bytes its own."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    found = []
    for p, protos in enumerate(sets):
        asked = Message(RecordDict(), message_type="train.prototypes", dst_node_id=p + 1)
        content = protos.to_record()
        content["metrics"] = MetricRecord(
            {"num-examples": sum(protos.counts.values()), "partition-id": p}
        )
        content["facts"] = facts_record(protos.record)
        reply = Message(content, reply_to=asked)
        reply.metadata.__dict__["_src_node_id"] = p + 1
        found.append(reply)
    return found


def served(clients, sets, **training):
    """CPU seconds and peak bytes of one aggregation."""
    head = ZeroShotHead(torch.randn(CLASSES, D, generator=torch.Generator().manual_seed(0)))
    strategy = MPFTStrategy(head, clients, method="random", encoder_id="minilm", **training)
    strategy._own_run = True
    strategy._sent = {p + 1: p for p in range(clients)}
    replies = replies_of(sets[:clients])
    tracemalloc.start()
    began = time.process_time()
    strategy.aggregate_train(1, replies)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tensors = sum(s.features.nbytes + s.labels.nbytes for s in strategy.sets.values())
    # Twice: the uploads, and the stacked rows that are trained on.
    assert len(strategy.sets) == clients
    return seconds, peak + 2 * tensors


def exponent(sizes, values):
    """Slope in logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


@pytest.mark.parametrize(
    "training", [{"steps": 50}, {"epochs": 1}], ids=["fixed steps", "one epoch"]
)
def test_growth_with_clients(training):
    torch.set_num_threads(1)
    made = [upload(c) for c in range(50)]
    # Real shapes, 50 different ones over and over: extraction is not what is measured.
    sets = [made[i % len(made)] for i in range(CLIENTS[-1])]
    served(10, sets, **training)
    rows = []
    for clients in CLIENTS:
        each = [served(clients, sets, **training) for _ in range(3 if clients < 1000 else 1)]
        seconds, peak = min(s for s, _ in each), min(p for _, p in each)
        rows.append((clients, seconds, peak))
        print(f"{clients:5} clients: {seconds:.3f} s of CPU, {peak / 2**20:.1f} MiB at the peak")
    sizes, times, peaks = zip(*rows, strict=True)
    print(
        f"exponent of time {exponent(sizes, times):.2f}, of memory {exponent(sizes, peaks):.2f}; "
        f"from 100 to 1,000: {math.log10(times[2] / times[1]):.2f}, {math.log10(peaks[2] / peaks[1]):.2f}"
    )
    # Linear is ten times for ten times as many; quadratic would be a hundred.
    assert times[2] / times[1] < 30
    assert peaks[2] / peaks[1] < 20
