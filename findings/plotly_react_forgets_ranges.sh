#!/usr/bin/env bash
# plotly.js of plotly 7.1.0: Plotly.react called a second time with the same data and a new layout object that differs in nothing, or in a
# title alone, draws nothing wrong, but leaves the ranges of autoranged axes at those of an empty figure, [-1, 6] and [-1, 4]. The next resize
# draws ticks for these beside curves that stand where they stood. Plotly.newPlot has no such memory. One would guess that a call with an
# unchanged figure changes nothing. It needs a chromium on the path, of which it reads what the page says.
set -euo pipefail
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "no chromium here" >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet plotly==7.1.0
cd "$place"
cp venv/lib/python3*/site-packages/plotly/package_data/plotly.min.js .
cat > page.html <<'PAGE'
<!doctype html><body><div id="figure" style="width:700px;height:360px"></div><pre id="said"></pre><script src="plotly.min.js"></script><script>
const data = [{ x: [0, 1, 2], y: [10, 20, 40], type: "scatter" }];
const layout = () => ({ width: 700, height: 360, xaxis: { title: { text: "step" } }, yaxis: { title: { text: "loss" } } });
const figure = document.getElementById("figure");
const range = () => figure._fullLayout.yaxis.range.map((v) => v.toFixed(1)).join(" to ");
const said = [];
(async () => {
  said.push("plotly.js " + Plotly.version);
  await Plotly.react(figure, data, layout()); said.push("once: " + range());
  await Plotly.react(figure, data, layout()); said.push("twice: " + range());
  await Plotly.newPlot(figure, data, layout()); said.push("anew: " + range());
  document.getElementById("said").textContent = said.join("\n");
})();
</script>
PAGE
"$browser" --headless --no-sandbox --disable-gpu --disable-background-networking --user-data-dir="$place/user" --virtual-time-budget=15000 \
  --dump-dom "file://$place/page.html" 2> /dev/null | sed -n '/id="said"/,/<\/pre>/p' | sed 's/.*id="said">//; s/<\/pre>.*//' | tee said.txt
grep -Eq '^once: (7|8|9)\.' said.txt || { echo changed; exit 1; }
grep -q '^twice: -1.0 to 4.0' said.txt || { echo changed; exit 1; }
grep -Eq '^anew: (7|8|9)\.' said.txt || { echo changed; exit 1; }
