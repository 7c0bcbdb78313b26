"""What the probe found: the verdict, the errors that it rests on, as a table, as JSON, as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.guarantee import Assumption
from surefoot.in_context._probe.layers import LayerFit
from surefoot.in_context._probe.verdict import THRESHOLD, Name, alike

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HOLDS = {True: "holds", False: "fails", None: "cannot be told"}
MULTIPLE = 0.5
"""||A - b S^-1|| / ||b S^-1|| from which on A is said to be no multiple of S^-1."""
WORDS = {"ols": "least squares", "ridge": "ridge", "zero": "predicting 0"}


@showing
@checked(nan=True)
@dataclass(frozen=True, repr=False)
class ProbeReport:
    """What a callable does to its prompts, as far as the probe can tell.

    All errors of candidates are held-out ones, ||w - W||^2 / ||W||^2 over fresh prompts, where W are the
    weights that the callable's answers to unit queries imply.

    Attributes
    ----------
    verdict
        "gd", "ols", "ridge", "untied" (steps of different sizes), "zero", "not linear in the query",
        "not linear in y". But for "gd" and the last two it names the closest candidate, which `fits` or not.
    loops
        Steps of gradient descent, None where the verdict is another.
    A
        (d, d): its preconditioner, w <- w + A'(Xy/n - XX'w/n).
    errors
        Error of gradient descent by number of steps.
    competitors
        Errors of "ols", "ridge", "untied" and "zero".
    lin_q
        Relative error of sum_j xq_j f(e_j) = f(xq).
    lin_y
        Relative error of f(X, 2y, xq) = 2 f(X, y, xq).
    intervals
        Bootstrap intervals over the held-out prompts, of all of these: "lin_q", "lin_y", "gd 1", ..., "ols".
    confidence
        Of the intervals.
    agreement
        The share of 1,000 resamples of the held-out prompts that give this very verdict.
    scale
        The b that brings b S^-1 closest to A.
    distance
        ||A - b S^-1|| / ||b S^-1|| (largest singular values).
    optimal
        The b* whose loss is least for so many steps, None where the prompts are not Gaussian or noisy.
    sigma
        (d, d): S, the covariance of x.
    preconditioners
        The best A for each number of steps.
    alpha
        Penalty of the best ridge.
    steps
        The best schedule of different steps, None where it is not real.
    untied_loops
        How many it has.
    layers
        Layerwise only: each layer as one step.
    assumptions
        Whether the prompts are of the law that the theorems speak of, as measured on them.
    d
        Features of a prompt.
    n
        Its examples.
    fitted
        How many prompts were fitted.
    held
        And how many judged.
    unanswered
        Prompts left out, as the callable abstained on one of their questions.
    answers
        Answers asked for in all, of which `abstained` were none.
    abstained
        Those.
    facts
        What the callable tells of itself: tokens, digits.
    name
        The callable.
    linear
        Below which `lin_q` and `lin_y` count as linear: 1e-3, and four roundings of answers in 16 bits.
    rounded
        "bfloat16" or "float16" where every answer is one of its numbers, whatever dtype it came in.
    lin_affine
        Where the verdict is "not linear in the query": the same error of f(xq) - f(0), which is small for a
        line with a constant of its own. None elsewhere.
    """

    verdict: Name
    loops: int | None
    A: Float[Tensor, "d d"] | None
    errors: Mapping[int, float]
    competitors: Mapping[str, float]
    lin_q: float
    lin_y: float
    intervals: Mapping[str, tuple[float, float]]
    confidence: float
    agreement: float
    scale: float | None
    distance: float | None
    optimal: float | None
    sigma: Float[Tensor, "d d"]
    preconditioners: Mapping[int, Float[Tensor, "d d"]]
    alpha: float
    steps: tuple[float, ...] | None
    untied_loops: int
    layers: tuple[LayerFit, ...]
    assumptions: tuple[Assumption, ...]
    d: int
    n: int
    fitted: int
    held: int
    unanswered: int
    answers: int
    abstained: int
    facts: Mapping[str, Any]
    name: str
    _seen: tuple[Tensor, Tensor, Tensor] = field(compare=False)
    linear: float = THRESHOLD
    rounded: str | None = None
    lin_affine: float | None = None

    @property
    def error(self) -> float:
        """The error that the verdict rests on: of what it names, or of linearity."""
        if self.verdict == "gd":
            assert self.loops is not None
            return self.errors[self.loops]
        linear = {"not linear in the query": self.lin_q, "not linear in y": self.lin_y}
        return linear[self.verdict] if self.verdict in linear else self.competitors[self.verdict]

    @property
    def fits(self) -> bool:
        """Whether what the verdict names explains the callable: its held-out error is below 1e-3."""
        return "not" not in self.verdict and self.error < THRESHOLD

    def __repr__(self) -> str:
        return table(self)

    __str__ = __repr__

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {
            "name": self.name, "d": self.d, "n": self.n, "verdict": self.verdict,
            "sentence": sentence(self), "fits": self.fits, "loops": self.loops,
            "A": None if self.A is None else self.A.tolist(),
            "errors": {str(k): e for k, e in self.errors.items()},
            "competitors": dict(self.competitors), "lin_q": self.lin_q, "lin_y": self.lin_y,
            "lin_affine": self.lin_affine, "linear": self.linear, "rounded": self.rounded,
            "threshold": THRESHOLD, "confidence": self.confidence,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "agreement": self.agreement, "scale": self.scale, "distance": self.distance,
            "optimal": self.optimal,
            "sigma": self.sigma.tolist(), "alpha": self.alpha,
            "steps": None if self.steps is None else list(self.steps),
            "untied_loops": self.untied_loops,
            "layers": [each.to_dict() for each in self.layers],
            "assumptions": [
                {"name": a.name, "requires": a.requires, "measured": a.measured, "holds": a.holds,
                 "how": a.how}
                for a in self.assumptions
            ],
            "prompts": {"fitted": self.fitted, "held_out": self.held, "unanswered": self.unanswered},
            "answers": self.answers, "abstained": self.abstained, "facts": dict(self.facts),
        }  # fmt: skip

    def picture(self) -> Figure:
        """Implied weights against those of k = 1, 2, ... steps of gradient descent, on held-out prompts."""
        from surefoot.in_context._probe.picture import weights_figure

        return weights_figure(
            f"{self.name}: {sentence(self)}", self.errors, self.preconditioners, *self._seen
        )


def plural(count: int, word: str) -> str:
    """1 step, 2 steps."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def sentence(report: ProbeReport) -> str:
    """The verdict in words."""
    if report.verdict == "gd":
        assert report.loops is not None
        return f"gradient descent, {plural(report.loops, 'step')} with preconditioner A"
    if report.verdict.startswith("not"):
        return f"no gradient descent: {report.verdict}"
    what = WORDS.get(report.verdict, _schedule(report))
    if report.verdict == "ridge":
        what += f" with alpha {report.alpha:.4g}"
    return what if report.fits else f"none of the candidates; the closest is {what}"


