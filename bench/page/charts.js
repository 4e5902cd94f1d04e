"use strict";
/* Draws charts: when they come into sight, or all of them for paper. */
Bench.charts = (() => {
  const { make } = Bench;
  const { CURVES, narrow, palette } = Bench.axes;
  const ROWS = 40;
  /* Pixels between the margins of a sheet of A4 or letter: charts are drawn before paper has a width. */
  const PAPER = 640;
  /* What the charts are of; a chart that was drawn for another version is out of date. */
  const shown = { version: 0, work: null, view: null, every: [], methods: [], paper: false };
  const versions = new Map();
  let ready = false;
  let watcher = null;

  function place(chart) {
    const home = Bench.byId(chart.home);
    let figure = Bench.byId(`chart-${chart.id}`);
    if (!figure) {
      const caption = make("figcaption", {}, make("b"), make("span", { textContent: chart.note }));
      figure = make(
        "figure",
        { id: `chart-${chart.id}`, className: chart.full ? "full" : "" },
        caption,
        make("div", { className: "plot" }),
      );
      home.append(figure);
    }
    figure.querySelector("b").textContent = typeof chart.title === "function" ? chart.title(shown.view) : chart.title;
    return figure;
  }

  /* About how many lines the legend takes; the chart grows by them, so that its plot keeps its size. */
  function legendRows(traces, width) {
    const longest = Math.max(...traces.map(({ name }) => name.length));
    const columns = Math.max(1, Math.floor((width - 60) / (longest * 6.4 + 46)));
    return Math.ceil(traces.length / columns);
  }

  function render(chart) {
    const figure = place(chart);
    const plot = figure.querySelector(".plot");
    const found = shown.methods.length || chart.always ? chart.of(palette(), shown.methods, shown.work, shown.view) : null;
    figure.hidden = !found && Boolean(chart.optional);
    plot.style.minHeight = "";
    if (!found) {
      Plotly.purge(plot);
      Bench.fill(plot, make("p", { className: "empty", textContent: chart.empty ?? "Not known of these methods." }));
    } else {
      plot.querySelector(".empty")?.remove();
      plot.setAttribute("role", "img");
      plot.setAttribute(
        "aria-label",
        `${figure.querySelector("b").textContent}. The tables of this page hold the numbers.`,
      );
      if (found.layout.showlegend !== false)
        found.layout.height += 19 * legendRows(found.traces, shown.paper ? PAPER : plot.clientWidth);
      if (shown.paper) found.layout.width = PAPER;
      const buttons = ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"];
      Plotly.react(plot, found.traces, found.layout, {
        responsive: true,
        displaylogo: false,
        displayModeBar: narrow() ? false : "hover",
        modeBarButtonsToRemove: buttons,
      });
    }
    figure.dataset.state = found ? "drawn" : "empty";
    versions.set(chart.id, shown.version);
  }

  const stale = (chart) => versions.get(chart.id) !== shown.version;

  /* Charts are drawn when they come into sight. */
  function show(work, methods, view) {
    Object.assign(shown, {
      work,
      view,
      every: methods,
      methods: methods.slice(0, ROWS),
      version: shown.version + 1,
    });
    const more = methods.length - ROWS;
    Bench.byId("limit").textContent =
      more > 0
        ? `Charts show the first ${ROWS} of ${methods.length} methods as sorted and filtered above, curves the first ${CURVES}.`
        : `Charts follow the sorting and the filter of the table above${methods.length > CURVES ? `; curves show the first ${CURVES}` : ""}.`;
    Bench.figures.forEach(place);
    if (!ready) return;
    watcher?.disconnect();
    watcher = new IntersectionObserver(
      (entries) =>
        entries
          .filter((entry) => entry.isIntersecting)
          .forEach(({ target }) => {
            const chart = Bench.figures.find(({ id }) => `chart-${id}` === target.id);
            if (stale(chart)) render(chart);
          }),
      { rootMargin: "300px" },
    );
    Bench.figures.forEach((chart) => {
      const figure = Bench.byId(`chart-${chart.id}`);
      figure.hidden = false;
      figure.dataset.state = "waiting";
      const height = figure.querySelector(".plot").offsetHeight;
      figure.querySelector(".plot").style.minHeight = height ? "" : "200px";
      watcher.observe(figure);
    });
  }

  /* All of them, with the colours that hold now; for paper, as wide as that. */
  function all(paper = false) {
    if (!ready || !shown.work) return;
    shown.version += 1;
    shown.paper = paper;
    Bench.figures.forEach(render);
    shown.paper = false;
  }

  /* Runs the library, whose text the page holds, once the rest of the page is there to be read. */
  function begin() {
    document.body.append(make("script", { textContent: Bench.byId("plotly").textContent }));
    ready = true;
    document.documentElement.dataset.charts = "ready";
    if (shown.work) show(shown.work, shown.every, shown.view);
  }

  return { show, all, begin };
})();
