"use strict";
// Draws the figures in the colours of the theme, and again when the theme, the width or the medium changes.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement, button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const palettes = {
    light: ["#0060a8", "#b34700", "#00704d", "#9b3d7d", "#5b4bb5", "#7a5c00", "#a3202f", "#4a5560"],
    dark: ["#6cb8ff", "#ff9c57", "#4fd1a1", "#e79ccb", "#b3a7ff", "#e5c35c", "#ff8e97", "#b3bec9"],
  };
  let chosen = null, printing = false;

  const theme = () => (printing ? "light" : chosen || (system.matches ? "dark" : "light"));

  function styled(figure, name) {
    const css = getComputedStyle(root), narrow = window.innerWidth < 640;
    const text = css.getPropertyValue("--text").trim(), line = css.getPropertyValue("--line").trim();
    const card = css.getPropertyValue("--card").trim();
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
    const data = figure.data.map((trace, index) => {
      const color = palettes[name][index % palettes[name].length];
      const error = trace.error_y ? { error_y: { ...trace.error_y, color } } : {};
      return { ...trace, ...error, marker: { ...trace.marker, color }, line: { ...trace.line, color } };
    });
    const layout = {
      ...figure.layout,
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
      paper_bgcolor: card, plot_bgcolor: card, font: { color: text, size: narrow ? 11 : 13 },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: text } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { t: 20, r: 15, l: 55, b: 50 },
    };
    return { data, layout };
  }

  function draw() {
    const name = theme();
    root.dataset.theme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
    button.textContent = name === "dark" ? "Light" : "Dark";
    const drawn = Object.entries(charts).map(([id, figure]) => {
      const { data, layout } = styled(figure, name);
      const config = { responsive: true, displaylogo: false };
      if (window.innerWidth < 640) config.displayModeBar = false;
      return Plotly.react("chart-" + id, data, layout, config);
    });
    return Promise.all(drawn).then(() => { root.dataset.drawn = name; });
  }

  button.addEventListener("click", () => { chosen = theme() === "dark" ? "light" : "dark"; draw(); });
  system.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
  draw();
})();
