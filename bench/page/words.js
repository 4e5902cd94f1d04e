"use strict";
/* What the other scripts share: making elements, writing numbers, and the view that the address holds. */
const Bench = { content: JSON.parse(document.getElementById("content").textContent) };

Bench.byId = (id) => document.getElementById(id);

/* Text from records is only ever set as text: nothing here takes HTML. */
Bench.make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

Bench.fill = (element, ...children) => element.replaceChildren(...children);

Bench.list = (element, texts) => Bench.fill(element, ...texts.map((text) => Bench.make("li", {}, text)));

Bench.options = (select, pairs, chosen) => {
  Bench.fill(select, ...pairs.map(([value, text]) => Bench.make("option", { value, textContent: text })));
  select.value = chosen;
};

/* To three significant digits, whole where it is larger; n/a for what is not known. */
Bench.number = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "n/a";
  if (value === 0) return "0";
  return Bench.fixed(value, Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value))))));
};

Bench.fixed = (value, decimals) =>
  value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

Bench.count = (n, word) => `${n.toLocaleString("en-US")} ${word}${n === 1 ? "" : "s"}`;

/* Plotly reads some HTML in texts, so that these two letters must not come through as they are. */
Bench.plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

Bench.shorten = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);

Bench.DEFAULTS = {
  work: "",
  metric: "epoch_s",
  sort: "epoch_s",
  filter: "",
  backend: "",
  workers: "",
  close: "",
  against: "",
  detail: "",
  test: "",
  fold: "",
  theme: "auto",
};

Bench.readView = () => {
  const view = { ...Bench.DEFAULTS };
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (name in view) view[name] = value;
  return view;
};

Bench.fragment = (view) => {
  const kept = Object.entries(view).filter(([name, value]) => value !== Bench.DEFAULTS[name]);
  return `#${new URLSearchParams(kept)}`;
};

Bench.work = (view) => Bench.content.works.find((work) => work.id === view.work) ?? Bench.content.works[0];
