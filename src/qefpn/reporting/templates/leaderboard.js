"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const metricOf = Object.fromEntries(data.metrics.map((metric) => [metric.key, metric]));
const SVG = "http://www.w3.org/2000/svg";

// What is shown; `readState` fills it from the address, `writeState` puts it back.
const state = {sort: null, direction: null, filter: "", hidden: new Set(), columns: new Set(), published: true, pinned: "", picture: null};

function element(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const text = (metric, value) => (value === null || value === undefined ? "–" : value.toFixed(metric.digits));

// ---- the address ---------------------------------------------------------------------------------------------------
function readState() {
  const query = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B"));
  const sort = query.get("sort") || "";
  const at = sort.lastIndexOf(":");
  const names = data.datasets.map((set) => set.name);
  state.hidden = new Set(query.getAll("hide").filter((name) => names.includes(name)));
  const visible = names.filter((name) => !state.hidden.has(name));
  const dataset = at < 0 ? visible[0] : sort.slice(0, at);
  const key = at < 0 ? sort : sort.slice(at + 1);
  if (sort === "name") state.sort = {name: true};
  else if (metricOf[key] && names.includes(dataset)) state.sort = {dataset, key};
  else state.sort = visible.length && data.metrics.length ? {dataset: visible[0], key: data.metrics[0].key} : {name: true};
  state.direction = query.has("desc") ? "descending" : query.has("asc") ? "ascending" : best(state.sort);
  state.filter = query.get("method") || "";
  const columns = query.get("columns");
  state.columns = new Set(columns === null ? data.metrics.filter((one) => one.shown).map((one) => one.key)
    : columns.split(",").filter((key) => metricOf[key]));
  state.published = query.get("published") !== "0";
  state.pinned = query.get("highlight") || "";
  const picture = query.get("picture");
  const set = picture && names.filter((name) => picture.startsWith(name + "/")).sort((a, b) => b.length - a.length)[0];
  state.picture = set ? {dataset: set, name: picture.slice(set.length + 1)} : null;
}
const best = (sort) => (sort.name || metricOf[sort.key].lower ? "ascending" : "descending");

function writeState() {
  const parts = [];
  const add = (key, value) => parts.push(key + "=" + encodeURIComponent(value).replace(/%(3A|2F|2C)/g, decodeURIComponent));
  add("sort", state.sort.name ? "name" : state.sort.dataset + ":" + state.sort.key);
  parts.push(state.direction === "descending" ? "desc" : "asc");
  if (state.filter) add("method", state.filter);
  state.hidden.forEach((name) => add("hide", name));
  const usual = data.metrics.filter((one) => one.shown).map((one) => one.key).join();
  const columns = data.metrics.filter((one) => state.columns.has(one.key)).map((one) => one.key).join();
  if (columns !== usual) add("columns", columns);
  if (!state.published) add("published", "0");
  if (state.pinned) add("highlight", state.pinned);
  if (state.picture) add("picture", state.picture.dataset + "/" + state.picture.name);
  try { history.replaceState(null, "", "#" + parts.join("&")); } catch (error) { /* a viewer that forbids it */ }
}

// ---- which methods and columns -------------------------------------------------------------------------------------
const visibleSets = () => data.datasets.filter((set) => !state.hidden.has(set.name));
const visibleMetrics = () => data.metrics.filter((metric) => state.columns.has(metric.key));
const matches = (name) => name.toLowerCase().includes(state.filter.trim().toLowerCase());
const competitors = () => data.methods.filter((method) => !method.published || state.published);
const shownMethods = () => competitors().filter((method) => matches(method.name));

/** The figure that sorts and ranks: a misprint counts as its right figure, or not at all where that is not known. */
function rankValue(method, dataset, key) {
  const cell = method.cells[dataset];
  if (!cell) return null;
  const value = cell.ranked && key in cell.ranked ? cell.ranked[key] : cell.values[key];
  return value === undefined ? null : value;
}

/** Whether a method's figures are of the very pictures that were scored: of fewer, or of the whole official set beside a part
 * of it, they are shown and sorted but not marked. */
function competes(method, dataset) {
  const cell = method.cells[dataset];
  return Boolean(cell && cell.complete && !cell.elsewhere);
}

/** The three best figures of a column as printed, over all methods that compete, filtered out or not. */
function bestThree(dataset, metric) {
  const values = new Set();
  for (const method of competitors()) {
    const value = rankValue(method, dataset, metric.key);
    if (value !== null && competes(method, dataset)) values.add(value.toFixed(metric.digits));
  }
  const sorted = [...values].map(Number).sort((a, b) => (metric.lower ? a - b : b - a));
  return competitors().length > 1 ? sorted.slice(0, 3).map((value) => value.toFixed(metric.digits)) : [];
}

function sorted(methods) {
  const sign = state.direction === "descending" ? -1 : 1;
  const byName = (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true});
  if (state.sort.name) return [...methods].sort((a, b) => sign * byName(a, b));
  const {dataset, key} = state.sort;
  const group = (method) => (rankValue(method, dataset, key) === null ? 2 : method.cells[dataset].complete ? 0 : 1);
  return [...methods].sort((a, b) => group(a) - group(b)
    || (group(a) < 2 ? sign * (rankValue(a, dataset, key) - rankValue(b, dataset, key)) : 0) || byName(a, b));
}

