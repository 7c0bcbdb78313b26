import pytest
import torch

from surefoot.in_context import GaussianPrompts, LoopedTransformer


def filled(d, loops, *, tied=True, seed=0, form="auto"):
    model = LoopedTransformer(d, loops, tied=tied, train_u=True, dtype=torch.float64, form=form)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.A.copy_(0.3 * torch.randn(model.A.shape, generator=g, dtype=torch.float64))
        model.u.copy_(torch.randn(d, generator=g, dtype=torch.float64))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n", [9, 4])
def test_the_three_forms_are_one_model(n, tied):
    p = GaussianPrompts(6, n, seed=1).sample(64)
    literal, feature, gram, auto = (
        filled(6, 4, tied=tied, form=form)(p.X, p.y, p.xq)
        for form in ("literal", "feature", "gram", "auto")
    )
    assert literal.abs().max() > 0.1
    assert (literal - feature).abs().max() < 1e-11
    assert (literal - gram).abs().max() < 1e-11
    assert torch.equal(auto, feature if n >= 6 else gram)
