// Fetches plotly once the page is shown, then draws each figure when it comes into view, all of them before printing, in the ink of the theme.
(function () {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = Array.from(document.querySelectorAll(".plot"));
  const specs = new Map(plots.map((p) => [p, JSON.parse(p.querySelector("script").textContent)]));
  const options = { displaylogo: false, responsive: true, displayModeBar: false };
  // A title longer than its axis goes on in the next line.
  function wrapped(text, pixels) {
    const most = Math.max(16, Math.floor(pixels / 7));
    return text.split(" ").reduce((lines, word) => {
      const longer = lines[lines.length - 1] + " " + word;
      if (lines[0] && longer.length > most) lines.push(word); else lines[lines.length - 1] = longer.trim();
      return lines;
    }, [""]).join("<br>");
  }
  function along(name, axis, room) {
    const domain = axis.domain || [0, 1];
    return (name[0] === "x" ? room.w : room.h) * (domain[1] - domain[0]);
  }
  function said(axis) {
    return axis.title && axis.title.text !== undefined ? axis.title.text : axis.title;
  }
  function theme(layout, printing, room) {
    const lit = dark.matches && !printing;
    const ink = lit ? "#e9ecef" : "#212529", grid = lit ? "#343a40" : "#e9ecef", line = lit ? "#868e96" : "#adb5bd";
    layout.font = Object.assign({}, layout.font, { color: ink, family: "system-ui, sans-serif", size: 13 });
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.legend = Object.assign({}, layout.legend, { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" });
    layout.margin = Object.assign({ l: 60, r: 16, t: 30, b: 48 }, layout.margin, { t: 30 });
    Object.keys(layout).filter((k) => /^[xy]axis/.test(k)).forEach((k) => {
      const title = said(layout[k]);
      layout[k] = Object.assign({}, layout[k], title ? { title: { text: wrapped(title, along(k, layout[k], room)), font: { size: 13 }, standoff: 10 } } : {}, { gridcolor: grid, linecolor: line, zeroline: false, automargin: true, tickfont: { size: 12 }, minor: { showgrid: false } });
    });
    layout.shapes = (layout.shapes || []).map((s) => Object.assign({}, s, { line: Object.assign({ color: line, width: 2 }, s.line) }));
    return layout;
  }
  const drawn = new Set();
  function draw(plot, printing) {
    const spec = specs.get(plot);
    drawn.add(plot);
    // A figure that is higher has a line for each thing, and on paper too little room would leave some out.
    const paper = { width: 660, height: Math.max(270, Math.min(spec.layout.height || 0, 400)) };
    const size = printing ? paper : { width: plot.clientWidth, height: spec.layout.height || 360 };
    const layout = theme(Object.assign({ xaxis: {}, yaxis: {} }, spec.layout, printing ? paper : {}), printing, { w: size.width - 90, h: size.height - 130 });
    // Anew each time: react keeps curves that are the same, and forgets what their axes span.
    const first = Plotly.newPlot(plot, spec.data, layout, options);
    // How long the axes are is known once legend and ticks have their room; paper does not wait for it.
    return printing ? first : first.then(() => {
      const room = plot._fullLayout._size, changed = {};
      Object.keys(spec.layout).filter((k) => /^[xy]axis/.test(k) && said(spec.layout[k])).forEach((k) => {
        const text = wrapped(said(spec.layout[k]), along(k, spec.layout[k], room));
        if (text !== layout[k].title.text) changed[k + ".title.text"] = text;
      });
      return Object.keys(changed).length ? Plotly.relayout(plot, changed) : plot;
    });
  }
  const seen = new IntersectionObserver((entries) => {
    entries.filter((e) => e.isIntersecting).forEach((e) => { seen.unobserve(e.target); draw(e.target, false); });
  }, { rootMargin: "400px" });
  const library = document.currentScript.dataset.plotly;
  plots.forEach((p) => { p.textContent = ""; });
  addEventListener("load", () => {
    const script = document.createElement("script");
    script.src = library;
    script.onload = () => plots.forEach((p) => seen.observe(p));
    script.onerror = () => plots.forEach((p) => { p.textContent = "Its drawing script is not there: run surefoot report."; });
    document.body.appendChild(script);
  });
  dark.addEventListener("change", () => drawn.forEach((p) => draw(p, false)));
  // What comes into view by the layout of paper is drawn already.
  addEventListener("beforeprint", () => { seen.disconnect(); if (window.Plotly) plots.forEach((p) => draw(p, true)); });
  addEventListener("afterprint", () => drawn.forEach((p) => draw(p, false)));
})();