// ---- the table -----------------------------------------------------------------------------------------------------
function sortBy(sort) {
  const same = state.sort.name === sort.name && state.sort.dataset === sort.dataset && state.sort.key === sort.key;
  state.direction = same ? (state.direction === "ascending" ? "descending" : "ascending") : best(sort);
  state.sort = sort;
  drawTable();
  writeState();
  const current = document.querySelector("#board th[aria-sort=ascending] button, #board th[aria-sort=descending] button");
  if (current) current.focus();  // the head was drawn anew
}

function headCell(label, sort, title, attributes) {
  const active = state.sort.name === sort.name && state.sort.dataset === sort.dataset && state.sort.key === sort.key;
  const button = element("button", {type: "button", title, onclick: () => sortBy(sort)}, label);
  return element("th", {scope: "col", "aria-sort": active ? state.direction : "none", ...attributes}, button);
}

function drawTable() {
  const sets = visibleSets(), metrics = visibleMetrics();
  const groups = element("tr", {}, headCell("Method", {name: true}, "sort by name", {rowspan: 2}));
  const heads = element("tr");
  for (const set of sets) {
    if (metrics.length) groups.append(element("th", {scope: "colgroup", colspan: metrics.length, class: "set"}, set.name));
    metrics.forEach((metric, index) => {
      const title = `${metric.title}, ${metric.lower ? "lower" : "higher"} is better`;
      const label = `${metric.label} ${metric.lower ? "↓" : "↑"}`;
      heads.append(headCell(label, {dataset: set.name, key: metric.key}, title,
        {class: index ? null : "start", "aria-label": `${set.name}: ${metric.label}`}));
    });
  }
  const leaders = sets.map((set) => metrics.map((metric) => bestThree(set.name, metric)));
  const rows = sorted(shownMethods()).map((method) => {
    const row = element("tr", {"data-method": method.name, class: method.published ? "published" : null}, nameCell(method, sets));
    sets.forEach((set, s) => metrics.forEach((metric, m) => row.append(figureCell(method, set, metric, leaders[s][m], m === 0))));
    if (!method.published) {
      row.addEventListener("mouseenter", () => highlight(method.name));
      row.addEventListener("mouseleave", () => highlight(""));
    }
    return row;
  });
  byId("board").tHead.replaceChildren(groups, heads);
  byId("board").tBodies[0].replaceChildren(...rows);
  document.querySelectorAll(".paper").forEach((node) => { node.hidden = !state.published; });
  const total = competitors().length;
  byId("count").textContent = rows.length === total ? `${total} methods` : `${rows.length} of ${total} methods`;
  highlight("");
}

function nameCell(method, sets) {
  const cell = element("th", {scope: "row"}, method.name);
  if (method.published) {
    cell.append(element("span", {class: "chip", title: "as printed in the paper"}, [method.year, method.published].filter(Boolean).join(", ")));
  }
  for (const set of sets) {
    const one = method.cells[set.name];
    if (one && !one.complete) {
      const where = sets.length > 1 ? ` ${set.name}` : "";
      cell.append(" ", element("span", {class: "dagger", title: "some maps are missing"}, `† ${one.scored} of ${one.expected}${where}`));
    }
  }
  return cell;
}

