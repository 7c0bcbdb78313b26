"""A layer under torch.compile and strict export: `python compiled.py WHAT KERNEL`, a process each."""

import copy
import sys

import torch
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

from surefoot.kan import KANLinear

what, kernel = sys.argv[1:]
torch.manual_seed(0)
layer = KANLinear(6, 4, kernel=kernel, bias=True)
plain = copy.deepcopy(layer)
plain.kernel, plain.higher_order = "auto", True
X = torch.rand(32, 6) * 1.8 - 0.9


def same(a, b):
    assert b.abs().max() > 0
    worst = ((a - b).abs().max() / b.abs().max()).item()
    assert worst < 2e-6, worst


def one(module):
    return lambda z: module(z[None])[0]


def each(module):
    own = {k: p.detach() for k, p in module.named_parameters()}

    def loss(p, z):
        return functional_call(module, p, (z[None],)).square().sum()

    return lambda x: vmap(grad(loss), (None, 0))(own, x)["weight"]


if what == "whole":
    compiled = torch.compile(layer, fullgraph=True)
    for n in (32, 17):
        x, z = (X[:n].clone().requires_grad_() for _ in range(2))
        layer.zero_grad()
        plain.zero_grad()
        y, w = compiled(x), plain(z)
        y.square().sum().backward()
        w.square().sum().backward()
        same(y, w)
        same(x.grad, z.grad)
        same(layer.weight.grad, plain.weight.grad)
elif what == "transforms":
    same(torch.compile(jacfwd(one(layer)))(X[0]), jacrev(one(plain))(X[0]))
    same(torch.compile(each(layer))(X), each(plain)(X))
elif what == "twice":
    x = X.clone().requires_grad_()
    y = torch.compile(layer)(x)
    try:
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        slope.square().sum().backward()
    except RuntimeError as error:
        said = str(error)
        if "double backward" not in said and "create_graph" not in said:
            raise
    else:
        raise AssertionError("a double backward through a compiled layer was not refused")
elif what == "export":
    program = torch.export.export(
        layer, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=True
    )
    assert not [n for n in program.graph.nodes if "surefoot" in str(n.target)]
    torch.export.save(program, "layer.pt2")
    torch.save((X[:5], layer(X[:5]).detach()), "data.pt")
