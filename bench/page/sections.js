"use strict";
/* The sections of words and tables: each function fills one of them. */
Bench.sections = (() => {
  const { make, fill, list, byId, content, number, count } = Bench;

  const SURE = {
    shown: "Shown, in randomised blocks",
    "in part": "Shown in part, in randomised blocks",
    "not shown": "Not shown",
    "does not matter": "Storage is not the bottleneck",
    "no choice": "Nothing to choose between",
  };

  function verdict(work) {
    const { headline, sureness, why, also, doubts } = work.verdict;
    byId("sure").textContent = SURE[sureness];
    byId("sure").dataset.sure = sureness;
    byId("headline").textContent = headline;
    byId("about").textContent = `${work.title}. ${work.about} ${count(work.runs, "run")}, newest ${work.newest}.`;
    list(byId("why"), why);
    for (const [name, texts] of [
      ["also", also],
      ["doubts", doubts],
    ]) {
      list(byId(name), texts);
      byId(`${name}-box`).hidden = !texts.length;
    }
  }

  function overview(current, change) {
    byId("overview").hidden = content.works.length < 2;
    const head = ["kind of work", "verdict", "how sure", "methods", "runs", "newest"];
    const body = content.works.map((work) => {
      const name = make("button", {
        type: "button",
        textContent: work.title,
        onclick: () => {
          change({ work: work.id });
          byId("verdict").scrollIntoView();
        },
      });
      const cells = [work.verdict.headline, SURE[work.verdict.sureness]].map((text) =>
        make("td", { textContent: text }),
      );
      const numbers = [work.methods.length, work.runs, work.newest].map((text) =>
        make("td", { className: "number", textContent: String(text) }),
      );
      const row = make("tr", {}, make("th", { scope: "row" }, name), ...cells, ...numbers);
      if (work === current) row.setAttribute("aria-current", "true");
      return row;
    });
    const cells = head.map((text, place) =>
      make("th", { scope: "col", className: place > 2 ? "number" : "", textContent: text }),
    );
    fill(byId("works"), make("thead", {}, make("tr", {}, ...cells)), make("tbody", {}, ...body));
  }

  /* After how many epochs the dearer preparation of the two is repaid; which of the two that is stands beside it. */
  function payback(work, methods) {
    const reference = work.methods.find((method) => method.label === byId("against").value) ?? work.methods[0];
    const cost = (method) => [method.metrics.prepare_s?.v ?? null, method.metrics.epoch_s?.v ?? null];
    const [prepared, epoch] = cost(reference);
    const best = work.methods[work.verdict.best];
    const lines = methods
      .filter((method) => method !== reference)
      .map((method) => {
        const [other, its] = cost(method);
        const numbers = [number(other), number(its)];
        if ([prepared, epoch, other, its].includes(null)) return [method.label, ...numbers, "n/a", "n/a"];
        const tested = method === best ? reference.against : reference === best ? method.against : null;
        const sure = tested && tested.verdict !== "no difference shown";
        return [
          method.label,
          ...numbers,
          ...sentence(other - prepared, epoch - its, sure),
          sure ? "shown" : "not shown",
        ];
      });
    Bench.table.simple(
      byId("payback"),
      [
        `against ${reference.label}`,
        "preparation, s",
        "epoch, s",
        "break-even, epochs",
        "what that means",
        "epochs differ",
      ],
      [[`${reference.label} (chosen)`, number(prepared), number(epoch), "", "", ""], ...lines],
    );
  }

  /* Of a method that costs `extra` more seconds once and saves `saved` an epoch: the break-even, and what it means. */
  function sentence(extra, saved, sure) {
    const takes = sure ? "takes" : "seems to take";
    if (extra === 0 && saved === 0) return ["0", "takes the same"];
    if (extra <= 0 && saved >= 0) return ["0", `${takes} less from the start`];
    if (extra >= 0 && saved <= 0) return ["never", `${takes} more, always`];
    const epochs = extra / saved;
    const when = epochs < 1 ? "from the first epoch on" : extra > 0 ? "from then on" : "after that";
    return [`${sure ? "" : "~"}${number(epochs)}`, `${takes} ${extra > 0 ? "less" : "more"} ${when}`];
  }

  function equality(work) {
    byId("equal-text").textContent = work.equality.text;
    list(byId("equal-evaluated"), work.equality.evaluated);
    const evaluated = ["val_accuracy", "test_accuracy"].filter((key) =>
      work.methods.some((method) => method.metrics[key]),
    );
    const word = (equal) => (equal === null ? "not recorded" : equal ? "yes" : "NO");
    const lines = work.methods.map((method) => [
      method.label,
      String(method.runs),
      word(method.losses[0]),
      method.losses[1] ?? "",
      method.metrics.loss?.t ?? "n/a",
      method.metrics.accuracy?.t ?? "n/a",
      ...evaluated.map((key) => method.metrics[key]?.t ?? "n/a"),
    ]);
    Bench.table.simple(
      byId("losses"),
      [
        ...["method", "runs", "losses equal", "first difference", "last loss", "last accuracy, %"],
        ...evaluated.map((key) => Bench.axes.labelled(key)),
      ],
      lines,
    );
  }

  const named = (methods) =>
    methods
      .slice(0, 4)
      .map(([label, runs]) => `${label} (${runs})`)
      .join(", ") + (methods.length > 4 ? ` and ${count(methods.length - 4, "more method")}` : "");

  function warnings(work) {
    if (!work.warnings.length)
      return fill(byId("warning-list"), make("p", { textContent: "None of these runs has a warning." }));
    return fill(
      byId("warning-list"),
      ...work.warnings.map((warning) => {
        const summary = make(
          "summary",
          {},
          make("b", { textContent: warning.kind }),
          ` — ${count(warning.runs, "run")} of ${work.runs}: ${named(warning.methods)}`,
        );
        const texts = warning.texts.map(([label, text]) => make("li", { textContent: `${label}: ${text}` }));
        if (warning.more) texts.push(make("li", { textContent: `and ${warning.more} more messages of this kind` }));
        return make("details", {}, summary, make("ul", {}, ...texts));
      }),
    );
  }

  /* A table of words, which stand on the left. */
  function words(id, headings, lines) {
    Bench.table.simple(byId(id), headings, lines);
    byId(id)
      .querySelectorAll(".number")
      .forEach((cell) => cell.classList.remove("number"));
  }

  function failures() {
    const { runs, rows, more } = content.failures;
    const nothing = !runs && !content.unreadable.length;
    byId("failure-text").textContent = nothing
      ? "Every run in the folder gave a result."
      : `${count(runs, "run")} of ${content.runs.toLocaleString("en-US")} gave no result; no number of theirs is used above.${more ? ` ${count(more, "further row")} are left out.` : ""}`;
    byId("failure-table").parentElement.hidden = !rows.length;
    words(
      "failure-table",
      ["became", "runs", "data", "method", "work", "phase", "reason", "last on"],
      rows.map(({ runs: n, cells }) => [cells[0], String(n), ...cells.slice(1)]),
    );
    list(byId("unreadable"), content.unreadable);
  }

  function detail(work, name) {
    const dialog = byId("detail");
    const method = work.methods.find(({ label }) => label === name);
    if (!method) return dialog.close();
    byId("detail-title").textContent = method.label;
    const known = make("table");
    fill(
      known,
      make(
        "tbody",
        {},
        ...method.facts.map(([name, text]) =>
          make("tr", {}, make("th", { scope: "row", textContent: name }), make("td", { textContent: text })),
        ),
      ),
    );
    const numbers = make("table");
    const lines = Object.entries(method.metrics).map(([key, value]) => {
      const { label, unit } = content.metrics[key];
      const range = value.r ? `${number(value.r[0])}…${number(value.r[1])}` : "";
      const interval = value.i ? `${number(value.i[0])}…${number(value.i[1])}` : "";
      return [label, value.t, unit, range, interval];
    });
    Bench.table.simple(numbers, ["quantity", "median", "unit", "lowest…highest", "95 % interval"], lines);
    fill(
      byId("detail-body"),
      make("div", { className: "scroll" }, known),
      make("div", { className: "scroll" }, numbers),
    );
    if (!dialog.open) dialog.showModal();
  }

  function circumstances(work) {
    words("machine", ["", "value"], work.environment);
    const proof = (method) => method.facts.find(([name]) => name === "page cache")[1];
    words(
      "proofs",
      ["method", "page cache"],
      work.methods.map((method) => [method.label, proof(method)]),
    );
  }

  return { SURE, verdict, overview, payback, equality, warnings, failures, detail, circumstances };
})();