function figureCell(method, set, metric, leaders, first) {
  const one = method.cells[set.name];
  const cell = element("td", {class: first ? "start" : null});
  const shown = one ? text(metric, one.values[metric.key]) : "–";
  cell.append(element("span", {class: "figure"}, shown));
  if (!one || shown === "–") return cell;
  const value = rankValue(method, set.name, metric.key);
  const rank = competes(method, set.name) && value !== null ? leaders.indexOf(value.toFixed(metric.digits)) + 1 : 0;
  if (rank) {
    cell.classList.add("rank" + rank);
    cell.title = ["best", "second", "third"][rank - 1];
  }
  if (!one.complete) cell.append(element("span", {class: "dagger"}, "†"));
  const note = one.notes && one.notes[metric.key];
  if (note) cell.append(element("sup", {}, element("a", {href: "#note-" + note, "aria-label": "misprint, note " + note,
    onclick: (event) => { event.preventDefault(); byId("note-" + note).scrollIntoView({block: "center"}); }}, String(note))));
  return cell;
}

// ---- curves --------------------------------------------------------------------------------------------------------
const charts = [];
const BOX = {width: 480, height: 320, left: 44, right: 12, top: 10, bottom: 40};

function swatch(method) {
  const line = element("svg:line", {x1: 1, y1: 5, x2: 33, y2: 5, ...stroke(method)});
  line.style.strokeWidth = 2.4;
  return element("svg:svg", {width: 34, height: 10, class: "swatch", "aria-hidden": "true"}, line);
}
function stroke(method) {  // the darkest colour is the page's ink, which a dark page turns light
  return {stroke: method.colour === "#333333" ? "var(--ink)" : method.colour,
    "stroke-dasharray": method.dashes.length ? method.dashes.map((one) => one * 2).join(" ") : null};
}

function drawCurves() {
  charts.length = 0;
  const methods = data.methods.filter((one) => !one.published && matches(one.name));
  byId("legend").replaceChildren(...methods.map((method) => element("li", {}, element("button", {
    type: "button", "data-method": method.name, "aria-pressed": String(state.pinned === method.name),
    onmouseenter: () => highlight(method.name), onmouseleave: () => highlight(""),
    onfocus: () => highlight(method.name), onblur: () => highlight(""),
    onclick: () => { state.pinned = state.pinned === method.name ? "" : method.name; highlight(state.pinned); writeState(); },
  }, swatch(method), method.name))));
  const blocks = visibleSets().map((set) => {
    const {methods: curves, floors} = data.curves[set.name];
    const own = methods.filter((method) => curves[method.name]);
    const f = own.map((method) => [method, curves[method.name].f.map((value, index) => [255 - index, value])]);
    const pr = own.map((method) => [method, curves[method.name].r.map((recall, index) => [recall, curves[method.name].p[index]])]);
    return element("div", {}, element("h3", {}, set.name), element("div", {class: "curves"},
      chart("F-measure over the threshold", f, {x: [0, 255], y: [floors.f, 1]}, ["threshold", "F"]),
      chart("Precision over recall", pr, {x: [floors.r, 1], y: [floors.p, 1]}, ["recall", "precision"])));
  });
  byId("curves").replaceChildren(...blocks);
  byId("curves-section").hidden = !Object.values(data.curves).some((one) => Object.keys(one.methods).length);
  highlight("");
}

function ticks([low, high]) {
  if (high === 255) return [0, 50, 100, 150, 200, 250];
  const step = high - low > 0.55 ? 0.2 : high - low > 0.15 ? 0.1 : 0.02;
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) out.push(k * step);
  return out;
}

