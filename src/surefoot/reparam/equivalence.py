"""Does the plain network follow the multi-branch one? The gap, the one-step defect, the rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.record import Record
from surefoot.reparam._block.branches import IDENTITY
from surefoot.reparam._block.facts import network_facts
from surefoot.reparam._block.kinks import all_seen, kinks, outputs
from surefoot.reparam._guarantee.columns import DEFECT, GAP, KINKS, column
from surefoot.reparam._guarantee.rules import equivalence_holds as equivalence_holds
from surefoot.reparam._optimizer.clipping import CLIPPED
from surefoot.reparam._optimizer.facts import Recorded, note_facts, same_settings, settings_of
from surefoot.reparam.block import NON_LINEAR
from surefoot.reparam.merging import blocks, grad_mults, linear_blocks, merge_state, merge_values

Closure = Callable[[nn.Module], Tensor]
Hook = Callable[[torch.optim.Optimizer], Any]


@checked
def equivalence_gap(plain: nn.Module, csla: nn.Module) -> float:
    """max over conv weights of |W' - merge|_inf / |merge|_inf, in float64 (G1).

    Raises
    ------
    TypeError
        A block of `csla` is in mode "rep" (per-branch BN is non-linear) or "plain".
    KeyError
        The models have other blocks.
    """
    own = plain.state_dict()
    worst = 0.0
    for path, block in linear_blocks(csla):
        name = f"{path}.conv.weight" if path else "conv.weight"
        if name not in own:
            raise KeyError(f"the plain model has no {name!r}: it is not a conversion of this one")
        parts = {b: block.kernels[b].detach() for b in block.convolutions}
        if IDENTITY in block.branches:
            parts[IDENTITY] = block.identity.detach()
        reference = block.merge(parts).double()
        size = float(reference.abs().max())
        difference = float((own[name].double() - reference).abs().max())
        worst = max(worst, difference / size if size else difference)
    return worst


def synchronise(
    plain: nn.Module,
    plain_optimizer: torch.optim.Optimizer,
    csla: nn.Module,
    csla_optimizer: torch.optim.Optimizer,
) -> None:
    """Set the plain network, buffers and momentum to the merge of the multi-branch one's."""
    plain.load_state_dict(merge_state(csla))

    def buffer(name: str, value: Tensor) -> Tensor:
        state = csla_optimizer.state.get(parameters[name], {})
        found = state.get("momentum_buffer")
        return torch.zeros_like(value) if found is None else found.detach()

    parameters = dict(csla.named_parameters())
    started = any(s.get("momentum_buffer") is not None for s in csla_optimizer.state.values())
    merged = merge_values(csla, buffer)
    for name, parameter in plain.named_parameters():
        state = plain_optimizer.state[parameter]
        if started:
            state["momentum_buffer"] = merged[name].clone()
        else:
            state.pop("momentum_buffer", None)


@checked
def one_step_defect(
    plain: nn.Module,
    plain_optimizer: torch.optim.Optimizer,
    csla: nn.Module,
    csla_optimizer: torch.optim.Optimizer,
    closure: Closure,
    before: Hook | None = None,
    *,
    record: Record | None = None,
    seed: int = 0,
    step: int | None = None,
    of: str = "",
) -> float:
    """The gap after one step that both take from the same state: what G1 promises, to rounding.

    `plain` is set to the merge of `csla`, then both step. Both models and optimisers are left after the step.
    The free-running gap grows exponentially once rounding flips a ReLU's mask; this does not, and is what
    can be judged.

    Parameters
    ----------
    plain, plain_optimizer
        What the device trains, and what trains it.
    csla, csla_optimizer
        The multi-branch network that it follows, and the same rule there.
    closure
        closure(model) -> the loss of one batch.
    before
        before(optimizer) runs between the backward pass and the step, for instance to clip.
    record, seed, step, of
        Where to write the defect and the facts of what stepped: which optimizers at which settings, how
        gradients were clipped, which norms. `of` names one of several runs in one record.

    Returns
    -------
    float
        max over kernels of |W' - merge|_inf / |merge|_inf.

    Raises
    ------
    ValueError
        A record without a step.
    """
    if step is not None:
        check_number("step", step, least=0, whole=True)
    if record is not None and step is None:
        raise ValueError("a record needs the number of the step: give step=0, 1, 2, ...")
    synchronise(plain, plain_optimizer, csla, csla_optimizer)
    same = same_settings(plain_optimizer, csla_optimizer)
    found = []
    given: list[list[Tensor]] = []
    for model, optimizer in ((plain, plain_optimizer), (csla, csla_optimizer)):
        optimizer.zero_grad()
        with outputs(model) as seen:
            # torch's own has no types.
            closure(model).backward()  # type: ignore[no-untyped-call]
        given.append(seen)
        found.append("none" if before is None else _watch_hook(before, optimizer))
    clip = found[0]
    if "changed" in found and clip != "csla":
        clip = "alike" if _gradients_alike(plain, csla) else "unlike"
    plain_optimizer.step()
    csla_optimizer.step()
    defect = equivalence_gap(plain, csla)
    if record is not None and step is not None:
        facts: dict[str, Any] = settings_of(plain_optimizer) | network_facts(csla, plain)
        facts |= {"clip": (clip,), "same_settings": (same,)}
        facts["reference_optimizer"] = (type(csla_optimizer).__name__,)
        note_facts(record, facts, seed, of)
        met = kinks(*given)
        looked = met is not None and all_seen(plain, csla)
        said = {column(KINKS, of): float(met or 0)} if looked else {}
        record.update(seed, step, {column(DEFECT, of): defect} | said)
    return defect


