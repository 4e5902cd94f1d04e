"use strict";
/* The table of methods: which rows, in which order, and what each cell says. */
Bench.table = (() => {
  const { make, fill, number, fixed } = Bench;

  /* The rows that a view asks for: filtered, then sorted; what lacks the quantity comes last, whatever the direction. */
  function rows(work, view) {
    const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const best = new Set(work.verdict.close);
    const found = work.methods.filter((method, place) => {
      if (view.backend && method.backend !== view.backend) return false;
      if (view.workers && String(method.workers) !== view.workers) return false;
      if (view.close && !best.has(place)) return false;
      const text = `${method.label} ${method.facts[0][1]}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const descending = view.sort.startsWith("-");
    const key = view.sort.replace("-", "");
    const value = (method) => {
      if (key === "label") return method.label;
      if (key === "runs") return method.runs;
      if (key === "against") return method.against?.ratio ?? (method === work.methods[work.verdict.best] ? 1 : null);
      return method.metrics[key]?.v ?? null;
    };
    return found.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return descending ? -order : order;
    });
  }

  function heading(key, label, unit, view, change) {
    const sorted = view.sort.replace("-", "") === key;
    const descending = sorted && view.sort.startsWith("-");
    const cell = make("th", { scope: "col", className: key === "label" ? "" : "number" });
    if (sorted) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const better = Bench.content.metrics[key]?.better;
    /* The first click puts the better end on top. */
    const first = better === "higher" || key === "runs" ? `-${key}` : key;
    const opposite = first.startsWith("-") ? key : `-${key}`;
    const click = () => change({ sort: view.sort === first ? opposite : first });
    cell.append(make("button", { type: "button", onclick: click, textContent: label }));
    cell.firstChild.dataset.sort = key;
    if (unit) cell.append(make("span", { className: "unit", textContent: unit }));
    return cell;
  }

  function againstCell(method, work) {
    if (method === work.methods[work.verdict.best]) {
      const textContent = work.verdict.shown ? "1 (best)" : "1 (reference)";
      return make("td", { className: "number", textContent });
    }
    const found = method.against;
    if (!found) return make("td", { className: "number", textContent: "not tested" });
    const exact = (value) => fixed(value, found.decimals);
    const cell = make("td", { className: "number", textContent: exact(found.ratio) });
    const spread = found.low === null ? "" : `${exact(found.low)}…${exact(found.high)}`;
    const verdict = found.verdict === "no difference shown" ? "not shown" : found.verdict;
    cell.append(make("span", { className: "spread", textContent: [spread, verdict].filter(Boolean).join(", ") }));
    if (found.reason) cell.title = found.reason;
    return cell;
  }

  function row(method, work, keys, change) {
    const name = make("button", {
      type: "button",
      onclick: () => change({ detail: method.label }),
      textContent: method.label,
    });
    const label = make("th", { scope: "row" }, name);
    if (method === work.methods[work.verdict.best] && work.verdict.sureness === "shown") {
      label.append(make("span", { className: "tag", textContent: "fastest, shown" }));
    }
    if (method.failed)
      label.append(make("span", { className: "tag bad", textContent: `${method.failed} without a result` }));
    const cells = keys.map((key) => {
      const value = method.metrics[key];
      if (!value) return make("td", { className: "number", textContent: "n/a" });
      const leading = value.best ? "number bestcell" : "number";
      const cell = make("td", { className: leading, textContent: value.t });
      if (value.r && (key === "epoch_s" || key === "samples_per_s")) {
        cell.append(make("span", { className: "spread", textContent: `${number(value.r[0])}…${number(value.r[1])}` }));
      }
      return cell;
    });
    const runs = make("td", { className: "number", textContent: String(method.runs) });
    return make("tr", {}, label, runs, againstCell(method, work), ...cells);
  }

  function draw(work, view, change) {
    const shown = rows(work, view);
    const keys = Bench.content.columns.filter((key) => work.methods.some((method) => method.metrics[key]));
    const { metrics } = Bench.content;
    const head = [
      heading("label", "method", "", view, change),
      heading("runs", "runs", "", view, change),
      heading("against", "ratio of epochs", "", view, change),
      ...keys.map((key) => heading(key, metrics[key].label, metrics[key].unit, view, change)),
    ];
    const table = Bench.byId("table");
    const focused = table.contains(document.activeElement) ? document.activeElement.dataset.sort : undefined;
    fill(
      table,
      make("caption", { className: "quiet", hidden: true, textContent: `Methods on ${work.title}` }),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...shown.map((method) => row(method, work, keys, change))),
    );
    if (focused) table.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    const all = work.methods.length;
    Bench.byId("count").textContent =
      shown.length === all ? `${all} ${all === 1 ? "method" : "methods"}` : `${shown.length} of ${all} methods`;
    return shown;
  }

  /* A plain table: headings, and rows of texts whose first cell names the row. */
  function simple(table, headings, lines) {
    const head = headings.map((text, place) =>
      make("th", { scope: "col", className: place ? "number" : "", textContent: text }),
    );
    const body = lines.map(([first, ...others]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", textContent: first }),
        ...others.map((text) => make("td", { className: "number", textContent: text })),
      ),
    );
    fill(table, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  }

  return { rows, draw, simple };
})();