function chart(title, series, range, labels) {
  const inner = {width: BOX.width - BOX.left - BOX.right, height: BOX.height - BOX.top - BOX.bottom};
  const x = (value) => BOX.left + (value - range.x[0]) / (range.x[1] - range.x[0]) * inner.width;
  const y = (value) => BOX.top + (range.y[1] - value) / (range.y[1] - range.y[0]) * inner.height;
  const decimals = ([low, high]) => (high === 255 ? 0 : high - low > 0.15 ? 1 : 2);  // as `ticks` steps
  const svg = element("svg:svg", {viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": title});
  for (const value of ticks(range.x)) {
    svg.append(element("svg:line", {class: "grid", x1: x(value), x2: x(value), y1: BOX.top, y2: BOX.top + inner.height}),
      element("svg:text", {x: x(value), y: BOX.top + inner.height + 16, "text-anchor": "middle"}, value.toFixed(decimals(range.x))));
  }
  for (const value of ticks(range.y)) {
    svg.append(element("svg:line", {class: "grid", x1: BOX.left, x2: BOX.left + inner.width, y1: y(value), y2: y(value)}),
      element("svg:text", {x: BOX.left - 7, y: y(value) + 4, "text-anchor": "end"}, value.toFixed(decimals(range.y))));
  }
  svg.append(element("svg:text", {x: BOX.left + inner.width / 2, y: BOX.height - 6, "text-anchor": "middle"}, labels[0]));
  const clip = "clip" + charts.length;
  svg.append(element("svg:clipPath", {id: clip}, element("svg:rect", {x: BOX.left, y: BOX.top - 2, width: inner.width + 2, height: inner.height + 2})));
  const lines = element("svg:g", {"clip-path": `url(#${clip})`});
  const points = [];
  for (const [method, values] of [...series].reverse()) {  // the first method lies on top
    const finite = values.filter(([a, b]) => a !== null && b !== null);
    const d = finite.map(([a, b], index) => `${index ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    lines.append(element("svg:path", {class: "line", "data-method": method.name, d, ...stroke(method)}));
    finite.forEach(([a, b]) => points.push({method: method.name, a, b, x: x(a), y: y(b)}));
  }
  const dot = element("svg:circle", {r: 4.5, fill: "var(--ink)", visibility: "hidden"});
  svg.append(lines, dot, element("svg:rect", {class: "hit", x: BOX.left, y: BOX.top, width: inner.width, height: inner.height}));
  const tip = element("div", {class: "tip", hidden: true});
  const leave = () => { tip.hidden = true; dot.setAttribute("visibility", "hidden"); highlight(""); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = BOX.width / box.width;
    const at = {x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale};
    let nearest = null, least = 24 ** 2;
    for (const point of points) {
      const distance = (point.x - at.x) ** 2 + (point.y - at.y) ** 2;
      if (distance < least && point.y < BOX.top + inner.height + 1 && point.x > BOX.left - 1) { least = distance; nearest = point; }
    }
    if (!nearest) return leave();
    highlight(nearest.method);
    dot.setAttribute("cx", nearest.x);
    dot.setAttribute("cy", nearest.y);
    dot.setAttribute("visibility", "visible");
    const first = range.x[1] === 255 ? nearest.a : nearest.a.toFixed(3);
    tip.replaceChildren(element("b", {}, nearest.method), `${labels[0]} ${first}, ${labels[1]} ${nearest.b.toFixed(3)}`);
    tip.hidden = false;
    const right = nearest.x > BOX.width / 2;
    const figure = svg.parentNode.getBoundingClientRect();
    tip.style.transform = right ? "translateX(-100%)" : "";
    tip.style.left = `${box.left - figure.left + nearest.x / scale + (right ? -12 : 12)}px`;
    tip.style.top = `${box.top - figure.top + nearest.y / scale + 10}px`;
  });
  charts.push(svg);
  return element("figure", {class: "card"}, element("figcaption", {}, title), svg, tip);
}

/** Marks a method in the table, the legend and all curves; "" falls back to the one that was clicked. */
function highlight(name) {
  const current = name || state.pinned;
  byId("curves").classList.toggle("dimmed", data.methods.some((method) => method.name === current && !method.published && matches(current)));
  document.querySelectorAll("[data-method]").forEach((node) => {
    const on = node.dataset.method === current && !node.classList.contains("published");
    node.classList.toggle("on", on);
    if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", String(node.dataset.method === state.pinned));
  });
}

// ---- pictures ------------------------------------------------------------------------------------------------------
const WHY = {differ: "methods differ by", worst: "among the worst, mean", best: "among the best, mean", between: "between, mean"};
function reason(row) {
  const metric = metricOf[row.key] || {label: row.key, digits: 3};
  return `${WHY[row.why]} ${(row.why === "differ" ? row.spread : row.mean).toFixed(2)} ${metric.label}`;
}

function drawPictures() {
  const blocks = visibleSets().filter((set) => data.pictures[set.name].length).map((set) => element("div", {},
    element("h3", {}, set.name), element("div", {class: "gallery"}, ...data.pictures[set.name].map((row) => element("button", {
      type: "button", "data-picture": row.name, onclick: () => openPicture(set.name, row.name)},
      row.picture ? element("img", {src: row.picture, alt: "", loading: "lazy"}) : element("div", {class: "absent"}, "cannot be read"),
      element("b", {}, row.name), element("span", {class: "soft"}, reason(row)))))));
  byId("pictures").replaceChildren(...blocks);
  byId("pictures-section").hidden = !Object.values(data.pictures).some((rows) => rows.length);
}

function openPicture(dataset, name) {
  const row = data.pictures[dataset].find((one) => one.name === name);
  if (!row) return;
  state.picture = {dataset, name};
  byId("viewer-title").textContent = `${dataset}: ${name}`;
  byId("viewer-why").textContent = reason(row);
  const methods = sorted(data.methods.filter((method) => !method.published && matches(method.name) && row.maps[method.name]));
  const key = metricOf[row.key] ? row.key : "mae";
  const figures = methods.map((method) => row.maps[method.name].scores[key]).filter((value) => value !== null && value !== undefined);
  const lead = figures.length > 1 ? (metricOf[key].lower ? Math.min(...figures) : Math.max(...figures)) : null;
  const panel = (src, absent, label, scores, leader) => element("figure", {class: leader ? "leader" : null},
    src ? element("img", {src, alt: `${label} of ${name}`}) : element("div", {class: "absent"}, absent),
    element("figcaption", {}, element("b", {}, label), ...(scores ? [element("span", {}, scores)] : [])));
  byId("viewer-maps").replaceChildren(panel(row.picture, "cannot be read", "Picture"), panel(row.mask, "cannot be read", "Mask"),
    ...methods.map((method) => {
      const one = row.maps[method.name];
      const scores = Object.entries(one.scores).filter(([score, value]) => value !== null && metricOf[score])
        .map(([score, value]) => `${metricOf[score].label} ${text(metricOf[score], value)}`.replace(/ /g, "\u00a0")).join(" · ");
      return panel(one.src, one.why || "no map", method.name, scores, lead !== null && one.scores[key] === lead);
    }));
  if (!byId("viewer").open) byId("viewer").showModal();
  writeState();
}

function step(by) {
  if (!state.picture) return;
  const rows = data.pictures[state.picture.dataset];
  const index = rows.findIndex((row) => row.name === state.picture.name);
  openPicture(state.picture.dataset, rows[(index + by + rows.length) % rows.length].name);
}

// ---- controls ------------------------------------------------------------------------------------------------------
function checkbox(label, title, checked, change) {
  const input = element("input", {type: "checkbox", onchange: () => change(input.checked)});
  input.checked = checked;
  return element("label", {title}, input, " " + label);
}

function drawControls() {
  byId("filter").value = state.filter;
  if (byId("published")) byId("published").checked = state.published;
  const flip = (set, key, on) => { on ? set.add(key) : set.delete(key); drawAll(); writeState(); };
  byId("sets").replaceChildren(byId("sets").firstElementChild, ...data.datasets.map((set) =>
    checkbox(set.name, `${set.images} pictures`, !state.hidden.has(set.name), (on) => flip(state.hidden, set.name, !on))));
  byId("columns").replaceChildren(byId("columns").firstElementChild, ...data.metrics.map((metric) =>
    checkbox(metric.label, metric.title, state.columns.has(metric.key), (on) => flip(state.columns, metric.key, on))));
}

function drawAll() { drawTable(); drawCurves(); drawPictures(); }

function start() {
  readState();
  drawControls();
  drawAll();
  if (state.picture) openPicture(state.picture.dataset, state.picture.name);
  else if (byId("viewer").open) byId("viewer").close();
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("input", () => { state.filter = byId("filter").value; drawTable(); drawCurves(); writeState(); });
if (byId("published")) byId("published").addEventListener("change", () => { state.published = byId("published").checked; drawTable(); writeState(); });
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => byId("viewer").close());
byId("viewer").addEventListener("close", () => { state.picture = null; writeState(); });
byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
byId("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
window.addEventListener("hashchange", start);
start();
document.documentElement.dataset.ready = "true";
