"""Pages built from a real run folder, in a real browser."""

import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from surefoot._run.files import write_json
from surefoot._run.folder import RunFolder
from surefoot.certificate import certify
from surefoot.guarantee import Assumption, Guarantee, Verdict
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.reconstruction import GUESS, UPLOADS
from surefoot.prototypes.experiments.reconstruction import figures as reconstruction
from surefoot.prototypes.experiments.toy import SIDE
from surefoot.record import Record
from surefoot.report import certificate_html, write_run_page, write_site
from surefoot.report.embedding import PALETTE
from surefoot.report.templating import templates, verdict_class

NASTY = "<script>alert('x')</script> & \"quotes\""
STEPS = np.arange(40)


def guarantee(name, scale, **changes):
    arguments = {
        "statement": f"f(x_n) <= {scale} 0.9^n",
        "latex": r"f(x_n) \le c\, 0.9^n",
        "source": "arXiv 0000.00000, Theorem 1",
        "quantity": "gap",
        "sense": "upper",
        "holds_in": "expectation",
        "bound": lambda r: scale * 0.9 ** r.curves("gap").steps,
    } | changes
    return Guarantee(name=name, **arguments)


def condition(holds):
    return lambda record: (Assumption("step size", "lr <= 1/L", 0.5, holds, "given"),)


