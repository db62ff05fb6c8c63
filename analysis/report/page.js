"use strict";
// Draws the figures in the colours of the theme, and again when the theme, the width or the medium changes.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement, button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  const palettes = {
    light: ["#0060a8", "#b34700", "#00704d", "#9b3d7d", "#5b4bb5", "#7a5c00", "#a3202f", "#4a5560"],
    dark: ["#6cb8ff", "#ff9c57", "#4fd1a1", "#e79ccb", "#b3a7ff", "#e5c35c", "#ff8e97", "#b3bec9"],
  };
  // The marks of the legend: Plotly's symbols in a box of 12 by 12.
  const symbols = {
    "circle": "M6 2a4 4 0 1 0 .01 0z", "square": "M2.5 2.5h7v7h-7z", "diamond": "M6 1l5 5-5 5-5-5z",
    "triangle-up": "M6 2l4.5 8h-9z", "triangle-down": "M6 10l4.5-8h-9z", "pentagon": "M6 1.5l4.5 3.3-1.7 5.2H3.2L1.5 4.8z",
    "x": "M3.5 1.5L6 4l2.5-2.5 2 2L8 6l2.5 2.5-2 2L6 8l-2.5 2.5-2-2L4 6 1.5 3.5z",
    "cross": "M4.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
  };
  const hidden = new Set();
  let chosen = null, printing = false;

  const theme = () => (printing ? "light" : chosen || (system.matches ? "dark" : "light"));
  const value = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function styled(id, figure, name) {
    const text = value("--text"), line = value("--line"), card = value("--card"), limit = value("--limit");
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, fixedrange: narrow.matches };
    const data = figure.data.map((trace, index) => {
      const color = palettes[name][figure.colors[index] % palettes[name].length];
      const error = trace.error_y ? { error_y: { ...trace.error_y, color } } : {};
      const look = { opacity: figure.faint[index] ? 0.45 : 1, visible: !hidden.has(id + figure.colors[index]) };
      if (Array.isArray(trace.meta)) look.text = trace.text.map((text, bar) => (trace.meta[bar] < (narrow.matches ? 0.2 : 0.06) ? "" : text));
      return { ...trace, ...error, ...look, marker: { ...trace.marker, color }, line: { ...trace.line, color } };
    });
    const yaxis = { ...axis, ...figure.layout.yaxis };
    if (figure.narrow && narrow.matches) yaxis.ticktext = figure.narrow;
    const layout = {
      ...figure.layout,
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis,
      shapes: figure.layout.shapes.map((shape) => ({ ...shape, line: { ...shape.line, color: limit } })),
      paper_bgcolor: card, plot_bgcolor: card, font: { color: text, size: narrow.matches ? 11 : 13 },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: text }, align: "left" },
      margin: { t: 12, r: 16, l: narrow.matches ? 44 : 60, b: 48 },
    };
    return { data, layout };
  }

  function mark(entry, color) {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    const add = (tag, attributes) => {
      const made = document.createElementNS(space, tag);
      for (const [key, text] of Object.entries(attributes)) made.setAttribute(key, text);
      svg.append(made);
    };
    for (const [key, text] of Object.entries({ width: 28, height: 12, "aria-hidden": "true" })) svg.setAttribute(key, text);
    if (entry.bar) add("rect", { x: 8, y: 0, width: 12, height: 12, fill: color });
    if (entry.dash) {
      const dashes = { solid: "none", dash: "7 4", dot: "2 3" }[entry.dash];
      add("path", { d: "M0 6h28", stroke: color, "stroke-width": 2, "stroke-dasharray": dashes });
    }
    if (entry.symbol) add("path", { d: symbols[entry.symbol], fill: color, transform: "translate(8 0)" });
    return svg;
  }

  // One button per series, which hides and shows all of its colour.
  function legend(id, figure, name) {
    const place = document.getElementById("legend-" + id);
    const single = figure.legend.length < 2;
    place.replaceChildren(...(single ? [] : figure.legend).map((entry) => {
      const color = entry.limit ? value("--limit") : palettes[name][figure.colors[entry.trace] % palettes[name].length];
      const key = id + figure.colors[entry.trace];
      const item = document.createElement(entry.limit ? "span" : "button");
      item.append(mark(entry, color), entry.name);
      if (!entry.limit) {
        item.type = "button";
        item.setAttribute("aria-pressed", String(!hidden.has(key)));
        item.addEventListener("click", () => {
          if (!hidden.delete(key)) hidden.add(key);
          item.setAttribute("aria-pressed", String(!hidden.has(key)));
          plot(id, figure, theme());
        });
      }
      return item;
    }));
  }

  function plot(id, figure, name) {
    const { data, layout } = styled(id, figure, name);
    const config = { responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover" };
    config.modeBarButtons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
    return Plotly.react("chart-" + id, data, layout, config);
  }

  function draw() {
    const name = theme();
    root.dataset.theme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
    button.textContent = name === "dark" ? "Light" : "Dark";
    const drawn = Object.entries(charts).map(([id, figure]) => {
      legend(id, figure, name);
      return plot(id, figure, name);
    });
    return Promise.all(drawn).then(() => { root.dataset.drawn = name; });
  }

  // Long tables begin folded.
  const most = 8;
  document.querySelectorAll("section > .table").forEach((table) => {
    const rows = table.querySelectorAll("tbody tr").length;
    if (rows <= most + 3) return;
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    more.textContent = `Show all ${rows} rows`;
    more.addEventListener("click", () => { table.classList.remove("folded"); more.remove(); });
    table.classList.add("folded");
    table.append(more);
  });

  // A table that is wider than the page says so.
  const tables = new ResizeObserver((seen) => {
    for (const { target } of seen) {
      target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth + 1;
    }
  });
  document.querySelectorAll(".scroll").forEach((each) => tables.observe(each));

  button.addEventListener("click", () => { chosen = theme() === "dark" ? "light" : "dark"; draw(); });
  system.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
  draw();
})();
