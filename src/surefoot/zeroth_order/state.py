"""What a checkpoint of a zeroth-order run holds, and going on from it."""

from __future__ import annotations

from typing import Any

from surefoot.zeroth_order._engine.engine import Engine
from surefoot.zeroth_order._engine.kept import KeptFactors
from surefoot.zeroth_order._engine.paired.products import LOW
from surefoot.zeroth_order._engine.tensors import TrainedTensor, exact


def state_of(engine: Engine) -> dict[str, Any]:
    """t, factors, dense copies and momenta; V is not in it, nor are weights.

    Raises
    ------
    ValueError
        Between estimate() and apply().
    """
    if engine.mean.sums is not None:
        raise ValueError("state_dict must not come between estimate() and apply()")
    groups = [
        {k: v for k, v in g.items() if k != "params"} | {"count": len(g["params"])}
        for g in engine.groups
    ]
    log = engine.log
    # What was chosen by timing: a run that goes on goes on the same way.
    chosen: dict[str, Any] = {}
    if engine.pairing.choice.faster:
        chosen["paired"] = dict(engine.pairing.choice.faster)
    if engine.pairing.autocast is not None:
        # The run that goes on looks no more.
        chosen["autocast"] = str(engine.pairing.autocast).removeprefix("torch.")
    return chosen | {
        "method": engine.method,
        "settings": engine.all_settings(),
        "t": engine.directions.t,
        "decay": list(engine.decay),
        "skipped": engine.skipped,
        "param_groups": groups,
        "state": {x.index: _held_by(x) for x in engine.tensors},
        "privacy": None if engine.privacy is None else engine.privacy.to_dict(),
        "private_run": engine.run_id,
        "log": None if log is None or not log.header else log.to_bytes(),
    }


def _held_by(tensor: TrainedTensor) -> dict[str, Any]:
    held: dict[str, Any] = {"storage": tensor.storage, "rank": tensor.rank}
    if tensor.b is not None:
        held["b"] = tensor.b.clone()
    if tensor.base is not None:
        held["base"] = tensor.base.clone()
    if tensor.kept.periods:
        held["kept"] = [(k, b.clone()) for k, b in tensor.kept.whole()]
    left = tensor.kept.left()
    if left is not None:
        held["cut"] = tuple(x.clone() for x in left)
    return held | {k: v.clone() for k, v in tensor.moments.items()}


def load_state(engine: Engine, state: dict[str, Any]) -> None:
    """Go on where a state was taken; the model must hold the weights saved beside it.

    Raises
    ------
    ValueError
        If the state is of another method, other settings or other parameters.
    """
    _check(engine, state)
    for group, saved in zip(engine.groups, state["param_groups"], strict=True):
        group.update({k: v for k, v in saved.items() if k not in ("count", "params")})
    engine.mean.clear()
    engine.pairing.forget()
    engine.pairing.choice.faster = dict(state.get("paired", {}))
    engine.pairing.autocast = {str(x): x for x in LOW}.get(f"torch.{state.get('autocast')}")
    engine.directions.forget()
    engine.directions.t, engine.decay = state["t"], list(state["decay"])
    engine.skipped = state.get("skipped", 0)
    engine.run_id = str(state.get("private_run", engine.run_id))
    for tensor in engine.tensors:
        _restore(engine, tensor, dict(state["state"][tensor.index]))
    if state["log"] is not None and engine.log is not None:
        engine.log.resume(state["log"], engine.tensors)
    if engine.directions.t:
        # The run that saved has looked already; accelerate hands a fresh state back and forth.
        engine.self_check = None


def _check(engine: Engine, state: dict[str, Any]) -> None:
    if state.get("method") != engine.method:
        raise ValueError(f"state is of method {state.get('method')!r}, not {engine.method!r}")
    mine, theirs = engine.all_settings(), state["settings"]
    wrong = [k for k in mine if mine[k] != theirs.get(k)]
    if wrong:
        each = ", ".join(f"{k} {theirs.get(k)!r} instead of {mine[k]!r}" for k in wrong)
        raise ValueError(f"state was taken with other settings: {each}")
    own = None if engine.privacy is None else engine.privacy.to_dict()
    if state.get("privacy") != own:
        raise ValueError(
            f"state was taken with privacy {state.get('privacy')} instead of {own}: what a run has let go is "
            "counted by one mechanism"
        )
    counts = [g["count"] for g in state["param_groups"]]
    if counts != [len(g["params"]) for g in engine.groups]:
        raise ValueError(f"state has parameter groups of sizes {counts}, not of this optimiser's")
    for group, saved in zip(engine.groups, state["param_groups"], strict=True):
        if group["rank"] != saved["rank"]:
            raise ValueError(f"state has rank {saved['rank']}, this optimiser {group['rank']}")


def _restore(engine: Engine, tensor: TrainedTensor, saved: dict[str, Any]) -> None:
    if saved.pop("storage") != tensor.storage and tensor.storage == "hooked":
        # The self-check of the run that saved had found this tensor read outside its module.
        tensor.unhook()
        tensor.storage = "written"
    rank, device = saved.pop("rank"), tensor.device
    directions, t, nu = engine.directions, engine.directions.t, engine.settings.nu
    base, b = saved.pop("base", None), saved.pop("b", None)
    tensor.base = None if base is None else base.to(device, copy=True)
    if t:
        # At a period's end the old V is still needed: the momentum is projected from it.
        tensor.period = (t - (t % nu == 0)) // nu
        tensor.begin(directions.draw_v(tensor, tensor.period, rank), rank)
    else:
        tensor.period, tensor.rank = -1, rank
        tensor.v = tensor.v_cast = tensor.b = None
    if b is not None and tensor.b is not None:
        tensor.b.copy_(b)
    tensor.kept = KeptFactors()
    if "cut" in saved:
        b, v = (x.to(device, copy=True) for x in saved.pop("cut"))
        tensor.kept.start(b, v)
    for period, each in saved.pop("kept", []):
        drawn = directions.draw_v(tensor, period, each.shape[1])
        assert drawn is not None
        tensor.kept.add(period, each.to(device), drawn.to(device, exact(tensor.param.dtype)))
    tensor.moments = {k: m.to(device, copy=True) for k, m in saved.items()}
    tensor.position, tensor.shown = 0.0, tensor.b
    if tensor.storage == "written" and tensor.base is not None:
        if tensor.dense:
            tensor.param.data.copy_(tensor.base)
        elif tensor.v is not None:
            tensor.write()