def _watch_hook(before: Hook, optimizer: torch.optim.Optimizer) -> str:
    """Run a hook, and say what it did to the gradients: "none", "csla", or "changed" in another way."""

    def seen() -> list[tuple[int, int]]:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        return [(id(p.grad), p.grad._version) for p in parameters if p.grad is not None]

    gradients, times = seen(), CLIPPED.get(optimizer, 0)
    before(optimizer)
    if CLIPPED.get(optimizer, 0) > times:
        return "csla"
    return "none" if seen() == gradients else "changed"


def _gradients_alike(plain: nn.Module, csla: nn.Module) -> bool:
    """Whether M g of the plain network is the merge of the branches' gradients, to 1000 epsilons."""
    gradients = {name: p.grad for name, p in csla.named_parameters()}
    mults = grad_mults(csla)

    def gradient(name: str, value: Tensor) -> Tensor:
        found = gradients[name]
        return torch.zeros_like(value) if found is None else found.detach()

    merged = merge_values(csla, gradient)
    for name, parameter in plain.named_parameters():
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        own = own * mults[name] if name in mults else own
        size = float(merged[name].abs().max())
        if float((own - merged[name]).abs().max()) > 1000 * torch.finfo(own.dtype).eps * size:
            return False
    return True


NEAR, UNLIKE = 1e-4, 0.05
"""While the gap is below the first, gradients further apart than the second are none of rounding."""


@showing
@checked
class Shadow:
    """A multi-branch copy beside a plain run: its free-running gap and its one-step defect.

    The run itself is untouched: the defect is measured on copies. Where the run stepped with other
    gradients than the copy, more than 5 % apart while both are still near each other, it was clipped or
    given another batch: the record then says clip = "unlike", and nothing is promised. Its gradients must
    still be there when the shadow steps, so `zero_grad` comes before the next backward pass.

    Parameters
    ----------
    csla, csla_optimizer
        The multi-branch network at the state of the plain one, and the same rule there.
    plain, plain_optimizer
        The run.
    record
        Where gap, defect and facts go; None: the record of `plain_optimizer` where it has one, else a new
        one, which `record` is.
    seed, of
        The run's seed there, and its name where one record holds several.
    """

    def __init__(
        self,
        csla: nn.Module,
        csla_optimizer: torch.optim.Optimizer,
        plain: nn.Module,
        plain_optimizer: torch.optim.Optimizer,
        *,
        record: Record | None = None,
        seed: int = 0,
        of: str = "",
    ) -> None:
        self.csla, self.csla_optimizer = csla, csla_optimizer
        self.plain, self.plain_optimizer = plain, plain_optimizer
        own = plain_optimizer.record if isinstance(plain_optimizer, Recorded) else Record()
        self.record = own if record is None else record
        self.seed, self.of, self.steps = seed, of, 0
        self._gap = 0.0
        self._eps = max(torch.finfo(p.dtype).eps for p in plain.parameters())
        # One deepcopy of both, so that the copied optimiser steps the copied parameters.
        self._copy, self._copy_optimizer = copy.deepcopy((plain, plain_optimizer))
        if isinstance(self._copy_optimizer, Recorded):
            self._copy_optimizer.record_into(None)

    def step(self, closure: Closure, before: Hook | None = None) -> tuple[float, float]:
        """Step the shadow with the batch that the run has just stepped with.

        Parameters
        ----------
        closure, before
            As for `one_step_defect`.

        Returns
        -------
        tuple[float, float]
            The free-running gap and the one-step defect.
        """
        for mine, theirs in zip(
            self._copy_optimizer.param_groups, self.plain_optimizer.param_groups, strict=True
        ):
            mine.update({k: v for k, v in theirs.items() if k != "params"})
        defect = one_step_defect(
            self._copy, self._copy_optimizer, self.csla, self.csla_optimizer, closure, before,
            record=self.record, seed=self.seed, step=self.steps, of=self.of,
        )  # fmt: skip
        last, gap = self._gap, equivalence_gap(self.plain, self.csla)
        # Gradients near 0 differ by rounding alone, but such steps do not lead apart.
        apart = last < NEAR and gap > 10 * max(last, self._eps)
        if apart and self._stepped_with_other_gradients():
            note_facts(self.record, {"clip": ("unlike",)}, self.seed, self.of)
        self._gap = gap
        self.record.update(self.seed, self.steps, {column(GAP, self.of): gap})
        self.steps += 1
        return gap, defect

    def _stepped_with_other_gradients(self) -> bool:
        """Whether the run's gradients, which a step leaves in place, are not those of the copy here.

        The copy takes the step that the run ought to have taken. What clips or edits the run's gradients
        out of the shadow's sight is seen by this alone, while both are in nearly the same state.
        """
        own = dict(self.plain.named_parameters())
        apart, size = 0.0, 0.0
        for name, parameter in self._copy.named_parameters():
            mine, theirs = own[name].grad, parameter.grad
            if mine is not None and theirs is not None:
                apart += float((mine.double() - theirs.double()).square().sum())
                size += float(theirs.double().square().sum())
        return not apart <= UNLIKE**2 * size

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured (see `surefoot.reparam.guarantee`)."""
        from surefoot.reparam.guarantee import certificates

        return certificates(self.record, of=self.of, confidence=confidence)


def check_equivalent_mode(model: nn.Module) -> None:
    """Raise TypeError where a model has BatchNorm inside its branches."""
    for name, block in blocks(model):
        if block.mode == "rep":
            raise TypeError(f"block {name or 'itself'}: {NON_LINEAR}")
