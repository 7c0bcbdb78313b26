"""DP-SGD of the multi-branch network through Opacus, on the plain one."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.errors import need
from surefoot.reparam.optimizer import RepSGD


@checked
def make_private(
    engine: Any,
    module: nn.Module,
    optimizer: RepSGD,
    data_loader: DataLoader[Any],
    *,
    noise_multiplier: float,
    max_grad_norm: float,
    **settings: Any,
) -> tuple[nn.Module, Any, DataLoader[Any]]:
    """`engine.make_private` whose steps are DP-SGD on the branches [derived here].

    RepSGD under plain Opacus is private too, by another law: its clip is by the plain network's norm, and its
    noise is multiplied by M instead of sqrt(M). Here h_i = sqrt(M) g_i is clipped, the sum is noised
    and multiplied by sqrt(M), so that the merged network moves exactly as DP-SGD moves the multi-branch one.

    Parameters
    ----------
    engine
        An `opacus.PrivacyEngine`, which counts the steps as ever.
    module
        The plain network, without batch norm: build it with norm="group_norm".
    optimizer
        A RepSGD of its parameters with their multipliers, which it gives up to what is returned.
    data_loader
        Of the private examples.
    noise_multiplier, max_grad_norm
        sigma, and C: of the multi-branch network's gradient.
    settings
        Further ones of `PrivacyEngine.make_private`.

    Returns
    -------
    tuple
        Module, optimizer and loader, to be used in place of those given. `certificates()` of the RepSGD has
        the law of the noise.

    Raises
    ------
    MissingExtraError
        If Opacus is not installed.
    ValueError
        The module has batch norm, or the optimizer no multipliers.
    TypeError
        The settings ask for another optimizer of Opacus than its plain one.
    """
    check_number("noise_multiplier", noise_multiplier, least=0)
    check_number("max_grad_norm", max_grad_norm, above=0)
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"module must not mix its examples, got batch norm in {name or 'it'}: no clip bounds what "
                'one example does; build the network with norm="group_norm"'
            )
    if not any(
        optimizer.grad_mult(p) is not None for g in optimizer.param_groups for p in g["params"]
    ):
        raise ValueError("optimizer must have grad_mults, got a RepSGD without")
    with need("opacus", extra="privacy", part="make_private"):
        from opacus.optimizers import DPOptimizer

        from surefoot.reparam.doors.opacus_branches import around
    private, made, loader = engine.make_private(
        module=module, optimizer=optimizer, data_loader=data_loader, noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm, **settings,
    )  # fmt: skip
    if type(made) is not DPOptimizer:
        raise TypeError(
            f"settings must leave Opacus' plain DPOptimizer, got {type(made).__name__} of {sorted(settings)}"
        )
    return private, around(made), loader
