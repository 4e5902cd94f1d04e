"use strict";
/* The charts: each a function from colours, methods, work and view to traces and layout, or to null. */
Bench.figures = (() => {
  const { plain, shorten, number } = Bench;
  const { CURVES, base, titled, byMethod, labelled, median, styleOf, bars, curves, decades } = Bench.axes;

  function quantity(colours, methods, work, view) {
    const key = view.metric;
    if (!methods.some((method) => median(method, key) !== null)) return null;
    const layout = byMethod(colours, methods, labelled(key));
    const points = { x: [], y: [], hovertext: [] };
    const singles = { x: [], y: [], hovertext: [] };
    const solid = { x: [], y: [] };
    const thin = { x: [], y: [] };
    const middle = { x: [], y: [], hovertext: [] };
    methods.forEach((method, place) => {
      const value = method.metrics[key];
      if (!value || value.v === null) return;
      const several = method.runs > 1;
      const found = several ? (value.p ?? []) : key === "epoch_s" ? method.epochs : [];
      found.forEach((x, run) => {
        const target = several ? points : singles;
        /* A fixed spread, so that the same file always looks the same. */
        target.x.push(x);
        target.y.push(place + 0.26 * (((run * 5) % 9) / 4 - 1));
        target.hovertext.push(
          plain(`${method.label}\n${number(x)} (${several ? "a run" : "an epoch of the one run"})`).replaceAll(
            "\n",
            "<br>",
          ),
        );
      });
      const [line, ends] = value.i ? [solid, value.i] : [thin, value.r ?? []];
      if (ends.length) (line.x.push(...ends, null), line.y.push(place, place, null));
      const interval = value.i ? `\n95 % interval ${number(value.i[0])}…${number(value.i[1])}` : "";
      middle.x.push(value.v);
      middle.y.push(place);
      middle.hovertext.push(
        plain(
          `${method.label}\nmedian ${number(value.v)} of ${method.runs === 1 ? "1 run" : `${method.runs} runs`}${interval}`,
        ).replaceAll("\n", "<br>"),
      );
    });
    const dots = (from, name, symbol) => ({
      ...from,
      name,
      mode: "markers",
      hoverinfo: "text",
      marker: { color: colours.c0, opacity: 0.55, size: 7, symbol },
    });
    const lines = (from, name, width, colour) => ({
      ...from,
      name,
      mode: "lines",
      hoverinfo: "skip",
      line: { width, color: colour },
    });
    const traces = [
      lines(thin, "lowest…highest (no interval below 6 runs)", 1.5, colours.quiet),
      lines(solid, "95 % interval of the median", 4, colours.c1),
      dots(points, "a run", "circle"),
      dots(singles, "an epoch, of one run", "circle-open"),
      {
        ...middle,
        name: "median",
        mode: "markers",
        hoverinfo: "text",
        marker: { color: colours.c4, size: 10, symbol: "diamond", line: { width: 1, color: colours.card } },
      },
    ].filter((trace) => trace.x.length);
    if (key === "epoch_s" && work.ideal_s !== null) {
      const ends = [-0.6, methods.length - 0.5];
      traces.push({
        x: [work.ideal_s, work.ideal_s],
        y: ends,
        name: `ceiling: from memory, ${number(work.ideal_s)} s`,
        mode: "lines",
        hoverinfo: "name",
        line: { color: colours.c2, dash: "dash", width: 2 },
      });
    }
    if (key === "epoch_s" || key === "samples_per_s") delete layout.xaxis.rangemode;
    return { traces, layout };
  }

  const single = (key, colour) => (colours, methods) => {
    if (!methods.some((m) => median(m, key))) return null;
    return bars(colours, methods, labelled(key), [[labelled(key), colour, (m) => median(m, key)]]);
  };

  function partsOf(colours, methods) {
    const part = (name) => (method) => method.parts?.[name] ?? null;
    const known = [
      ["wait for data", "c4", "wait"],
      ["copy", "c1", "copy"],
      ["augment", "c3", "augment"],
      ["compute", "c0", "compute"],
    ].filter(([, , name]) => name !== "augment" || methods.some((m) => part(name)(m) !== null));
    return bars(
      colours,
      methods,
      "seconds of an epoch",
      known.map(([name, colour, key]) => [name, colour, part(key)]),
    );
  }

  /* Metrics that are parts of a whole, on top of each other; only those that the records have. */
  const stack = (title, parts) => (colours, methods) => {
    const known = parts.filter(([, , key]) => key in Bench.content.metrics);
    const of = (key) => (m) => median(m, key);
    return bars(
      colours,
      methods,
      title,
      known.map(([name, colour, key]) => [name, colour, of(key)]),
    );
  };

  const memory = stack("RAM at the peak, MB", [
    ["anonymous", "c0", "anon_mb"],
    ["mapped files", "c5", "file_mb"],
    ["shared memory", "c3", "shmem_mb"],
  ]);

  const vram = stack("VRAM at the peak, MB", [
    ["torch reserved", "c0", "vram_reserved_mb"],
    ["CuPy pool", "c3", "vram_cupy_mb"],
  ]);

  function workers(colours, methods) {
    const families = new Map();
    methods.forEach((m) => families.set(m.family, [...(families.get(m.family) ?? []), m]));
    const known = [...families].map(([name, members]) => [
      name,
      members.filter((m) => median(m, "samples_per_s") !== null).sort((a, b) => a.workers - b.workers),
    ]);
    if (!known.some(([, members]) => new Set(members.map((m) => m.workers)).size > 1)) return null;
    const layout = base(colours, 380);
    layout.xaxis = { ...titled(layout.xaxis, "workers"), tickvals: [...new Set(methods.map((m) => m.workers))] };
    layout.yaxis = { ...titled(layout.yaxis, labelled("samples_per_s")), rangemode: "tozero" };
    const traces = known.slice(0, CURVES).map(([name, members], place) => {
      const style = styleOf(colours, place);
      const value = (m) => m.metrics.samples_per_s;
      const spread = (m) => value(m).i ?? value(m).r ?? [value(m).v, value(m).v];
      return {
        name: plain(shorten(name, 40)),
        mode: "lines+markers",
        x: members.map((m) => m.workers),
        y: members.map((m) => value(m).v),
        line: style,
        error_y: {
          type: "data",
          symmetric: false,
          thickness: 1.2,
          width: 3,
          array: members.map((m) => spread(m)[1] - value(m).v),
          arrayminus: members.map((m) => value(m).v - spread(m)[0]),
        },
        hoverinfo: "text",
        hovertext: members.map((m) => plain(`${m.label}: ${number(value(m).v)} samples/s`)),
      };
    });
    return { traces, layout };
  }

  function waits(colours, methods) {
    const share = (value) => 100 * (1 - value);
    const found = curves(colours, methods, 380, "waited longer than, ms", "batches, %", (m) => {
      if (!m.waits) return null;
      const positive = m.waits.ms.map((ms, place) => [ms, share(m.waits.share[place])]).filter(([ms]) => ms > 0);
      return {
        x: positive.map(([ms]) => ms),
        y: positive.map(([, y]) => y),
        mode: "lines+markers",
        marker: { size: 4 },
        hovertemplate: "%{y:.3~g} % of batches waited longer than %{x:.3~g} ms<extra></extra>",
      };
    });
    if (!found) return null;
    Object.assign(found.layout.xaxis, { type: "log", tickvals: decades([1, 2, 5]) });
    Object.assign(found.layout.yaxis, { type: "log", tickvals: [100, 50, 20, 10, 5, 2, 1, 0.5, 0.1, 0.01] });
    return found;
  }

  function lines(colours, methods) {
    const found = curves(
      colours,
      methods.slice(0, 6),
      360,
      "batch, from the first of all epochs on",
      "wait, ms",
      (m) => m.line && { x: m.line.ms.map((_, place) => place * m.line.step), y: m.line.ms },
    );
    if (!found) return null;
    const { epochs } = methods.find((m) => m.line).line;
    found.layout.shapes = epochs.slice(1).map(([x]) => ({
      type: "line",
      x0: x,
      x1: x,
      yref: "paper",
      y0: 0,
      y1: 1,
      line: { color: colours.quiet, width: 1, dash: "dot" },
    }));
    Object.assign(found.layout.yaxis, { type: "log", tickvals: decades([1, 3]) });
    return found;
  }

  function drift(colours, methods) {
    const found = curves(
      colours,
      methods.filter((m) => m.runs > 1),
      360,
      "start of the run, UTC",
      labelled("epoch_s"),
      (m) => ({
        x: m.started.map((seconds) =>
          seconds === null ? null : new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " "),
        ),
        y: m.metrics.epoch_s?.p ?? [],
        mode: "markers",
        marker: { size: 8 },
      }),
    );
    return found;
  }

  function total(colours, methods) {
    const known = methods.filter((m) => median(m, "prepare_s") !== null && median(m, "epoch_s") !== null);
    const x = Array.from({ length: 46 }, (_, place) => Math.round(10 ** (place / 15))).filter(
      (value, place, all) => all.indexOf(value) === place,
    );
    const cost = (m, n) => median(m, "prepare_s") + n * median(m, "epoch_s");
    const least = x.map((n) => Math.min(...known.map((m) => cost(m, n))));
    const found = curves(colours, known, 380, "epochs", "time in all, of the least there", (m) => ({
      x,
      y: x.map((n, place) => cost(m, n) / least[place]),
      hovertemplate: "%{x} epochs: %{y:.2f} times the least<extra></extra>",
    }));
    if (found) Object.assign(found.layout.xaxis, { type: "log", tickvals: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] });
    return found;
  }

  return [
    {
      id: "quantity",
      home: "figures",
      full: true,
      title: (view) => `Medians, intervals and every run: ${labelled(view.metric)}`,
      note: "The quantity is chosen above. With one run, its epochs are shown instead of runs.",
      of: quantity,
    },
    {
      id: "parts",
      home: "figures",
      title: "Where an epoch goes",
      note: "Of the one counted epoch nearest to the median.",
      of: partsOf,
    },
    {
      id: "memory",
      home: "figures",
      title: "RAM at its peak",
      note: "Proportional set size; medians of the parts.",
      of: memory,
    },
    { id: "vram", home: "figures", title: "VRAM at its peak", note: "", optional: true, of: vram },
    {
      id: "disk",
      home: "figures",
      title: "Disk",
      note: "What the store takes of the disk.",
      of: single("store_mb", "c0"),
    },
    {
      id: "prepare",
      home: "figures",
      title: "Preparation",
      note: "Timed once for each store.",
      of: single("prepare_s", "c2"),
    },
    {
      id: "amplification",
      home: "figures",
      title: "Read amplification",
      note: "Bytes from the storage device for each byte delivered.",
      empty: "Nothing was read from storage in the counted epochs, or the system does not tell.",
      of: single("read_amplification", "c4"),
    },
    {
      id: "scaling",
      home: "figures",
      title: "Throughput against workers",
      note: "Bars: interval, or the range of fewer than 6 runs.",
      empty: "All methods here have the same number of workers.",
      of: workers,
    },
    {
      id: "waits",
      home: "figures",
      title: "How long batches were waited for",
      note: "All batches of the counted epochs of all runs; the tail only as far as 10 batches lie beyond.",
      of: waits,
    },
    {
      id: "lines",
      home: "figures",
      title: "Time line of the last run",
      note: "Wait of each batch, or the longest of several; dotted: a new epoch. Kept for the fastest methods.",
      empty: "No time lines are kept for these methods: only for the fastest of the larger works.",
      of: lines,
    },
    {
      id: "drift",
      home: "figures",
      full: true,
      title: "Runs in the order of time",
      note: "Whether the machine changed meanwhile.",
      empty: "No method here has several runs.",
      of: drift,
    },
    {
      id: "total",
      home: "cost-figure",
      full: true,
      title: "Preparation and epochs together",
      note: "1 is the method that takes least for that number of epochs; by medians.",
      of: total,
    },
    ...Bench.learned.figures,
  ];
})();