def _schedule(report: ProbeReport) -> str:
    if report.untied_loops == 1:
        return "1 gradient step"
    if report.steps is None:
        return f"a polynomial of degree {report.untied_loops} in the gradient, of no real steps"
    return f"{report.untied_loops} gradient steps of different sizes"


def _hints(report: ProbeReport) -> Iterator[str]:
    """What the verdict leaves open, and what to do about it."""
    most = max(report.errors)
    if report.verdict == "gd" and report.loops is not None:
        others = [str(k) for k in alike(report.errors, report.loops) if k != report.loops]
        if others:
            yield f"as many as {', '.join(others)} steps fit as well: their number cannot be told"
    if report.verdict == "untied" and min(report.errors, key=report.errors.__getitem__) == most > 1:
        yield (
            f"equal steps fit better the more there are: there may be more than {most}; "
            f"ask again with max_loops = {2 * most} (--max-loops {2 * most})"
        )
    if report.lin_affine is not None and report.lin_affine < report.linear:
        yield (
            "linear but for a constant, f(xq = 0): probe fn(X, y, xq) - fn(X, y, 0 * xq), or leave out the "
            "intercept (fit_intercept=False) or the bias of the output"
        )
    if report.rounded is not None:
        yield (
            f"answers are rounded to {report.rounded}: linearity is told to {report.linear:.2g} only; "
            "ask in float32 for more"
        )