GUARANTEES = (
    (guarantee("kept", 2.0, assumptions=condition(True)), Verdict.KEPT),
    (guarantee("broken", 0.05), Verdict.BROKEN),
    (guarantee("undecided", 1.02, assumptions=condition(None)), Verdict.UNDECIDED),
    (guarantee("vacuous", 3.0, trivial=0.001), Verdict.VACUOUS),
    (guarantee("not promised", 2.0, assumptions=condition(False)), Verdict.NOT_PROMISED),
    (guarantee(NASTY, 2.0, heuristic=True, latex=None), Verdict.KEPT),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs below one folder: all verdicts, hostile names, a failed seed, a damaged third."""
    root = tmp_path_factory.mktemp("with space") / "runs"
    rng = np.random.default_rng(0)
    for study in ("first", "second"):
        folder = RunFolder.create(root, study)
        record = Record()
        for seed in range(8):
            noise = 1 + 0.2 * rng.standard_normal(len(STEPS))
            record.extend(seed, "gap", 0.9**STEPS * noise)
        write_json(
            folder.path / "config.json",
            {
                "format": 1, "study": study, "title": f"Study {NASTY}", "paper": "a paper",
                "config": {"size": "quick", "note": NASTY},
                "parts": {"main": {"title": "The only part", "seeds": list(range(9))}},
                "command": f"surefoot run {study}",
            },
        )  # fmt: skip
        write_json(folder.path / "environment.json", {"python": "3", "packages": {"torch": "2"}})
        failed = [{"part": "main", "seed": 8, "seconds": 1.0, "error": f"ValueError: {NASTY}"}]
        write_json(
            folder.path / "status.json", {"state": "failed", "seconds": 3.0, "failed": failed}
        )
        made = []
        for g, verdict in GUARANTEES:
            c = certify(record, g)
            assert c.verdict is verdict, g.name
            made.append(type(c)(**{**c.__dict__, "part": "main"}))
        folder.write_certificates(made)
        folder.write_table(
            "main", "baselines", pd.DataFrame({"arm": ["a", NASTY], "loss": [0.5, None]})
        )
        folder.write_figure(
            "main", "extra", {"data": [{"y": [1, 2]}], "layout": {"title": {"text": "</script>"}}}
        )
        write_run_page(folder)
    broken = root / "third" / "2026-01-01T00-00-00"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text('{"format": 1, ')
    write_site(root)
    return root


def test_nothing_hostile_survives(root):
    for page in [root / "index.html", *root.glob("*/*/index.html")]:
        text = page.read_text()
        assert "alert('x')" not in re.sub(
            r"<script[^>]*application/json.*?</script>", "", text, flags=re.S
        )
        assert not re.search(r"(src|href)=\"(https?:)?//", text)
    html = certificate_html(RunFolder.all(root)[0].certificates()[-1])
    assert "<script" not in html
    assert "heuristic" in html


def test_damaged_runs_are_listed_with_their_reason(root):
    text = (root / "index.html").read_text()
    assert "third/2026-01-01T00-00-00" in text
    assert "truncated" in text


def test_a_page_says_all(root):
    text = next(root.glob("first/*/index.html")).read_text()
    for words in (
        "KEPT", "BROKEN", "UNDECIDED", "VACUOUS", "NOT PROMISED", "heuristic", "<math", "lr &lt;= 1/L",
        "not measurable here", "surefoot run first", "record.parquet", "error.txt", "baselines",
        "arXiv 0000.00000", "The only part",
    ):  # fmt: skip
        assert words in text, words


def test_every_certificate_has_its_verdict_on_the_page(root):
    folder = RunFolder.all(root)[0]
    text = (folder.path / "index.html").read_text()
    table = ElementTree.fromstring(
        re.search(r"<table class=\"claims\">.*?</table>", text, re.S)[0].replace("&nbsp;", " ")
    )
    said = [
        (row.find("th/a").text, "".join(row.find("td[@data-label='verdict']").itertext()).split())
        for row in table.iter("tr")
        if row.find("th/a") is not None
    ]
    # Claims of one statement are one family: its badges count the verdicts.
    found = [word for _, words in said for word in words]
    for certificate in folder.certificates():
        assert certificate.verdict.split("_")[0] in found
    assert sum(int(word) for word in found if word.isdigit()) + sum(
        not any(map(str.isdigit, words)) for _, words in said
    ) == len(folder.certificates())


def test_the_colour_of_a_surprise_is_for_surprises(tmp_path):
    """BROKEN of a heuristic and BROKEN as announced have colours of their own, on every page."""
    record = Record()
    record.extend(0, "gap", [1.0, 2.0, 3.0])
    made = []
    for name, changes, announced in (
        ("theorem", {}, None),
        ("rule of thumb", {"heuristic": True}, None),
        ("counterexample", {}, Verdict.BROKEN),
        ("kept after all", {"bound": lambda r: np.full(3, 9.0)}, Verdict.BROKEN),
        ("kept", {"bound": lambda r: np.full(3, 9.0)}, None),
    ):
        g = guarantee(
            name, 1.0, holds_in="every run", latex=None, statement=f"{name} <= 1", **changes
        )
        made.append(replace(certify(record, g, expected=announced), part="main"))
    assert [verdict_class(c) for c in made] == [
        "surprise",
        "refuted",
        "announced",
        "surprise",
        "kept",
    ]
    folder = run_of(tmp_path / "runs", "coloured", made)
    write_run_page(folder)
    write_site(folder.path.parent.parent)
    page = (folder.path / "index.html").read_text()
    rows = re.findall(r"<th scope=\"row\"><a href=\"#claim-\d+\">([^<]+)</a>.*?</tr>", page, re.S)
    red = re.findall(
        r"<th scope=\"row\"><a href=\"#claim-\d+\">([^<]+)</a>(?:(?!</tr>).)*?badge surprise",
        page,
        re.S,
    )
    assert rows == [c.name for c in made]
    assert red == ["theorem", "kept after all"]
    index = (folder.path.parent.parent / "index.html").read_text()
    assert "2 surprises" in index


def run_of(root, study, certificates, seeds=(0,)):
    """A run folder that holds these certificates."""
    folder = RunFolder.create(root, study)
    write_json(
        folder.path / "config.json",
        {
            "format": 1, "study": study, "title": study, "paper": "a paper",
            "config": {"size": "quick"}, "command": f"surefoot run {study}",
            "parts": {"main": {"title": "The part in words", "seeds": list(seeds)}},
        },
    )  # fmt: skip
    write_json(folder.path / "status.json", {"state": "finished", "seconds": 1.0, "failed": []})
    folder.write_certificates(certificates)
    return folder


def test_a_page_has_its_weight_whatever_the_run(tmp_path):
    """300 claims over 100,000 steps, a figure and a table as long: under 300 kB, every verdict there."""
    steps = np.arange(100_000)
    record = Record()
    rng = np.random.default_rng(0)
    record.extend(0, "gap", 1 / (1 + steps) * np.exp(0.1 * rng.standard_normal(len(steps))))
    certificate = certify(
        record,
        guarantee(
            "long", 2.0, holds_in="every run", assumptions=condition(True),
            bound=lambda r: 3.0 / (1 + r.curves("gap").steps),
        ),
    )  # fmt: skip
    made = [
        replace(certificate, name=f"long, setting {i}", part="main", source=f"Theorem {i // 8}")
        for i in range(300)
    ]
    folder = run_of(tmp_path / "runs", "long", made)
    folder.write_figure(
        "main", "long", {"data": [{"y": record["gap"][0].tolist()}] * 3, "layout": {}}
    )
    folder.write_table("main", "rows", pd.DataFrame({"step": steps, "gap": record["gap"][0]}))
    page = write_run_page(folder).read_text()
    assert len(page.encode()) < 300_000
    assert page.count(">KEPT</span>") >= 300
    assert 'stand in <a href="certificate.json"' in page
    assert "of 100000 rows" in page
    few = run_of(tmp_path / "runs", "few", made[:3])
    page = write_run_page(few).read_text()
    assert 'stand in <a href="certificate.json"' not in page


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium through Playwright; missing, it is an error, as the check would be void."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("SUREFOOT_CHROMIUM") or shutil.which("chromium")
    assert path, "chromium is not installed: run apt-get install chromium, or set SUREFOOT_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--no-first-run",
            ],
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that fails the test on any console error and on any request that leaves the disk."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    problems = []
    page.on(
        "console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url),
    )
    yield page
    context.close()
    assert problems == []


def drawn(page):
    page.locator(".plot").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "document.querySelectorAll('.plot .scatterlayer path.js-line').length >= 1", timeout=900_000
    )


def test_verdict_and_both_curves_are_there_without_any_script(browser, root):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(next(root.glob("first/*/index.html")).as_uri())
    row = page.locator("table.claims tbody tr").first
    assert "KEPT" in row.locator("[data-label=verdict]").inner_text()
    assert row.locator("math").count() == 1
    assert row.locator(".spark path.measured, .spark path.promised").count() == 2
    chart = page.locator(".pictures .chart").first
    assert chart.is_visible()
    # The band of the eight seeds, the measured and the promised line, and what they are.
    assert chart.locator("path.band").count() == 1
    assert chart.locator("path.measured").count() >= 1
    assert "gap, logarithmic scale" in chart.text_content()
    assert "8 seeds" in chart.text_content()
    assert page.locator("noscript").count() == 1
    page.goto((root / "index.html").as_uri())
    assert page.locator(".study").count() == 2
    assert not page.locator(".filter").is_visible()
    context.close()


def test_search_and_filter_of_the_index(page, root):
    page.goto((root / "index.html").as_uri())
    assert page.locator(".study:visible").count() == 2
    page.locator(".filter input").fill("second undecided")
    assert page.locator(".study:visible").count() == 1
    assert "1 of 2" in page.locator(".filter [role=status]").inner_text()
    page.locator(".filter input").fill("no such thing")
    assert page.locator(".study:visible").count() == 0
    page.locator(".filter input").fill("")
    page.locator(".filter select").select_option("surprise")
    assert page.locator(".study:visible").count() == 2


def test_keyboard_reaches_every_run(page, root):
    page.goto((root / "index.html").as_uri())
    wanted = {p.parent.parent.name for p in root.glob("*/*/index.html")}
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        href = page.evaluate("document.activeElement.getAttribute('href')")
        if href and "/index.html" in href:
            reached.add(href.split("/")[0])
    assert reached == wanted
    page.locator(".study h2 a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/*T*/index.html")
    assert page.locator("h1").count() == 1


def test_theme_phone_and_print(page, root):
    path = next(root.glob("first/*/index.html")).as_uri()
    page.emulate_media(color_scheme="dark")
    page.goto(path)
    drawn(page)
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    label = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light_ink = page.evaluate(label)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{label} !== '{light_ink}'")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != dark
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 390", timeout=900_000)
    printed = page.pdf(prefer_css_page_size=True)
    assert len(printed) > 20_000
    # The table and a picture of each part; what is folded stays folded.
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 2


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for weight, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


def contrast(a, b):
    """The ratio of WCAG 2."""
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


TEXT = (
    "ink", "muted", "link", "kept", "surprise", "undecided", "vacuous", "not_promised", "announced",
    "refuted",
)  # fmt: skip


@pytest.fixture(scope="module")
def themes():
    """The colours of the style sheet: light, and dark and print as they change them."""
    style = templates().loader.get_source(templates(), "style.css")[0]
    light, dark, paper = (
        {
            name: f"#{''.join(2 * c for c in hexes)}" if len(hexes) == 3 else f"#{hexes}"
            for name, hexes in re.findall(r"--([a-z_]+): #([0-9a-f]{3,6})\b", block)
        }
        for block in re.findall(r":root {(.*?)}", style, re.S)
    )
    assert style.index("prefers-color-scheme: dark") < style.index("@media print")
    return {"light": light, "dark": light | dark, "print": light | paper}


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_can_be_read_on_its_ground(themes, theme):
    colours = themes[theme]
    for ground in ("paper", "panel"):
        low = {n: contrast(colours[n], colours[ground]) for n in TEXT}
        assert min(low.values()) >= 4.5, low
    # Lines of pictures ask for less than words.
    lines = {c: contrast(c, colours["paper"]) for c in PALETTE}
    assert min(lines.values()) >= 3, lines


def test_the_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A run whose table has many columns, whose figures have long titles and long names."""
    root = tmp_path_factory.mktemp("crowded") / "runs"
    record = Record()
    record.extend(0, "gap", 0.9**STEPS)
    c = certify(record, guarantee("a claim", 2.0, holds_in="every run"))
    long = "of a setting whose name has quite some words"
    names = (f"a claim, the first {long}", f"a claim, the second {long}", "a claim")
    folder = run_of(root, "crowded", [replace(c, name=name, part="main") for name in names])
    config = folder.config
    title = "A part that is told from the other by a title of which no line of a phone has all"
    config["parts"] = {p: {"title": f"{title}, {p}", "seeds": [0]} for p in ("main", "other")}
    write_json(folder.path / "config.json", config)
    folder = RunFolder.open(folder.path)
    wide = {f"a column with a name of some length, {i}": [1.5, 2.25] for i in range(14)}
    caption = "a caption that says in many words what stands in the rows of this table"
    folder.write_table(
        "main", caption, pd.DataFrame({"arm": ["the first of the arms", "another"]} | wide)
    )
    curves = [{"x": [1, 10, 1e5], "y": [1, 2, i], "name": f"a long name, {i}"} for i in range(4)]
    title = "bytes of all rounds, both ways, all sites (bytes) and whatever else there is to say"
    folder.write_figure(
        "main", "long titles",
        {"data": curves,
         "layout": {"xaxis": {"title": {"text": title}, "type": "log"}, "yaxis": {"title": {"text": title}},
                    "shapes": [{"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "y0": 2.5, "y1": 2.5,
                                "line": {"dash": "dot"}}]}},
    )  # fmt: skip
    plain = {
        "data": curves,
        "layout": {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "F"}}},
    }
    folder.write_figure("main", "short titles", plain)
    pixels = Record()
    for name in (*UPLOADS, GUESS):
        for what in ("found", "private"):
            pixels.extend(0, f"{name}: {what}", np.linspace(0, 1, SIDE * SIDE))
    for name, figure in reconstruction(PrototypesConfig(), pixels).items():
        folder.write_figure("main", name, json.loads(figure.to_json()))
    write_run_page(folder)
    write_site(root)
    return folder.path / "index.html"


