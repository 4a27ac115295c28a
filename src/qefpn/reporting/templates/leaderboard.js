"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const metricOf = Object.fromEntries(data.metrics.map((metric) => [metric.key, metric]));

// What is shown; `readState` fills it from the address, `writeState` puts it back.
const state = {sort: null, direction: null, filter: "", hidden: new Set(), columns: new Set(), published: true, pinned: "", picture: null};

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
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
const board = byId("board");
const nameHead = board.querySelector("th[data-name]");
const groups = [...board.querySelectorAll("th.set")];
const heads = [...board.querySelectorAll("th[data-key]")];
const headRow = heads.length ? heads[0].parentNode : null;
const rows = [...board.tBodies[0].rows].map((node) => ({node, name: node.dataset.method,
  published: node.classList.contains("published"), head: node.cells[0], cells: [...node.cells].slice(1)}));

const shows = (head) => !state.hidden.has(head.dataset.set) && state.columns.has(head.dataset.key);
const matches = (name) => name.toLowerCase().includes(state.filter.trim().toLowerCase());
const competitors = () => rows.filter((row) => !row.published || state.published);
const cellOf = (row, sort) => row.cells[heads.findIndex((one) => one.dataset.set === sort.dataset && one.dataset.key === sort.key)];

/** Methods whose figure is of fewer pictures stand below all others, and those without one last. */
function sorted(methods) {
  const sign = state.direction === "descending" ? -1 : 1;
  const byName = (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true});
  if (state.sort.name) return [...methods].sort((a, b) => sign * byName(a, b));
  const keyed = methods.map((row) => {
    const cell = cellOf(row, state.sort);
    const value = cell && "sort" in cell.dataset ? Number(cell.dataset.sort) : null;
    return {row, value, group: value === null ? 2 : "partial" in cell.dataset ? 1 : 0};
  });
  keyed.sort((a, b) => a.group - b.group || (a.group < 2 ? sign * (a.value - b.value) : 0) || byName(a.row, b.row));
  return keyed.map((one) => one.row);
}

// ---- the table -----------------------------------------------------------------------------------------------------
const isSort = (head) => (head === nameHead ? Boolean(state.sort.name)
  : state.sort.dataset === head.dataset.set && state.sort.key === head.dataset.key);

function sortBy(head) {
  const sort = head === nameHead ? {name: true} : {dataset: head.dataset.set, key: head.dataset.key};
  state.direction = isSort(head) ? (state.direction === "ascending" ? "descending" : "ascending") : best(sort);
  state.sort = sort;
  drawTable();
  writeState();
}
[nameHead, ...heads].forEach((head) => head.firstElementChild.addEventListener("click", () => sortBy(head)));

function drawTable() {
  const visible = heads.map(shows);
  const starts = heads.map((head, i) => visible[i] && heads.findIndex((one, k) => visible[k] && one.dataset.set === head.dataset.set) === i);
  [nameHead, ...heads].forEach((head) => head.setAttribute("aria-sort", isSort(head) ? state.direction : "none"));
  heads.forEach((head, i) => head.classList.toggle("start", starts[i]));
  const counts = groups.map((group) => heads.filter((head, i) => visible[i] && head.dataset.set === group.dataset.set).length);
  groups.forEach((group, i) => { group.colSpan = Math.max(1, counts[i]); });
  nameHead.parentNode.replaceChildren(nameHead, ...groups.filter((_, i) => counts[i]));
  if (headRow) headRow.replaceChildren(...heads.filter((_, i) => visible[i]));
  const shown = sorted(competitors().filter((row) => matches(row.name)));
  for (const row of shown) {
    row.cells.forEach((cell, i) => {
      const rank = state.published ? cell.dataset.rank : cell.dataset.alone;
      cell.className = [rank ? "rank" + rank : "", starts[i] ? "start" : ""].join(" ").trim();
      cell.title = rank ? ["best", "second", "third"][rank - 1] : "";
    });
    row.head.querySelectorAll("[data-set]").forEach((node) => { node.hidden = state.hidden.has(node.dataset.set); });
    row.node.replaceChildren(row.head, ...row.cells.filter((_, i) => visible[i]));
  }
  board.tBodies[0].replaceChildren(...shown.map((row) => row.node));
  document.querySelectorAll(".paper").forEach((node) => { node.hidden = !state.published; });
  const total = competitors().length;
  byId("count").textContent = shown.length === total ? `${total} methods` : `${shown.length} of ${total} methods`;
  highlight("");
}

