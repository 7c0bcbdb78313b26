"""Are the arrays of a run's file those of the reference?"""

import torch
from safetensors.torch import load_file


def same_bits(path, state):
    found = load_file(path)
    return set(found) == set(state) and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in state.items()
    )
