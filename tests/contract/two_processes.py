"""One of several gloo processes that train every optimizer of the contract on its rows of the batch."""

import os
import sys

import torch
import torch.distributed as dist
from tests.contract.members import MEMBERS
from tests.contract.problem import ROWS, loss_of, network, settle, train
from torch.nn.parallel import DistributedDataParallel

STEPS = 5


def main(rank: int, size: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    each = ROWS // size
    ends = {}
    for member in MEMBERS:
        model = network()
        shared = DistributedDataParallel(model)
        optimizer = member.make(list(model.parameters()), model)
        train(member, optimizer, loss_of(shared, slice(rank * each, (rank + 1) * each)), STEPS)
        settle(optimizer)
        ends[member.name] = model.state_dict()
    torch.save(ends, f"{folder}/rank{rank}.pt")
    # Gloo's threads may still hold tensors when the interpreter goes, which then aborts now and again.
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