for (const row of rows.filter((one) => !one.published)) {
  row.node.addEventListener("mouseenter", () => highlight(row.name));
  row.node.addEventListener("mouseleave", () => highlight(""));
}

// ---- curves --------------------------------------------------------------------------------------------------------
const lines = [...document.querySelectorAll("#curves .line")];
const names = [...document.querySelectorAll("#legend button")];

function showCurves() {
  [...lines, ...names.map((one) => one.parentNode)].forEach((node) => {
    const method = (node.dataset.method === undefined ? node.firstElementChild : node).dataset.method;
    node.toggleAttribute("hidden", !matches(method));
  });
  document.querySelectorAll("#curves > [data-set]").forEach((node) => { node.hidden = state.hidden.has(node.dataset.set); });
  byId("curves-section").hidden = !lines.length;
  highlight("");
}

/** Marks a method in the table, the legend and all curves; "" falls back to the one that was clicked. */
function highlight(name) {
  const current = name || state.pinned;
  byId("curves").classList.toggle("dimmed", data.methods.includes(current) && matches(current));
  document.querySelectorAll("[data-method]").forEach((node) => {
    node.classList.toggle("on", node.dataset.method === current && !node.classList.contains("published"));
    if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", String(node.dataset.method === state.pinned));
  });
}

for (const button of names) {
  const name = button.dataset.method;
  for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => highlight(name));
  for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => highlight(""));
  button.addEventListener("click", () => { state.pinned = state.pinned === name ? "" : name; highlight(state.pinned); writeState(); });
}

/** The nearest point of a chart's lines to the pointer, and its figures beside it. */
function point(svg) {
  const [x0, x1, left, right] = svg.dataset.x.split(" ").map(Number), [y0, y1, low, high] = svg.dataset.y.split(" ").map(Number);
  const labels = svg.dataset.labels.split(" "), tip = byId("tip");
  const points = [...svg.querySelectorAll(".line")].flatMap((line) => {
    const found = line.querySelector("path").getAttribute("d").match(/-?[\d.]+/g).map(Number);
    return found.flatMap((x, i) => (i % 2 ? [] : [{line, x, y: found[i + 1]}]));
  });
  const leave = () => { tip.hidden = true; highlight(""); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let nearest = null, least = 20 ** 2;
    for (const one of points) {
      const distance = (one.x - x) ** 2 + (one.y - y) ** 2;
      if (distance < least && one.y < y0 + 1 && one.x > x0 - 1 && !one.line.hasAttribute("hidden")) { least = distance; nearest = one; }
    }
    if (!nearest) return leave();
    highlight(nearest.line.dataset.method);
    const a = left + (nearest.x - x0) / (x1 - x0) * (right - left), b = low + (nearest.y - y0) / (y1 - y0) * (high - low);
    const first = right > 1 ? String(Math.round(a)) : a.toFixed(3);
    tip.replaceChildren(element("b", {}, nearest.line.dataset.method), `${labels[0]} ${first}, ${labels[1]} ${b.toFixed(3)}`);
    tip.hidden = false;
    const beyond = event.clientX > window.innerWidth / 2;
    tip.style.left = `${event.clientX + (beyond ? -12 - tip.offsetWidth : 12)}px`;
    tip.style.top = `${event.clientY + 12}px`;
  });
}
document.querySelectorAll("#curves svg").forEach(point);

// ---- pictures ------------------------------------------------------------------------------------------------------
const WHY = {differ: "methods differ by", worst: "among the worst, mean", best: "among the best, mean", between: "between, mean"};
function reason(row) {
  const metric = metricOf[row.key] || {label: row.key, digits: 3};
  return `${WHY[row.why]} ${(row.why === "differ" ? row.spread : row.mean).toFixed(2)} ${metric.label}`;
}

function drawPictures() {
  const blocks = data.datasets.filter((set) => !state.hidden.has(set.name) && data.pictures[set.name].length).map((set) => element("div", {},
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
  const methods = sorted(rows.filter((method) => !method.published && matches(method.name) && row.maps[method.name]));
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

function drawAll() { drawTable(); showCurves(); drawPictures(); }

function start() {
  readState();
  drawControls();
  drawAll();
  if (state.picture) openPicture(state.picture.dataset, state.picture.name);
  else if (byId("viewer").open) byId("viewer").close();
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("input", () => { state.filter = byId("filter").value; drawTable(); showCurves(); writeState(); });
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
