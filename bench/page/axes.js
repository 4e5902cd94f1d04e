"use strict";
/* What charts have in common: colours, axes, and the two shapes that most of them have, bars and curves. */
Bench.axes = (() => {
  const { make, plain, shorten, number } = Bench;
  /* How many curves a chart can hold and still be read. */
  const CURVES = 10;

  /* Colours are read where they are used, so that they follow the theme. */
  function palette() {
    const probe = make("i", { hidden: true });
    document.body.append(probe);
    const read = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const names = ["text", "quiet", "line", "grid", "card", "c0", "c1", "c2", "c3", "c4", "c5", "c6"];
    const found = Object.fromEntries(names.map((name) => [name, read(name)]));
    probe.remove();
    found.cycle = [0, 4, 2, 3, 1, 5, 6].map((place) => found[`c${place}`]);
    return found;
  }

  const narrow = () => window.innerWidth < 640;

  function base(colours, height) {
    const axis = {
      gridcolor: colours.grid,
      linecolor: colours.line,
      zerolinecolor: colours.line,
      automargin: true,
      fixedrange: narrow(),
    };
    return {
      height,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 12, color: colours.text },
      margin: { l: 8, r: 14, t: 8, b: 40 },
      xaxis: { ...axis, title: { standoff: 8 } },
      yaxis: { ...axis, title: { standoff: 8 } },
      legend: {
        traceorder: "normal",
        maxheight: 1,
        orientation: "h",
        x: 0,
        y: 1,
        yanchor: "bottom",
        font: { size: 11.5 },
      },
      hoverlabel: {
        bgcolor: colours.card,
        bordercolor: colours.line,
        font: { color: colours.text, size: 12 },
        align: "left",
      },
    };
  }

  const titled = (axis, text) => ({
    ...axis,
    title: { ...axis.title, text: plain(shorten(text, narrow() ? 34 : 90)) },
  });

  /* Methods one below the other, the first on top. Places are numbers: names may be alike when shortened. */
  function byMethod(colours, methods, title) {
    const layout = base(colours, 74 + Math.max(2, methods.length) * 27);
    const names = methods.map((method) => plain(shorten(method.label, narrow() ? 17 : 38)));
    layout.yaxis = {
      ...layout.yaxis,
      tickvals: methods.map((_, place) => place),
      ticktext: names,
      range: [methods.length - 0.5, -0.6],
      showgrid: false,
      zeroline: false,
      ticks: "",
    };
    layout.xaxis = { ...titled(layout.xaxis, title), rangemode: "tozero" };
    return layout;
  }

  /* What no record holds has no entry, and its key is all that can be said. */
  const labelled = (key) => {
    const metric = Bench.content.metrics[key];
    return metric ? `${metric.label}, ${metric.unit}` : key;
  };

  const median = (method, key) => method.metrics[key]?.v ?? null;

  const styleOf = (colours, place) => ({
    color: colours.cycle[place % 7],
    dash: ["solid", "dash", "dot"][Math.floor(place / 7) % 3],
  });

  function bars(colours, methods, title, parts) {
    const layout = { ...byMethod(colours, methods, title), barmode: "stack", bargap: 0.35 };
    const traces = parts
      .map(([name, colour, of]) => {
        const x = methods.map(of);
        const hovertext = methods.map((method, place) =>
          plain(`${method.label}\n${name}: ${number(x[place])}`).replaceAll("\n", "<br>"),
        );
        return {
          type: "bar",
          orientation: "h",
          name,
          x,
          y: methods.map((_, place) => place),
          hovertext,
          hoverinfo: "text",
          marker: { color: colours[colour] },
        };
      })
      .filter((trace) => trace.x.some((value) => value !== null && value !== undefined));
    layout.showlegend = parts.length > 1;
    return traces.length ? { traces, layout } : null;
  }

  function curves(colours, methods, height, xTitle, yTitle, of) {
    const layout = base(colours, height);
    layout.xaxis = titled(layout.xaxis, xTitle);
    layout.yaxis = titled(layout.yaxis, yTitle);
    const traces = methods
      .map((method) => [method, of(method)])
      .filter(([, found]) => found)
      .slice(0, CURVES)
      .map(([method, found], place) => ({
        name: plain(shorten(method.label, 40)),
        mode: "lines",
        line: { ...styleOf(colours, place), width: 1.8 },
        hoverinfo: "x+y+name",
        ...found,
      }));
    return traces.length ? { traces, layout } : null;
  }

  /* Ticks of a logarithmic axis, wherever it lies. */
  const decades = (steps) =>
    Array.from({ length: 13 }, (_, at) => steps.map((step) => Number((step * 10 ** (at - 6)).toPrecision(1)))).flat();

  return { CURVES, palette, narrow, base, titled, byMethod, labelled, median, styleOf, bars, curves, decades };
})();
