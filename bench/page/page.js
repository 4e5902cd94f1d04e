"use strict";
/* The page: shows the view that the address holds, and changes the address when another one is chosen. */
(() => {
  const { make, fill, options, byId, content, count, sections } = Bench;
  const chosenFacets = {};
  let view = Bench.readView();

  function change(wanted) {
    const other = "work" in wanted && wanted.work !== view.work;
    /* Names of another work mean nothing here. */
    const kept = other ? { ...view, backend: "", workers: "", against: "", detail: "", close: "", test: "" } : view;
    view = { ...kept, ...wanted };
    history.replaceState(null, "", Bench.fragment(view));
    draw(other);
  }

  function theme() {
    const root = document.documentElement;
    if (view.theme === "light" || view.theme === "dark") root.dataset.theme = view.theme;
    else delete root.dataset.theme;
    byId("theme").value = root.dataset.theme ?? "auto";
  }

  function chooser() {
    const names = ["data", "model", "cache", "device"];
    const shown = content.works.filter((work) =>
      names.every((name) => !chosenFacets[name] || work.facets[name] === chosenFacets[name]),
    );
    const current = Bench.work(view);
    byId("chooser").hidden = content.works.length < 2;
    const selects = names.map((name) => {
      const values = [...new Set(content.works.map((work) => work.facets[name]))];
      if (values.length < 2) return null;
      const select = make("select", { id: `facet-${name}` });
      options(select, [["", "all"], ...values.map((value) => [value, value])], chosenFacets[name] ?? "");
      select.onchange = () => {
        chosenFacets[name] = select.value;
        const found = content.works.filter((work) =>
          names.every((other) => !chosenFacets[other] || work.facets[other] === chosenFacets[other]),
        );
        if (found.length && !found.includes(Bench.work(view))) change({ work: found[0].id });
        else chooser();
      };
      return make("label", {}, `${name} `, select);
    });
    fill(byId("facets"), ...selects.filter(Boolean));
    const pairs = (shown.includes(current) ? shown : [current, ...shown]).map((work) => [
      work.id,
      `${work.title} — ${count(work.methods.length, "method")}, ${count(work.runs, "run")}`,
    ]);
    options(byId("work"), pairs, current.id);
  }

  function filters(work) {
    const backends = [...new Set(work.methods.map((method) => method.backend))].sort();
    const workers = [...new Set(work.methods.map((method) => method.workers))].sort((a, b) => a - b);
    options(
      byId("backend"),
      [["", "all"], ...backends.map((name) => [name, name])],
      backends.includes(view.backend) ? view.backend : "",
    );
    options(
      byId("workers"),
      [["", "all"], ...workers.map((n) => [String(n), String(n)])],
      workers.map(String).includes(view.workers) ? view.workers : "",
    );
    if (byId("filter").value !== view.filter) byId("filter").value = view.filter;
    byId("close").checked = view.close === "1";
    const metrics = content.points.filter((key) => work.methods.some((method) => method.metrics[key]));
    options(
      byId("metric"),
      metrics.map((key) => [key, `${content.metrics[key].label}, ${content.metrics[key].unit}`]),
      view.metric,
    );
    const fastest = work.methods[work.verdict.best ?? 0]?.label;
    options(
      byId("against"),
      work.methods.map((method) => [method.label, method.label]),
      view.against || fastest,
    );
  }

  function draw(everything) {
    theme();
    byId("link").href = Bench.fragment(view);
    const work = Bench.work(view);
    if (!work) return;
    /* Before the list of contents, which has only what is shown. */
    Bench.past.draw(view);
    if (everything) {
      chooser();
      sections.verdict(work);
      sections.overview(work, change);
      sections.equality(work);
      sections.warnings(work);
      sections.circumstances(work);
      Bench.learned.show(work);
      contents();
    }
    filters(work);
    const metric = byId("metric").value || "epoch_s";
    const methods = Bench.table.draw(work, view, change);
    sections.payback(work, methods);
    Bench.learned.test(work, view);
    Bench.learned.folds(view);
    sections.detail(work, view.detail);
    Bench.charts.show(work, methods, { ...view, metric });
  }

  function contents() {
    const shown = [
      ["verdict", "Verdict"],
      ["overview", "All work"],
      ["methods", "Methods"],
      ["charts", "Comparison"],
      ["past", "Over time"],
      ["cost", "Break-even"],
      ["equality", "Equality"],
      ["learning", "Learning"],
      ["tested", "Test"],
      ["folds", "Folds"],
      ["warnings", "Warnings"],
      ["failures", "Without result"],
      ["environment", "Measured on"],
      ["how", "How"],
    ];
    /* Buttons, and no links: the fragment of the address holds the view. */
    const goTo = (id) => byId(id).scrollIntoView();
    const visible = shown.filter(([id]) => !byId(id).hidden);
    fill(
      byId("sections"),
      ...visible.map(([id, text]) => make("button", { type: "button", textContent: text, onclick: () => goTo(id) })),
    );
  }

  byId("made").textContent =
    `${count(content.runs, "run")}, ${count(content.finished, "result")}, ${count(content.works.length, "kind")} of work. Made ${content.made_at} by bench ${content.bench}.`;
  for (const name of ["work", "backend", "workers", "metric", "against", "theme", "series", "over", "test", "fold"])
    byId(name).onchange = (event) => change({ [name]: event.target.value });
  byId("filter").oninput = (event) => change({ filter: event.target.value });
  byId("close").onchange = (event) => change({ close: event.target.checked ? "1" : "" });
  byId("detail").onclose = () => view.detail && change({ detail: "" });
  byId("skip").onclick = (event) => {
    event.preventDefault();
    byId("main").focus();
    byId("main").scrollIntoView();
  };
  addEventListener("hashchange", () => {
    view = Bench.readView();
    draw(true);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  /* Paper is light, and a printer sees what has not been scrolled to, too. */
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    Bench.charts.all(true);
  });
  addEventListener("afterprint", () => draw(false));

  if (!content.works.length) {
    ["chooser", "overview", "methods", "charts", "past", "cost", "equality", "learning", "tested", "folds", "warnings", "environment"].forEach((id) => {
      byId(id).hidden = true;
    });
    byId("sure").textContent = sections.SURE["no choice"];
    byId("headline").textContent = "No run gave a result";
  }
  sections.failures();
  draw(true);
  if (!content.works.length) contents();
  addEventListener("load", () => setTimeout(Bench.charts.begin, 0));
})();
