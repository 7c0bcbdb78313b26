"""What a picture of a certificate shows: scales, ticks, titles, and in words what one cannot see in it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from surefoot._verdict.curve import PlotCurve

# Steps that number things ("a pair a step", "in every class"), between which there is no path.
NUMBERED = re.compile(r"\ban? (\w+) a step\b|\bin every (class|input|pair|site|number)\b")
# Between words an underscore is a space, behind a letter it is an index.
NAME = re.compile(r"(?<=[A-Za-z]{2})_(?=[A-Za-z]{2})")
# A column of one of several that ran: "NAME.mean_squared_gradient".
OF = re.compile(r"(.+)\.([a-z]\w*)")
LOGARITHMIC = "logarithmic scale"
# Of so few steps each is seen by itself.
FEW = 16
# In this share of the height two curves are one line.
SAME = 0.004
# The power of ten up to which a scale goes: a float ends at 10^308.25.
LARGEST = 308.25
# Beyond the one and within the other a linear scale has no round numbers.
EDGE, TINY = 1e307, 1e-300


class Drawn(Protocol):
    """Of a certificate, what a drawing needs; the certificate draws itself with this module."""

    @property
    def quantity(self) -> str:
        """What the curves show."""

    @property
    def axis(self) -> str | None:
        """The quantity as an axis says it."""

    @property
    def statement(self) -> str:
        """What is promised, which may say what a step is."""

    @property
    def seeds(self) -> list[int]:
        """Of how many runs."""

    @property
    def curve(self) -> PlotCurve:
        """Measured and promised."""


@dataclass(frozen=True)
class Axis:
    """A scale with its title: `low` and `high` are its ends, `ticks` positions with labels."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float | None:
        """Where a value stands, 0 to 1; None: it has no place."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return None
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return min(1.0, max(0.0, (at - low) / (high - low)))


@dataclass(frozen=True)
class Chart:
    """A picture of measured and promised; `words` stand in its place where there is nothing to draw.

    `dots`: no line joins the steps, as they only number things; `marked`: there are so few that each is seen.
    """

    curve: PlotCurve
    seeds: int
    x: Axis
    y: Axis
    dots: bool
    marked: bool
    notes: tuple[str, ...] = ()
    words: str = ""


def chart(certificate: Drawn) -> Chart:
    """How a certificate is drawn."""
    curve = certificate.curve
    numbered = NUMBERED.search(certificate.statement)
    what = next((w for w in numbered.groups() if w), "step") if numbered else "step"
    quantity = certificate.axis or named(certificate.quantity)
    banded = len(certificate.seeds) > 1
    values = [*curve.mean, *curve.promised, *(curve.lowest + curve.highest if banded else [])]
    finite = [v for v in values if math.isfinite(v)]
    log = log_worthy(finite)
    x = _across(curve.steps, what, room=0.5 if numbered else 0.0)
    y = _upright(finite, f"{quantity}, {LOGARITHMIC}" if log else quantity, log)
    few = len(curve.steps) <= FEW
    return Chart(
        curve,
        len(certificate.seeds),
        x,
        y,
        bool(numbered),
        few,
        _notes(curve, y),
        _words(curve, finite),
    )


def log_worthy(values: Sequence[float]) -> bool:
    """Nowhere negative, mostly above 0, and there spanning more than a factor of thirty."""
    finite = [v for v in values if math.isfinite(v)]
    above = [v for v in finite if v > 0]
    if not above or min(finite) < 0 or 2 * len(above) < len(finite):
        return False
    return max(above) / min(above) > 30


def _words(curve: PlotCurve, finite: list[float]) -> str:
    """What is said in place of a picture that would be empty, one point, or flat at 0."""
    if not curve.steps or not finite:
        return "Nothing was measured." if not curve.steps else "No value is finite."
    if len(curve.steps) == 1:
        return f"Measured {shown(curve.mean[0])}, promised {shown(curve.promised[0])}."
    if not any(curve.highest) and not any(curve.lowest):
        promised = (
            f" (promised {shown(curve.promised[-1])} at the end)" if any(curve.promised) else ""
        )
        return f"Measured 0 at every step{promised or ', as promised'}."
    return ""


def _notes(curve: PlotCurve, y: Axis) -> tuple[str, ...]:
    notes = []
    pairs = [(y.place(m), y.place(p)) for m, p in zip(curve.mean, curve.promised, strict=True)]
    apart = [abs(m - p) for m, p in pairs if m is not None and p is not None]
    if apart and len(apart) == len(pairs) and max(apart) <= SAME:
        most = max(abs(m - p) for m, p in zip(curve.mean, curve.promised, strict=True))
        how = f"they differ by at most {shown(most)}" if most else "they are equal at every step"
        notes.append(f"The two curves coincide: {how}.")
    for name, values in (("measured", curve.mean), ("promised", curve.promised)):
        if y.log and (zeros := sum(v == 0 for v in values)):
            notes.append(
                f"The {name} is 0 at {zeros} of {len(values)} steps, which a logarithmic scale does not show."
            )
        if lost := sum(not math.isfinite(v) for v in values):
            notes.append(f"The {name} is not finite at {lost} of {len(values)} steps.")
    return tuple(notes)


def _across(steps: Sequence[int], what: str, room: float) -> Axis:
    low, high = (steps[0] - room, steps[-1] + room) if steps else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # A few that grow by factors: epochs 1, 10, 100, not a training that is recorded all along.
    middle = steps[len(steps) // 2] if steps else 0
    if 3 <= len(steps) <= 100 and 0 < 30 * middle < high and low > 0:
        return Axis(f"{what}, {LOGARITHMIC}", low, high, log_ticks(low, high), log=True)
    # Long labels need more room.
    ticks = [v for v in _nice(low, high, 5 if high < 1e5 else 3) if v == int(v)]
    return Axis(what, low, high, tuple((v, f"{int(v):,}") for v in ticks))


def named(quantity: str) -> str:
    """A column of a record in words: "mean_grad_norm2" is a mean, "NAME.loss" the loss of NAME."""
    of = OF.fullmatch(quantity)
    said = NAME.sub(" ", f"{of[2]}, {of[1]}" if of else quantity)
    return re.sub(r"\bgrad norm2\b", "squared gradient norm", said)


def _upright(finite: list[float], title: str, log: bool) -> Axis:
    if not finite:
        return Axis(title, 0.0, 1.0, ())
    if log:
        above = [v for v in finite if v > 0]
        low, high = min(above), max(above)
        # In logarithms: the ratio of two floats need not be one, nor what lies beyond the last.
        first, last = math.log10(low), math.log10(high)
        room = 0.04 * (last - first)
        low = min(low, max(10.0 ** (first - room), sys.float_info.min))
        high = max(high, 10.0 ** min(last + room, LARGEST))
        return Axis(title, low, high, log_ticks(low, high), log=True)
    # The distance of two floats need not be one.
    low, high = (min(EDGE, max(-EDGE, v)) for v in (min(finite), max(finite)))
    # From 0 where that is near: the size of a number is then its height.
    low = 0.0 if 0 < low < 0.5 * high else low
    # Less than rounding is flat.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):
        middle, flat = low, abs(low) > TINY
        low, high = (
            (middle - abs(middle) * 0.5, middle + abs(middle) * 0.5) if flat else (-1.0, 1.0)
        )
    pad = 0.04 * (high - low)
    low, high = low - (pad if low else 0.0), high + pad
    ticks = _nice(low, high, 5)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = digits <= 4 and max(abs(low), abs(high)) < 1e6
    return Axis(
        title, low, high, tuple((v, f"{v:,.{digits}f}" if plain else _scientific(v)) for v in ticks)
    )


def _nice(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Ticks of a logarithmic scale that keep their distance: powers of ten, of a few of them also 2 and 5.

    Within one power there are 3 and 7 too, and within a factor of two the round numbers of any scale.
    """
    first, last = math.log10(low), math.log10(high)
    if last - first < 0.3 and low > TINY and high < EDGE:
        ticks = [v for v in _nice(low, high, 4) if low <= v <= high]
        return tuple((v, _scientific(v)) for v in ticks)
    if last - first < 2:
        above = min(math.ceil(last), math.floor(LARGEST))
        between = (1, 2, 5) if last - first > 0.9 else (1, 2, 3, 5, 7)
        at = [(m, k) for k in range(math.floor(first), above + 1) for m in between]
    else:
        stride = max(1, math.ceil((last - first) / 6))
        start = math.ceil(first / stride) * stride
        at = [(1, k) for k in range(start, math.floor(last) + 1, stride)]
    plain = low >= 1e-3 and high < 1e5
    return tuple(
        (m * 10.0**k, f"{m * 10.0**k:,.6g}" if plain else _power(m, k))
        for m, k in at
        if low <= m * 10.0**k <= high
    )


def _scientific(value: float) -> str:
    if 1e-3 <= abs(value) < 1e5 or not value:
        return f"{value:.4g}"
    factor, _, exponent = f"{value:.3e}".partition("e")
    return _power(factor.rstrip("0").rstrip("."), int(exponent))


def _power(factor: int | str, exponent: int) -> str:
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if str(factor) == "1" else f"{factor}·10{raised}"


def shown(value: float) -> str:
    """A number in a sentence or a cell: four digits."""
    if math.isnan(value):
        return "nothing"
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
