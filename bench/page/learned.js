"use strict";
/* What networks learnt: curves by epoch, tests by class, and folds of cross-validations. */
Bench.learned = (() => {
  const { make, fill, options, byId, content, plain, shorten, number, count } = Bench;
  const { narrow, base, titled, byMethod, labelled } = Bench.axes;
  const ROWS = 40;
  /* As many as there are colours: dashes tell validation from training. */
  const CURVES = 7;
  /* Up to so many classes the cells of a confusion matrix have numbers. */
  const NUMBERED = 15;
  /* Pixels between names of classes. */
  const LINE = 15;

  /* Methods with what each learnt, those that learnt alike as one. */
  function alike(methods, place) {
    const found = new Map();
    methods.forEach((method) => {
      const trained = method.curve.map((epoch) => epoch[place]);
      const validated = method.validated.map((epoch) => [epoch[0], epoch[place + 1]]);
      if (![...trained, ...validated.map(([, value]) => value)].some((value) => value !== null)) return;
      const key = JSON.stringify([trained, validated]);
      found.set(key, { trained, validated, names: [...(found.get(key)?.names ?? []), method.label] });
    });
    return [...found.values()];
  }

  const curves = (place, title, scale) => (colours, methods) => {
    const found = alike(methods, place).slice(0, CURVES);
    if (!found.length) return null;
    const layout = base(colours, 330);
    layout.xaxis = titled(layout.xaxis, "epoch");
    layout.yaxis = titled(layout.yaxis, title);
    const epochs = Math.max(...found.map(({ trained }) => trained.length));
    if (epochs <= 20) layout.xaxis.dtick = 1;
    const traces = found.flatMap(({ trained, validated, names }, at) => {
      const name = shorten(names[0], 40) + (names.length > 1 ? ` and ${names.length - 1} more, identical` : "");
      const common = {
        mode: epochs <= 40 ? "lines+markers" : "lines",
        marker: { size: 5 },
        hoverinfo: "x+y+name",
      };
      const line = { color: colours.cycle[at], width: 1.8 };
      const kinds = [
        ["training", trained.map((value, epoch) => [epoch, value]), "solid"],
        ["validation", validated, "dash"],
      ];
      return kinds
        .filter(([, points]) => points.length)
        .map(([kind, points, dash]) => ({
          ...common,
          name: plain(`${kind}: ${name}`),
          x: points.map(([epoch]) => epoch),
          y: points.map(([, value]) => (value === null ? null : scale * value)),
          line: { ...line, dash },
        }));
    });
    return { traces, layout };
  };

  /* The method whose test is shown: the one that was chosen, else the first that has one. */
  function chosen(work, view) {
    const known = work.methods.filter(({ test: place }) => place !== null && place >= 0);
    const method = known.find(({ label }) => label === view.test) ?? known[0];
    if (!method) return null;
    const test = work.tests[method.test];
    return { known, method, test, classes: content.classes[test.classes] };
  }

  function matrix(classes, cells) {
    const rows = classes.map(() => classes.map(() => 0));
    for (let at = 0; at < cells.length; at += 2)
      rows[Math.floor(cells[at] / classes.length)][cells[at] % classes.length] = cells[at + 1];
    return rows;
  }

  /* A colour between two, a share of the way from the first. */
  function between(one, other, share) {
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const [from, to] = [parts(one), parts(other)];
    return `rgb(${[0, 1, 2].map((place) => Math.round(from[place] + share * (to[place] - from[place]))).join(",")})`;
  }

  function confusion(colours, _, work, view) {
    const found = chosen(work, view);
    if (!found) return null;
    const { classes, test } = found;
    const n = classes.length;
    const counts = matrix(classes, test.cells);
    const totals = counts.map((row) => row.reduce((sum, value) => sum + value, 0));
    const side = narrow() ? 230 : Math.min(640, Math.max(260, 44 * n));
    const every = Math.ceil((LINE * n) / side);
    const places = classes.map((_, place) => place).filter((place) => place % every === 0);
    const names = places.map((place) => plain(shorten(classes[place], narrow() ? 10 : 22)));
    const layout = base(colours, side + 130);
    const axis = { tickvals: places, ticktext: names, showgrid: false, zeroline: false, ticks: "" };
    layout.xaxis = {
      ...titled(layout.xaxis, "predicted"),
      ...axis,
      tickangle: -90,
      constrain: "domain",
      range: [-0.5, n - 0.5],
    };
    layout.yaxis = {
      ...titled(layout.yaxis, "true"),
      ...axis,
      scaleanchor: "x",
      constrain: "domain",
      range: [n - 0.5, -0.5],
    };
    layout.showlegend = false;
    /* Else the scale of shades would stand far from the square. */
    if (!narrow()) layout.width = Math.min(window.innerWidth - 90, side + 320);
    const said = counts.map((row, t) =>
      row.map((value, p) => {
        const share = totals[t] ? `${number((100 * value) / totals[t])} % of ${totals[t]}` : "no samples";
        return plain(`${classes[t]} taken for ${classes[p]}: ${value} (${share})`);
      }),
    );
    const trace = {
      type: "heatmap",
      name: "",
      z: counts.map((row, t) => row.map((value) => (totals[t] ? value / totals[t] : null))),
      zmin: 0,
      zmax: 1,
      colorscale: [
        [0, colours.card],
        /* One of many samples must not vanish. */
        [1e-6, between(colours.card, colours.c0, 0.1)],
        [1, colours.c0],
      ],
      xgap: n <= NUMBERED ? 1 : 0,
      ygap: n <= NUMBERED ? 1 : 0,
      hoverinfo: "text",
      hovertext: said,
      showscale: !narrow(),
      colorbar: { thickness: 10, tickformat: ".0%", outlinewidth: 0, len: 0.8 },
    };
    if (n <= NUMBERED) {
      trace.text = counts.map((row) => row.map((value) => (value ? String(value) : "")));
      trace.texttemplate = "%{text}";
    }
    return { traces: [trace], layout };
  }

  const percent = (share) => number(share === null ? null : 100 * share);

  function test(work, view) {
    const found = chosen(work, view);
    const known = found?.known ?? [];
    const left = work.methods.filter((method) => method.test === -1).length;
    options(
      byId("test"),
      known.map(({ label }) => [label, label]),
      found?.method.label ?? "",
    );
    const more = left
      ? ` ${count(left, "method")} more ${left === 1 ? "is" : "are"} left out, to keep this file small: bench confusion shows any run.`
      : "";
    const same = known.filter((method) => method.test === found.method.test).length - 1;
    const others = same > 0 ? ` The same, to the last sample, with ${count(same, "other method")}.` : "";
    byId("test-about").textContent = `${found ? found.test.about : "No test is kept here."}${others}${more}`;
    if (!found) return fill(byId("classes"));
    const totals = matrix(found.classes, found.test.cells).map((row) => row.reduce((sum, value) => sum + value, 0));
    const lines = found.classes.map((name, place) => [
      name,
      ...found.test.shares[place].map(percent),
      totals[place].toLocaleString("en-US"),
    ]);
    const [macro, weighted] = found.test.averages;
    const samples = found.test.samples.toLocaleString("en-US");
    Bench.table.simple(
      byId("classes"),
      ["class", "precision, %", "recall, %", "F1, %", "samples"],
      [
        ["macro average", ...macro.map(percent), samples],
        ["weighted average", ...weighted.map(percent), samples],
        ...lines,
      ],
    );
  }

  const foldMetric = (view) =>
    content.folds.metrics.includes(view.fold) ? view.fold : content.folds.metrics[0];

  function foldBoxes(colours, _, __, view) {
    const key = foldMetric(view);
    const known = content.folds.all.filter((one) => one.values[key]).slice(0, ROWS);
    if (!known.length) return null;
    const layout = byMethod(colours, known, labelled(key));
    delete layout.xaxis.rangemode;
    layout.showlegend = false;
    const traces = known.map((one, place) => ({
      type: "box",
      orientation: "h",
      name: plain(one.label),
      x: one.values[key].map(([, value]) => value),
      y: one.values[key].map(() => place),
      width: 0.55,
      boxpoints: "all",
      jitter: 0.5,
      pointpos: 0,
      boxmean: true,
      fillcolor: "rgba(0,0,0,0)",
      line: { color: colours.quiet, width: 1.5 },
      marker: { color: colours.c0, size: 8, opacity: 0.8 },
      hoveron: "points",
      hoverinfo: "text",
      hovertext: one.values[key].map(([fold, value]) => plain(`fold ${fold}: ${number(value)}`)),
    }));
    return { traces, layout };
  }

  function folds(view) {
    const { all, metrics, more } = content.folds;
    if (!metrics.length) return;
    const key = foldMetric(view);
    options(
      byId("fold"),
      metrics.map((name) => [name, labelled(name)]),
      key,
    );
    const hidden = more ? ` ${count(more, "older one")} left out: bench folds has all.` : "";
    byId("folds-about").textContent =
      `${count(all.length, "cross-validation")} of all kinds of work, the newest first: each fold is a point.${hidden}`;
    const lines = all.map((one) => {
      const [mean, median, deviation] = one.summaries[key] ?? [null, null, null];
      const done = one.folds - one.missing.length;
      const lacks = one.missing.length ? `INCOMPLETE: ${done} of ${one.folds}, none of ${one.missing.join(", ")}` : "";
      const twice = one.repeated.length ? `, newest of several: ${one.repeated.join(", ")}` : "";
      const values = (one.values[key] ?? []).map(([, value]) => value);
      const range = values.length ? `${number(Math.min(...values))}…${number(Math.max(...values))}` : "n/a";
      const state = `${lacks || `${done} of ${one.folds}`}${twice}`;
      return [one.label, state, number(mean), number(median), number(deviation), range];
    });
    Bench.table.simple(
      byId("fold-table"),
      ["cross-validation", "folds", "mean", "median", "standard deviation", "lowest…highest"],
      lines,
    );
  }

  /* Which of these sections there are, for a kind of work. */
  function show(work) {
    const trained = work.methods.some(({ curve, validated }) =>
      [...curve, ...validated].some((epoch) => epoch.at(-2) !== null),
    );
    byId("learning").hidden = !trained;
    byId("tested").hidden = work.methods.every((method) => method.test === null);
    byId("folds").hidden = !content.folds.metrics.length;
  }

  const figures = [
    {
      id: "loss",
      home: "learning-figures",
      title: "Loss",
      note: "Solid: training. Dashed: validation.",
      of: curves(0, "loss, nats", 1),
    },
    {
      id: "accuracy",
      home: "learning-figures",
      title: "Accuracy",
      note: "Solid: training. Dashed: validation.",
      of: curves(1, "accuracy, %", 100),
    },
    {
      id: "confusion",
      home: "confusion-figure",
      full: true,
      title: "Confusion matrix",
      note: "A row for each true class; shades are shares of its samples. Hold the pointer over a cell for its classes.",
      optional: true,
      of: confusion,
    },
    {
      id: "folds",
      home: "folds-figure",
      full: true,
      title: (view) => `Folds: ${content.folds.metrics.length ? labelled(foldMetric(view)) : ""}`,
      note: "Each point is a fold.",
      optional: true,
      of: foldBoxes,
    },
  ];

  return { figures, show, test, folds };
})();
