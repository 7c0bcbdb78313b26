"""Pictures of certificates as SVG: without script, in the colours of the page, the same on paper."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from surefoot.report.chart import Axis, Chart, Drawn, chart, shown

WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 42, 38
SMALL_WIDTH, SMALL_HEIGHT = 132, 34


def drawing(certificate: Drawn) -> Markup:
    """The picture of a certificate with axes and legend, and what it does not show as words below it."""
    found = chart(certificate)
    if found.words:
        return Markup('<p class="words">{}</p>').format(found.words)
    box = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, TOP)
    label = f"{found.y.title} over the {found.x.title}: measured and promised"
    picture = (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{_axes(found)}{_curves(found, box)}{_legend(found)}</svg>"
    )
    notes = "".join(str(escape(note)) + " " for note in found.notes).strip()
    caption = f"<figcaption>{notes}</figcaption>" if notes else ""
    return Markup(f"<figure>{picture}{caption}</figure>")


def sparkline(certificate: Drawn) -> Markup:
    """The picture in the size of a word; decorative, hence hidden, as the numbers stand beside it."""
    found = chart(certificate)
    if len(found.curve.steps) == 1 and found.words:
        return _bars(found.curve.mean[0], found.curve.promised[0])
    if found.words:
        return Markup('<span class="muted">{}</span>').format(found.words)
    box = (3, SMALL_WIDTH - 3, SMALL_HEIGHT - 3, 3)
    return Markup(
        f'<svg class="spark" aria-hidden="true" viewBox="0 0 {SMALL_WIDTH} {SMALL_HEIGHT}">'
        f"{_curves(found, box, small=True)}</svg>"
    )


def _bars(measured: float, promised: float) -> Markup:
    """One measured number as a bar and the promised one as a mark on its scale; words where it is 0."""
    if measured == 0:
        return Markup('<span class="muted">{}</span>').format(
            "Both are 0." if promised == 0 else f"Measured 0, promised {shown(promised)}."
        )
    most = max(abs(measured), abs(promised))
    if not 0 < most < float("inf"):
        return Markup("")
    width = SMALL_WIDTH - 6
    bar, mark = (round(3 + abs(v) / most * width) for v in (measured, promised))
    return Markup(
        f'<svg class="spark" aria-hidden="true" viewBox="0 0 {SMALL_WIDTH} {SMALL_HEIGHT}">'
        f'<path class="measured bar" d="M3 17H{max(bar, 4)}"/><path class="promised" d="M{mark} 5V29"/></svg>'
    )


def _axes(found: Chart) -> str:
    left, right, low, high = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, TOP
    lines, words = [f"M{left} {low}H{right}"], []
    for value, label in found.y.ticks:
        y = _at(found.y, value, low, high)
        lines.append(f"M{left} {y}H{right}")
        words.append(
            f'<text x="{left - 6}" y="{(y or 0) + 4}" text-anchor="end">{escape(label)}</text>'
        )
    for value, label in found.x.ticks:
        x = _at(found.x, value, left, right)
        lines.append(f"M{x} {low}v4")
        # At the edge there is no room for half a label.
        anchor = "end" if x is not None and x > right - 3 * len(label) else "middle"
        words.append(f'<text x="{x}" y="{low + 17}" text-anchor="{anchor}">{escape(label)}</text>')
    middle = (left + right) // 2
    words.append(
        f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(found.x.title)}</text>'
    )
    words.append(f'<text class="title" x="2" y="13">{escape(found.y.title)}</text>')
    return f'<path class="grid" d="{"".join(lines)}"/>{"".join(words)}'


def _legend(found: Chart) -> str:
    mark = (
        '<circle class="measured" cx="69" cy="28" r="3"/>'
        if found.dots
        else '<path class="measured" d="M58 28h22"/>'
    )
    band = ""
    if found.seeds > 1:
        band = (
            '<rect class="band" x="248" y="22" width="22" height="12"/>'
            f'<text x="276" y="32">{found.seeds} seeds, all of them</text>'
        )
    return (
        f'{mark}<text x="86" y="32">measured</text><path class="promised" d="M154 28h22"/>'
        f'<text x="182" y="32">promised</text>{band}'
    )


def _curves(found: Chart, box: tuple[int, int, int, int], small: bool = False) -> str:
    left, right, low, high = box
    curve = found.curve
    x = [_at(found.x, float(s), left, right) for s in curve.steps]

    def heights(values: Sequence[float]) -> list[int | None]:
        return [_at(found.y, v, low, high) for v in values]

    measured, promised = heights(curve.mean), heights(curve.promised)
    made = []
    if found.seeds > 1 and not small:
        top = [high if v is None else v for v in heights(curve.highest)]
        bottom = [low if v is None else v for v in heights(curve.lowest)]
        if found.dots:
            bars = "".join(f"M{a} {b}V{c}" for a, b, c in zip(x, bottom, top, strict=True))
            made.append(f'<path class="range" d="{bars}"/>')
        else:
            outline = _path([*x, *reversed(x)], [*top, *reversed(bottom)])
            made.append(f'<path class="band" d="{outline}Z"/>')
    if found.dots:
        half = max(2, min(12, (right - left) // (3 * max(1, len(x)))))
        marks = "".join(f"M{a - half} {b}h{2 * half}" for a, b in _pairs(x, promised))
        radius = 2 if small else 3
        dots = "".join(f'<circle cx="{a}" cy="{b}" r="{radius}"/>' for a, b in _pairs(x, measured))
        made.append(f'<path class="promised solid" d="{marks}"/><g class="measured dot">{dots}</g>')
    else:
        made.append(f'<path class="measured" d="{_path(x, measured)}"/>')
        made.append(f'<path class="promised" d="{_path(x, promised)}"/>')
        if found.marked:
            dots = "".join(f'<circle cx="{a}" cy="{b}" r="2.5"/>' for a, b in _pairs(x, measured))
            made.append(f'<g class="dot">{dots}</g>')
    return "".join(made)


def _pairs(x: Sequence[int | None], y: Sequence[int | None]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]


def _at(axis: Axis, value: float, start: int, end: int) -> int | None:
    place = axis.place(value)
    return None if place is None else round(start + place * (end - start))


def _path(x: Sequence[int | None], y: Sequence[int | None]) -> str:
    """A path in whole units, each from the one before; what has no place leaves a gap."""
    made: list[str] = []
    last: tuple[int, int] | None = None
    for a, b in zip(x, y, strict=True):
        if a is None or b is None:
            last = None
        elif last is None:
            made.append(f"M{a} {b}")
            last = (a, b)
        elif (a, b) != last:
            made.append(("l" if made[-1][0] == "M" else "") + f"{a - last[0]} {b - last[1]} ")
            last = (a, b)
    return "".join(made).replace(" -", "-").strip()
