"""Which rules of clients, server, clipping and norm keep the equivalence, and why the others do not."""

from __future__ import annotations

from surefoot._numerics.arguments import checked
from surefoot.guarantee import Assumption
from surefoot.record import Fact
from surefoot.reparam.block import NON_LINEAR

KNOWN: dict[str, tuple[str, ...]] = {
    "server": ("fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad", "krum", "median",
               "trimmed_mean", "bulyan", "quantised"),
    "client": ("sgd", "rep_adamw", "rep_adamw_authors", "adam", "normalised"),
    "clip": ("none", "csla", "alike", "plain", "unlike"),
    "norm": ("bn", "group_norm", "none", "per_branch"),
}  # fmt: skip
WHY_NOT = {
    "fedadam": "the server's Adam normalises a merged update, which is not the merge of normalised ones",
    "fedyogi": "the server's Yogi normalises a merged update, which is not the merge of normalised ones",
    "fedadagrad": "the server's Adagrad normalises a merged update",
    "krum": "distances between merged updates are not distances between unmerged ones",
    "median": "a median of sums is not the sum of medians",
    "trimmed_mean": "a trimmed mean of sums is not the sum of trimmed means",
    "bulyan": "distances between merged updates are not distances between unmerged ones",
    "quantised": "rounding a merged update is not merging rounded ones",
    "adam": "Adam with multiplied gradients is not Adam on every branch; use RepAdamW",
    "rep_adamw_authors": "the authors' rule is not AdamW on every branch; use variant='exact'",
    "normalised": "a step that divides by the size of merged gradients is not the merge of such steps",
    "plain": "the plain network's gradient norm is not the multi-branch one's; clip_csla_norm_ takes that",
    "unlike": "the plain network stepped with other gradients than the branches'; use clip_csla_norm_",
    "per_branch": NON_LINEAR,
}


def judge(kind: str, value: Fact) -> tuple[bool | None, str]:
    """Whether one rule keeps the equivalence, and why not; None where nothing is known of it."""
    if value not in KNOWN[kind]:
        return None, f"nothing is known of {kind} {value!r}"
    reason = WHY_NOT.get(str(value), "")
    return not reason, f"{kind} {value}: {reason}" if reason else ""


@checked
def equivalence_holds(
    server: str = "fedavg", client: str = "sgd", clip: str | None = None, norm: str = "bn"
) -> Assumption:
    """Whether plain training follows the multi-branch one under these rules, and why not (G1, G2, G3).

    Linear in the gradient history on the clients, linear aggregation on the server, clipping by the
    multi-branch norm, a norm only after the sum. FedProx's term is added after the multiplier. This is a
    statement of the rules alone: what a run did is read off its record, never told here.

    Parameters
    ----------
    server
        "fedavg", "fedavgm", "fedprox" keep it; "fedadam", "fedyogi", "fedadagrad", "krum", "median",
        "trimmed_mean", "bulyan", "quantised" do not.
    client
        "sgd" (with momentum, Nesterov, dampening, coupled decay), "rep_adamw" keep it; "adam",
        "rep_adamw_authors", "normalised" (any other step that divides by gradient sizes) do not.
    clip
        None or "none", "csla" (`clip_csla_norm_`), "alike" (whatever else leaves M g the merge of the
        branches' gradients) keep it; "plain" (the plain network's own norm), "unlike" do not.
    norm
        "bn", "group_norm", "none", all after the sum, keep it; "per_branch" does not.

    Returns
    -------
    Assumption
        `holds`, and the reasons in `how`.

    Raises
    ------
    ValueError
        An unknown rule.
    """
    clip = clip or "none"
    reasons = []
    for kind, given in {"server": server, "client": client, "clip": clip, "norm": norm}.items():
        if given not in KNOWN[kind]:
            raise ValueError(f"{kind} must be one of {KNOWN[kind]}, got {given!r}")
        reasons.append(judge(kind, given)[1])
    said = "; ".join(filter(None, reasons))
    return Assumption(
        name="linear rules",
        requires="clients and server linear in the gradients, the norm after the sum",
        measured=None,
        holds=not said,
        how=said or f"by the rules: server {server}, client {client}, clip {clip}, norm {norm}",
    )