def table(report: ProbeReport) -> str:
    """Everything, line by line."""
    return "\n".join(_lines(report))


def _lines(report: ProbeReport) -> Iterator[str]:
    yield (
        f"probe of {report.name}: d = {report.d}, n = {report.n}, {report.fitted} prompts to fit, "
        f"{report.held} held out"
    )
    yield f"verdict: {sentence(report)}"
    yield (
        f"  {report.agreement:.1%} of 1,000 resamples of the held-out prompts say the same; "
        f"brackets: {report.confidence:.0%} intervals"
    )
    if report.verdict == "gd":
        best = "" if report.optimal is None else f"; least loss at {report.optimal:.4g} S^-1"
        if report.distance is not None and report.distance < MULTIPLE:
            yield f"  A is {report.scale:.4g} S^-1 up to {report.distance:.2g} of its norm{best}"
        else:
            yield (
                f"  A is no multiple of S^-1: the nearest, {report.scale:.4g} S^-1, is off by "
                f"{report.distance:.2g} times its own norm{best}"
            )
    for hint in _hints(report):
        yield f"  {hint}"
    yield f"{'linearity':<34}relative error, below {report.linear:.3g} if linear"
    yield _row("in the query", report.lin_q, report.intervals["lin_q"])
    if report.lin_affine is not None:
        yield f"  {'in the query, but for f(0)':<32}{report.lin_affine:<10.3g}"
    yield _row("in y", report.lin_y, report.intervals["lin_y"])
    yield f"{'candidate':<34}held-out squared error, relative"
    for k, error in report.errors.items():
        mark = " <-" if report.loops == k else ""
        yield _row(
            f"gradient descent, {plural(k, 'step')}", error, report.intervals[f"gd {k}"], mark
        )
    steps = "complex" if report.steps is None else ", ".join(f"{b:.3g}" for b in report.steps)
    words = {
        "ols": "least squares", "ridge": f"ridge, alpha {report.alpha:.4g}",
        "untied": "1 step b S^-1" if report.untied_loops == 1
        else f"{report.untied_loops} steps of different sizes", "zero": "predicting 0",
    }  # fmt: skip
    for name, error in report.competitors.items():
        mark = " <-" if report.verdict == name and report.fits else ""
        yield _row(words[name], error, report.intervals[name], mark)
        if name == "untied":
            yield f"    steps {steps}"
    if report.layers:
        yield f"{'layer as one step':<34}squared error, relative to its step"
    for layer in report.layers:
        yield f"  {f'layer {layer.layer}':<32}{layer.error:<10.3g}{'gd' if layer.is_gd else 'not gd'}"
    yield f"{'prompts':<34}measured"
    for each in report.assumptions:
        number = "-" if each.measured is None else f"{each.measured:.3g}"
        yield f"  {each.name:<32}{number:<10}{each.requires}: {HOLDS[each.holds]}"
    yield f"asked {report.answers} times"
    if report.abstained or report.unanswered:
        yield (
            f"  {report.abstained} without an answer; {plural(report.unanswered, 'prompt')} left out for it"
        )
    for name, value in report.facts.items():
        yield f"  {name}: {value}"


def _row(name: str, error: float, interval: tuple[float, float], mark: str = "") -> str:
    return f"  {name:<32}{error:<10.3g}[{interval[0]:.3g}, {interval[1]:.3g}]{mark}"
