// Draws each plot when it comes into view, all of them before printing, in the colours of the theme.
(function () {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = Array.from(document.querySelectorAll(".plot"));
  const specs = new Map(plots.map((p) => [p, JSON.parse(p.querySelector("script").textContent)]));
  const options = { displaylogo: false, responsive: true, displayModeBar: false };
  function theme(layout, printing) {
    const ink = dark.matches && !printing ? "#e9ecef" : "#212529";
    const grid = dark.matches && !printing ? "#343a40" : "#e9ecef";
    const line = dark.matches && !printing ? "#868e96" : "#adb5bd";
    layout.font = Object.assign({}, layout.font, { color: ink, family: "system-ui, sans-serif", size: 13 });
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    Object.keys(layout).filter((k) => /^[xy]axis/.test(k)).forEach((k) => {
      Object.assign(layout[k], { gridcolor: grid, linecolor: line, automargin: true, tickfont: { size: 12 }, minor: { showgrid: false } });
    });
    return layout;
  }
  const drawn = new Set();
  function draw(plot, printing) {
    const spec = specs.get(plot);
    drawn.add(plot);
    return Plotly.react(plot, spec.data, theme(Object.assign({ xaxis: {}, yaxis: {} }, spec.layout), printing), options);
  }
  const seen = new IntersectionObserver((entries) => {
    entries.filter((e) => e.isIntersecting).forEach((e) => { seen.unobserve(e.target); draw(e.target, false); });
  }, { rootMargin: "400px" });
  plots.forEach((p) => { p.textContent = ""; seen.observe(p); });
  dark.addEventListener("change", () => drawn.forEach((p) => draw(p, false)));
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((d) => { d.open = true; });
    plots.forEach((p) => draw(p, true));
  });
  addEventListener("afterprint", () => drawn.forEach((p) => draw(p, false)));
})();
