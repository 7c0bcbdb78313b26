"""What is promised of a compact network as core guarantees, each read off the record of what ran.

Sections count as in the derivation: exactness of slicing and folding (3.3), the pruning bound (3.4), held-out
error (3.5), Occam's bound (3.6), the search budget (3.7).
"""

from __future__ import annotations

from typing import Literal, get_args

from surefoot._numerics.checks import check_choice
from surefoot.guarantee import Assumption, Curve, Guarantee, assume_fact
from surefoot.record import Fact, Record

SLICING, FOLDING = "deviation of slicing", "deviation of folding"
CHANGE, PRUNING_BOUND = "change of the outputs", "pruning bound"
OUTPUTS, TRIVIAL_CHANGE = "size of the outputs", "size of both outputs"
OCCAM, OCCAM_BOUND = "error rate of the rounded network, lower limit", "Occam bound"
SECONDS, TIME_BUDGET = "wall seconds", "time budget"
EXACT = 1e-5
DERIVED = "derived for surefoot.architecture"
HeldOut = Literal["error rate", "median absolute error", "90% absolute error"]


def fresh(kind: str) -> str:
    """The quantity that is held against a certified limit."""
    return f"{kind} on fresh rows, lower limit"


def certified(kind: str) -> str:
    """The column of the certified limits, one a point of the front."""
    return f"certified {kind}"


def _all(record: Record, of: str, wanted: dict[str, tuple[str, Fact]]) -> tuple[Assumption, ...]:
    """{name of the assumption: (fact, the value that it must have)}."""

    def one(name: str, fact: str, value: Fact) -> Assumption:
        words = f"{fact.replace('_', ' ')}: {value}"
        return assume_fact(record, fact, name, words, lambda v: v == value, of=of)

    return tuple(one(name, fact, value) for name, (fact, value) in wanted.items())


def slicing_exactness() -> Guarantee:
    """3.3: the compact network computes what the gated one computes, in float32, at every training row."""
    return Guarantee(
        name="3.3: slicing changes nothing",
        statement="max_x |compact(x) - gated(x)| / max(1, |gated(x)|) <= 1e-5",
        latex=r"\max_x |f(x) - \tilde f(x)| / \max(1, |f(x)|) \le 10^{-5}",
        source=f"zeros compute nothing and constants are constant; {DERIVED}",
        quantity=SLICING,
        sense="upper",
        holds_in="every run",
        bound=lambda record: EXACT,
        assumptions=lambda record: _all(
            record, "slicing",
            {"same rows": ("rows", "standardised training rows"), "precision": ("dtype", "float32")},
        ),
        of="slicing",
    )  # fmt: skip


def folding_exactness() -> Guarantee:
    """3.3: the exported module on raw rows computes what the network on standardised rows computes."""
    return Guarantee(
        name="3.3: folding the standardisation changes nothing",
        statement="max_x |module(x) - f((x - mean) / scale)| / max(1, |f|) <= 1e-5, in standardised outputs",
        latex=r"\max_x |m(x) - f((x - \mu)/s)| / \max(1, |f|) \le 10^{-5}",
        source=f"an affine map of the first and the last layer; {DERIVED}",
        quantity=FOLDING,
        sense="upper",
        holds_in="every run",
        bound=lambda record: EXACT,
        assumptions=lambda record: _all(
            record, "folding",
            {
                "raw rows": ("rows", "raw training rows"),
                "means and scales": ("standardised_in", "float64"),
                "its own check": ("dtype_chosen_by", "this check"),
            },
        ),
        of="folding",
    )  # fmt: skip


def pruning_change() -> Guarantee:
    """3.4: what pruning changed is within the bound that both networks and the rows give."""

    def size(record: Record) -> Curve:
        return record.curves(OUTPUTS).values if OUTPUTS in record else 0.0

    return Guarantee(
        name="3.4: what pruning can change",
        statement="|f - f~| <= e_(l+1), e_i = Lip_i (|W~_i| e_(i-1) + |h_(i-1) (W~_i - W_i)| + |b~_i - b_i|)",
        latex=r"|f(x) - \tilde f(x)| \le e_{l+1}(x)",
        source=f"Lipschitz constants of the layers; {DERIVED}",
        quantity=CHANGE,
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(PRUNING_BOUND).values,
        assumptions=lambda record: _all(
            record, "pruning",
            {
                "one shape": ("compared", "same shape, same rows"),
                "Lipschitz activations": ("activations", "Lipschitz"),
                "computed in float64": ("dtype", "float64"),
            },
        ),
        # Two outputs can differ by no more than both of them.
        trivial=lambda record: (
            record.curves(TRIVIAL_CHANGE).values if TRIVIAL_CHANGE in record else float("inf")
        ),
        size=size,
        of="pruning",
    )  # fmt: skip


def held_out_error(kind: HeldOut = "error rate") -> Guarantee:
    """3.5: the error on new rows of every point of the front, all points at once.

    The certified limits hold with the confidence of the fit over the draw of the certification rows; each
    lower limit on fresh rows with the confidence that it was taken at.

    Parameters
    ----------
    kind : str
        "error rate", or of a regression "median absolute error" or "90% absolute error".
    """
    kind = check_choice("kind", kind, get_args(HeldOut))
    rate = kind == "error rate"
    how = "Clopper-Pearson" if rate else "order statistic"
    return Guarantee(
        name=f"3.5: {kind} on new rows",
        statement=f"{kind} of every point <= its {how} limit on rows that nothing else has used",
        source=(
            "Clopper and Pearson (1934) with Bonferroni's correction"
            if rate
            else "order statistics of independent values with Bonferroni's correction"
        ),
        quantity=fresh(kind),
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(certified(kind)).values,
        assumptions=lambda record: _all(
            record, "certification",
            {
                "untouched rows": ("rows", "untouched by search, polish and selection"),
                "all points at once": ("correction", "Bonferroni over the front"),
                "fresh rows": ("compared_on", "rows given for comparison"),
            },
        ),
        trivial=1.0 if rate else None,
        of="certification",
    )  # fmt: skip


def occam_error() -> Guarantee:
    """3.6: the error rate on new rows from the training error and the size of the network."""
    return Guarantee(
        name="3.6: Occam's bound",
        statement="err <= train_err + sqrt(((s (b + log2 P) + B) ln 2 + 1 + ln(1/d)) / (2 n))",
        latex=r"\mathrm{err} \le \hat{\mathrm{err}}"
        r" + \sqrt{((s(b + \log_2 P) + B)\ln 2 + 1 + \ln(1/\delta)) / (2n)}",
        source=f"Occam's razor bound with Kraft's inequality; {DERIVED}",
        quantity=OCCAM,
        sense="upper",
        holds_in="every run",
        bound=lambda record: record.curves(OCCAM_BOUND).values,
        assumptions=lambda record: _all(
            record, "occam",
            {
                "0-1 loss": ("loss", "error rate"),
                "rounded network": ("rounded", "after folding"),
                "every row": ("counted", "every row of the fit"),
            },
        ),
        trivial=1.0,
        of="occam",
    )  # fmt: skip


def search_time() -> Guarantee:
    """3.7: a fit on a clock ends in time."""
    return Guarantee(
        name="3.7: the search budget",
        statement="wall seconds <= 1.15 time_budget + 1",
        source="by the clock; surefoot.architecture",
        quantity=SECONDS,
        sense="upper",
        holds_in="every run",
        bound=lambda record: 1.15 * record.curves(TIME_BUDGET).values + 1,
        assumptions=lambda record: _all(
            record, "budget", {"a clock": ("measure", "seconds of the wall clock")}
        ),
        of="budget",
    )
