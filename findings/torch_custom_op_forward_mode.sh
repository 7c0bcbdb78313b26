#!/usr/bin/env bash
# torch 2.13.0: an operator of torch.library.custom_op with register_autograd answers torch.func.jvp and jacfwd with zeros,
# and raises nothing and warns of nothing. (Reverse mode, grad and jacrev, is refused with an error.)
# One would guess the "forward AD not implemented" that an autograd.Function without jvp raises, or the true derivative.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5
cd "$place"
"$place/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.func import jacfwd, jvp


@torch.library.custom_op("probe::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


square.register_fake(lambda x: torch.empty_like(x))
square.register_autograd(
    lambda ctx, g: 2 * ctx.saved_tensors[0] * g,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)
x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
(reverse,) = torch.autograd.grad(square(x).sum(), x)
x = x.detach()
_, forward = jvp(square, (x,), (torch.ones(3),))
print("d(x^2)/dx at 1, 2, 3, reverse mode:", reverse.tolist())
print("the same by torch.func.jvp:        ", forward.tolist())
print("by torch.func.jacfwd, the diagonal:", jacfwd(square)(x).diagonal().tolist())
assert reverse.tolist() == [2.0, 4.0, 6.0], "changed"
assert not forward.any() and not jacfwd(square)(x).any(), "changed"
PY
