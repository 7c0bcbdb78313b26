"""What the steps of an Opacus training count, from whoever knows its optimiser.

In this order: the accountant of `register_opacus`, whose hook saw every step; an optimiser that is shown;
the optimiser's state in a checkpoint; else nobody, and the report says that it takes plain SGD on trust.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot._numerics.checks import check_numbers
from surefoot.privacy._weighing import APART, REFUSED, Weighing, even, settings_text, weigh

if TYPE_CHECKING:
    from surefoot.privacy._impulses import Recipe

UNKNOWN_OPTIMIZER = (
    "Opacus does not record the optimizer: every step is taken to count the same, as under plain SGD at a "
    "constant rate; pass optimizer= (and lr_history=), or train with the accountant of register_opacus"
)
TRUSTED_RATE = (
    "Opacus does not record learning rates: the optimizer's is taken for all steps; pass lr_history= "
    "where it changed"
)
# What a state of torch's SGD has in its groups, and no other optimiser of torch.
SGD_KEYS = frozenset(("lr", "momentum", "dampening", "weight_decay", "nesterov"))
LABELS = frozenset(("params", "param_names", "name", "initial_lr"))


def weigh_training(
    optimizer: Any, lr_history: Sequence[float] | None, state: Mapping[str, Any], steps: int
) -> Weighing:
    """What each step counts in the final model, or why there is no answer.

    Parameters
    ----------
    optimizer
        That was shown, or None.
    lr_history
        That was given, or None.
    state
        Of the accountant, with the optimiser's beside it where a checkpoint has one.
    steps
        T.
    """
    observed = state.get("observed")
    if observed is not None and len(observed["lrs"]) == steps:
        found = _observed(optimizer, lr_history, observed, state.get("kinds", {}), steps)
    elif optimizer is not None:
        found = weigh(optimizer, steps, lr_history)
        if lr_history is None and not found.refused:
            found = _noted(found, TRUSTED_RATE)
    elif "optimizer_state_dict" in state:
        found = _saved(state["optimizer_state_dict"], lr_history, steps)
    else:
        found = _noted(_rates(lr_history, steps), UNKNOWN_OPTIMIZER)
    return found


def _noted(weighing: Weighing, note: str) -> Weighing:
    return Weighing(
        weighing.weights, weighing.refused, (*weighing.notes, note), weighing.void, weighing.name
    )


def _rates(lr_history: Sequence[float] | None, steps: int) -> Weighing:
    from surefoot.privacy.linear_weights import LinearWeights

    if lr_history is None or len(set(map(float, lr_history))) == 1:
        return Weighing()
    check_numbers("lr_history", lr_history, ndim=1)
    return Weighing(LinearWeights(np.asarray(lr_history, dtype=float), "learning rates as given"))


def _saved(saved: Mapping[str, Any], lr_history: Sequence[float] | None, steps: int) -> Weighing:
    """From the groups of a state that was saved: they do not name the class."""
    import torch

    groups = [{k: v for k, v in g.items() if k not in LABELS} for g in saved["param_groups"]]
    foreign = sorted(
        {k for g in groups for k in g if k not in torch.optim.SGD([torch.zeros(1)]).defaults}
    )
    if foreign or not all(set(g) >= SGD_KEYS for g in groups):
        shown = ", ".join(foreign or sorted(groups[0]))
        why = (
            f"the checkpoint's optimizer has the settings {shown}: not torch's SGD; pass optimizer="
        )
        return Weighing(refused=REFUSED.format(why=why))
    parameters = [{**g, "params": [torch.zeros(1)]} for g in groups]
    found = weigh(torch.optim.SGD(parameters), steps, lr_history)
    return found if lr_history is not None or found.refused else _noted(found, TRUSTED_RATE)


def _observed(
    optimizer: Any,
    lr_history: Sequence[float] | None,
    observed: Mapping[str, Any],
    kinds: Mapping[str, Recipe],
    steps: int,
) -> Weighing:
    """From what the accountant's hook saw at every step."""
    import torch

    from surefoot.privacy._impulses import Recipe, recipe_of, unwrapped

    names = observed.get("optimizers") or []
    if len(names) > 1:
        why = f"the optimizer changed along the training: {', '.join(names)}"
        return Weighing(refused=REFUSED.format(why=why))
    if reasons := observed.get("unequal"):
        return Weighing(refused=REFUSED.format(why="; ".join(reasons)))
    settings = observed.get("settings")
    name = names[0] if names else ""
    recipe = kinds.get(name)
    shown = None if optimizer is None else unwrapped(optimizer)
    if recipe is None and shown is not None and type(shown).__name__ == name:
        recipe = recipe_of(shown)
    if recipe is None and name in observed.get("torchs", ()):
        recipe = Recipe(getattr(torch.optim, name), {})
    rates = observed["lrs"] if lr_history is None else lr_history
    if settings is None or recipe is None:
        if optimizer is not None:
            return weigh(optimizer, steps, rates)
        why = (
            f"the optimizer {name} cannot be made again from a saved state; pass optimizer="
            if name
            else "this state is of an earlier version and does not hold the optimizer; pass optimizer="
        )
        return Weighing(refused=REFUSED.format(why=why))
    each = list(itertools.chain.from_iterable([s] * count for count, s in settings))
    clips = observed["clips"]
    return _weighed(recipe, each, rates, clips if len(clips) == steps else None, observed)


def _weighed(
    recipe: Recipe,
    each: list[Mapping[str, Any]],
    rates: Sequence[float],
    clips: Sequence[float] | None,
    observed: Mapping[str, Any],
) -> Weighing:
    import torch

    from surefoot.privacy._impulses import answers, departure, proportional
    from surefoot.privacy.linear_weights import LinearWeights

    name = recipe.name
    if not each:
        return Weighing(name=name)
    recipe = recipe.with_settings({**each[0], "lr": float(rates[0])})
    plain = recipe.kind is torch.optim.SGD and not any(
        s["momentum"] or s["weight_decay"] for s in each
    )
    try:
        if plain:
            # Each step moves the model by its rate and is left alone after: no T^2 operations.
            values = np.asarray(rates, dtype=float)
        else:
            departure(recipe)
            found = []
            for ratio in observed.get("ratios") or [1.0]:

                def settings(t: int, ratio: float = ratio) -> dict[str, Any]:
                    own = {k: v for k, v in each[t].items() if recipe.takes(k)}
                    return own | ({"lr": rates[t] * ratio} if recipe.takes("lr") else {})

                found.append(answers(recipe, len(each), settings=settings))
            if not all(proportional(found[0], other) for other in found[1:]):
                why = (
                    "the learning rates of the groups differ, and with decay or momentum what a step counts "
                    "then depends on where the example's gradient lies"
                )
                return Weighing(refused=REFUSED.format(why=why), name=name)
            values = found[0].numpy() * (1 if each[0].get("maximize") else -1)
    except ValueError as error:
        return Weighing(refused=REFUSED.format(why=error), name=name)
    apart = (APART,) if len(observed.get("ratios") or ()) > 1 else ()
    if clips is not None:
        values = values * np.asarray(clips, dtype=float)
    if even(values):
        return Weighing(notes=apart, name=name)
    words = [] if len(set(rates)) == 1 else ["changing learning rates"]
    words += [] if clips is None or len(set(clips)) == 1 else ["changing clip norms"]
    said = f"{settings_text(each[0])}{''.join(', ' + w for w in words)}"
    note = f"steps count as {name} made them count{said}, as the accountant saw"
    return Weighing(
        LinearWeights(values, f"{name}, {len(each)} steps seen"), "", (note, *apart), name=name
    )