BOXES = """() => Array.from(
  document.querySelectorAll([
    ".xtick text", ".ytick text", ".plot .annotation text", ".legendtext", ".xtitle", ".ytitle"]),
  (e) => [e.textContent, Array.from(document.querySelectorAll(".plot")).indexOf(e.closest(".plot")),
    e.getBoundingClientRect().toJSON()])"""
TITLES = """() => Array.from(document.querySelectorAll(".plot .xtitle, .plot .ytitle"), (e) => {
  const own = e.getBoundingClientRect(), all = e.closest(".plot").getBoundingClientRect();
  return [e.textContent, own.left >= all.left - 1 && own.right <= all.right + 1
    && own.top >= all.top - 1 && own.bottom <= all.bottom + 1]; })"""


def overlapping(boxes):
    """Pairs of words in one figure that lie on one another."""
    return [
        (a, b)
        for (a, plot, x), (b, other, y) in itertools.combinations(boxes, 2)
        if plot == other
        and min(x["right"], y["right"]) - max(x["left"], y["left"]) > 1
        and min(x["bottom"], y["bottom"]) - max(x["top"], y["top"]) > 1
    ]


@pytest.mark.parametrize("width", [390, 1280])
def test_words_of_a_figure_neither_overlap_nor_leave_it(page, crowded, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(crowded.as_uri())
    for i in range(3):
        page.locator(".plot").nth(i).scroll_into_view_if_needed()
        page.wait_for_function(
            f"document.querySelectorAll('.plot')[{i}].querySelector('.xtick')", timeout=900_000
        )
    boxes = page.evaluate(BOXES)
    said = {*UPLOADS, GUESS.replace(": ", ":"), "decoded", "private"}
    assert said <= {text for text, _, _ in boxes}
    assert overlapping(boxes) == []
    titles = page.evaluate(TITLES)
    assert len(titles) == 4
    assert all(inside for _, inside in titles), titles
    # The check can fail: two words in one place.
    assert overlapping([boxes[0], ("planted", *boxes[0][1:])])


OUTSIDE = """() => Array.from(document.querySelectorAll(".js-plotly-plot")).flatMap((e) =>
  e._fullData.filter((t) => t.type === "scatter").flatMap((t) => ["x", "y"].flatMap((k) => {
    const axis = e._fullLayout[k + "axis"], ends = axis.range.map(axis.r2l);
    return Array.from(t[k]).filter((v) => axis.d2l(v) < Math.min(...ends) || axis.d2l(v) > Math.max(...ends));
  })))"""


def test_axes_fit_their_curves_however_often_a_figure_is_drawn(page, crowded):
    """First, in another width, in another ink, on paper and back: ticks are of what is drawn."""

    def fits():
        page.wait_for_timeout(300)
        assert page.evaluate("document.querySelectorAll('.js-plotly-plot').length") == 3
        assert page.evaluate(OUTSIDE) == []

    page.goto(crowded.as_uri())
    for i in range(3):
        page.locator(".plot").nth(i).scroll_into_view_if_needed()
        page.wait_for_function(
            f"document.querySelectorAll('.plot')[{i}].querySelector('.xtick')", timeout=900_000
        )
    fits()
    page.set_viewport_size({"width": 700, "height": 900})
    fits()
    page.emulate_media(color_scheme="dark")
    fits()
    page.pdf(prefer_css_page_size=True)
    fits()
    page.set_viewport_size({"width": 390, "height": 900})
    fits()
    # The check can fail: an axis that ends before its curve.
    page.evaluate(
        "Plotly.relayout(document.querySelector('.js-plotly-plot'), {'yaxis.range': [0, 1.5]})"
    )
    assert page.evaluate(OUTSIDE)


def test_a_wide_table_scrolls_by_itself_below_its_caption(page, crowded):
    page.set_viewport_size({"width": 390, "height": 900})
    for path in (crowded.parent.parent.parent / "index.html", crowded):
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = "document.querySelector('.part .scroll')"
    assert page.evaluate(f"{table}.scrollWidth > {table}.clientWidth")
    box = page.locator(".part .caption").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.evaluate(f"{table}.scrollLeft = 300")
    # The name of the row stays where it is.
    assert page.locator(".part .scroll tbody th").first.bounding_box()["x"] >= 0
    assert page.locator(".part .scroll tbody td").first.bounding_box()["x"] < 0


def test_a_column_in_which_nothing_stands_is_named_instead(tmp_path):
    record = Record()
    record.extend(0, "gap", 0.9**STEPS)
    c = certify(record, guarantee("a claim", 2.0, holds_in="every run"))
    folder = run_of(tmp_path / "runs", "empty", [replace(c, part="main")])
    table = pd.DataFrame(
        {"arm": ["a", "b"], "half-width +-": [None, float("nan")], "won": [True, False],
         "verdict": ["fine", None], "difference": ["+0.10 +- 0.02", "-0.3"], "bytes": [1344072.0, 2.5]}
    )  # fmt: skip
    folder.write_table("main", "arms", table)
    text = write_run_page(folder).read_text()
    assert "hence no column: half-width ±" in text
    rows = re.findall(r"<tr><th scope=\"row\">([ab])</th>(.*?)</tr>", text, re.S)
    assert [cells for _, cells in rows] == [
        '<td>yes</td><td>fine</td><td class="n">+0.10 ± 0.02</td><td class="n">1344072</td>',
        '<td>no</td><td></td><td class="n">-0.3</td><td class="n">2.5</td>',
    ]


def test_opens_from_another_folder(root, page, tmp_path):
    """The site is relative: it may be moved or unpacked anywhere."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    page.goto(next(Path(moved).glob("second/*/index.html")).as_uri())
    drawn(page)
