"use strict";
/* A quantity over time and revisions: a series of equal work, its steps, and what changed there. */
Bench.past = (() => {
  const { byId, content, number, options, plain } = Bench;
  const { base, titled, labelled } = Bench.axes;
  const { series, more } = content.past;

  Object.assign(Bench.DEFAULTS, { series: "", over: "epoch_s" });

  const chosen = (view) => series.find(({ id }) => id === view.series) ?? series[0];
  const quantity = (view, metrics) => (view.over in metrics ? view.over : Object.keys(metrics)[0]);

  const words = (point, key) =>
    [
      `${point.at} UTC`,
      `revision ${point.revision}`,
      `${number(point.v)} ${content.metrics[key].unit}${point.runs > 1 ? ` (median of ${point.runs} runs)` : ""}`,
      point.loop === null ? "" : `fixed loop ${number(point.loop)} ms`,
      point.changed ? `new: ${Bench.shorten(point.changed, 90)}` : "",
    ]
      .filter(Boolean)
      .map(plain)
      .join("<br>");

  /* A step from or to zero has no ratio. */
  const change = (ratio, before, behind) =>
    ratio === null ? `${number(before)} → ${number(behind)}` : `× ${number(ratio)}`;

  /* Between two steps, the median of the points there. */
  function levels({ points, steps }) {
    const x = [];
    const y = [];
    const bounds = [0, ...steps.map(([index]) => index), points.length];
    bounds.slice(1).forEach((end, place) => {
      const part = points.slice(bounds[place], end);
      const values = part.map(({ v }) => v).sort((a, b) => a - b);
      const middle = (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
      x.push(part[0].at, part.at(-1).at, null);
      y.push(middle, middle, null);
    });
    return { x, y };
  }

  function figure(colours, _methods, _work, view) {
    const { metrics } = chosen(view);
    const key = quantity(view, metrics);
    const found = metrics[key];
    const at = found.points.map((point) => point.at);
    const layout = base(colours, 380);
    layout.xaxis = { ...titled(layout.xaxis, "start of the run, UTC"), type: "date" };
    layout.yaxis = titled(layout.yaxis, labelled(key));
    layout.shapes = found.steps.map(([index]) => ({
      type: "line",
      x0: at[index],
      x1: at[index],
      yref: "paper",
      y0: 0,
      y1: 1,
      line: { color: colours.c4, width: 1.5, dash: "dash" },
    }));
    layout.annotations = found.steps.map(([index, ...medians]) => ({
      x: at[index],
      y: 1,
      yref: "paper",
      yanchor: "top",
      xanchor: "left",
      text: plain(change(...medians)),
      showarrow: false,
      font: { color: colours.c4 },
    }));
    const traces = [
      {
        name: "a run, or the median of those of one comparison",
        mode: "markers",
        x: at,
        y: found.points.map(({ v }) => v),
        marker: { color: colours.c0, size: 8 },
        hoverinfo: "text",
        hovertext: found.points.map((point) => words(point, key)),
      },
      {
        name: "median between steps",
        mode: "lines",
        ...levels(found),
        line: { color: colours.c4, width: 2.5 },
        hoverinfo: "y",
      },
    ];
    if (found.points.some(({ loop }) => loop !== null)) {
      layout.yaxis2 = {
        ...titled(base(colours, 0).yaxis, "fixed loop, ms"),
        overlaying: "y",
        tickmode: "auto",
        side: "right",
        rangemode: "tozero",
        showgrid: false,
      };
      traces.push({
        name: "a fixed loop at that time: the machine itself (right)",
        mode: "lines",
        x: at,
        y: found.points.map(({ loop }) => loop),
        yaxis: "y2",
        line: { color: colours.quiet, width: 1.2, dash: "dot" },
        hoverinfo: "skip",
      });
    }
    return { traces, layout };
  }

  function rows({ points, steps }) {
    const changes = new Map(steps.map(([index, ...medians]) => [index, change(...medians)]));
    return points.map((point, place) => [
      point.at,
      point.revision,
      point.changed,
      String(point.runs),
      number(point.v),
      number(point.loop),
      changes.get(place) ?? "",
    ]);
  }

  let shown = "";

  /* Everything of the section but its chart, which is drawn when it comes into sight. */
  function draw(view) {
    byId("past").hidden = !series.length;
    if (!series.length) return;
    const { id, about, metrics } = chosen(view);
    const key = quantity(view, metrics);
    if (shown === `${id} ${key}`) return;
    shown = `${id} ${key}`;
    const named = series.map((one) => [one.id, one.label]);
    options(byId("series"), named, id);
    const keys = Object.keys(metrics).map((one) => [one, labelled(one)]);
    options(byId("over"), keys, key);
    byId("past-about").textContent = about + (more ? ` ${Bench.count(more, "shorter series")} left out.` : "");
    Bench.list(byId("past-steps"), metrics[key].texts);
    const head = ["when, UTC", "revision", "changed versions", "runs", labelled(key), "fixed loop, ms", "step"];
    Bench.table.simple(byId("past-table"), head, rows(metrics[key]));
    /* Revisions and versions are words, which stand on the left. */
    const words = "tr > :nth-child(2), tr > :nth-child(3)";
    byId("past-table")
      .querySelectorAll(words)
      .forEach((cell) => cell.classList.remove("number"));
  }

  if (series.length)
    Bench.figures.push({
      id: "past",
      home: "past-figure",
      full: true,
      title: (view) => `${labelled(quantity(view, chosen(view).metrics))} over time`,
      note: "Versions and revisions may differ, all else is equal. Dashed: a step, with the ratio of the medians, or both where one is zero; p after Holm over all series.",
      always: true,
      of: figure,
    });

  return { draw };
})();
