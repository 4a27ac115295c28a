// The page: a photograph comes in, engine.js makes pictures of it, and they are shown and saved.

import { about, kinds, make, where } from "./engine.js";

const byId = (id) => document.getElementById(id);
const EXPLAINED = {
  cutout: "What stands out, without what is around it.",
  mask: "White is what stands out, black is the rest, grey is where it is not sure.",
  edges: "Where what stands out begins and ends.",
  original: "The photograph as you gave it.",
};
const WORKING = { mask: "Looking at it …", cutout: "Cutting it out …", edges: "Drawing its edges …", blur: "Blurring what is behind it …" };
let work = null; // of the photograph that is on the page

const checked = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const colour = () => (checked("background") === "own" ? byId("colour").value : checked("background"));

function wanted() {
  const view = checked("view");
  return view === "cutout" && colour() === "blur" ? "blur" : view;
}

function say(text) {
  byId("status-text").textContent = text;
  byId("status").hidden = !text;
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

function begin(file) {
  work?.stop.abort();
  if (work) for (const url of work.urls.values()) URL.revokeObjectURL(url);
  complain("");
  work = { file, stop: new AbortController(), made: new Map(), urls: new Map(), name: file.name.replace(/\.\w+$/, "") || "photograph" };
  work.made.set("original", Promise.resolve({ blob: file }));
  byId("again").focus({ preventScroll: true });
  document.querySelector("input[name=view][value=cutout]").checked = true;
  byId("facts").textContent = "";
  byId("solve").hidden = true;
  show(true);
}

// What is made of the photograph, once.
function picture(kind) {
  const own = work;
  if (!own.made.has(kind)) {
    say(WORKING[kind]);
    const made = make(kind, own.file, own.stop.signal, (text) => own === work && say(text));
    made.catch(() => own.made.delete(kind)); // so that it can be asked for again
    own.made.set(kind, made);
  }
  return own.made.get(kind);
}

async function shown(kind) {
  const own = work;
  const { blob, facts } = await picture(kind);
  if (facts) tell(facts);
  if (!own.urls.has(kind)) own.urls.set(kind, URL.createObjectURL(blob));
  const image = new Image();
  image.src = own.urls.get(kind);
  await image.decode();
  return image.src;
}

async function show(fresh = false) {
  const own = work, kind = wanted(), view = checked("view");
  const current = () => own === work && kind === wanted();
  byId("backgrounds").hidden = view !== "cutout";
  byId("explained").textContent = EXPLAINED[view];
  byId("download").textContent = `Download ${{ cutout: "cut-out", mask: "mask", edges: "edges", original: "original" }[view]}`;
  byId("download").disabled = true;
  try {
    if (fresh) { // the mask is there long before the cut-out
      const source = await shown("mask");
      if (!current()) return;
      reveal(source, "mask");
    }
    const source = await shown(kind);
    if (!current()) return;
    reveal(source, kind);
    byId("download").disabled = false;
    say("");
    complain("");
  } catch (error) {
    if (!current() || error.name === "AbortError") return;
    say("");
    const unseen = kind === "original" ? "Your browser cannot show this kind of file; the other pictures are made of it all the same." : "";
    complain(unseen || `That did not work: ${error.message || error}.`);
    if (fresh) home();
  }
}

function reveal(source, kind) {
  byId("shown").src = source;
  byId("shown").alt = `${{ cutout: "The cut-out", blur: "What stands out before a blurred background", mask: "The mask", edges: "The edges", original: "The photograph" }[kind]}`;
  const behind = kind === "cutout" ? colour() : "none";
  byId("stage").dataset.behind = behind;
  byId("shown").style.background = behind.startsWith("#") ? behind : "";
  byId("drop").hidden = true;
  byId("result").hidden = false;
}

function home() {
  byId("drop").hidden = false;
  byId("result").hidden = true;
  byId("file").value = "";
}

function tell({ steps, residual, converged, fixed, seconds }) {
  const once = steps === 1 ? "once (the solver's one step)" : `${steps} times (the solver's steps)`;
  const more = fixed
    ? "It takes as many here every time."
    : `One more would change it by ${(100 * residual).toPrecision(2)}\u00a0% (the residual), ` +
      (converged ? "little enough to stop." : "and it is allowed no more.");
  const took = seconds === undefined ? "" : ` It took ${seconds.toFixed(1)}\u00a0s.`;
  byId("facts").textContent = `The network improved its own answer ${once}. ${more}${took}`;
  byId("solve").hidden = false;
}

async function laidOn(blob, fill) {
  const image = await createImageBitmap(blob);
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.fillStyle = fill;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function download() {
  const kind = wanted(), view = checked("view"), own = work;
  let { blob } = await picture(kind);
  if (kind === "cutout" && colour().startsWith("#")) blob = await laidOn(blob, colour());
  const name = view === "original" ? own.file.name : `${own.name}-${view}.png`;
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/") || !one.type);
  if (file) begin(file);
  else if (files.length) complain("That is no picture. Photographs are JPEG, PNG or WebP files.");
}

byId("file").addEventListener("change", (event) => take(event.target.files));
byId("again").addEventListener("click", () => byId("file").click());
byId("download").addEventListener("click", () => download().catch((error) => complain(`That did not work: ${error.message}.`)));
byId("views").addEventListener("change", () => show());
byId("backgrounds").addEventListener("change", () => show());
byId("colour").addEventListener("input", () => { byId("own").checked = true; show(); });
byId("colour").addEventListener("click", () => { byId("own").checked = true; show(); });
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); take(event.dataTransfer.files); });

byId("where").textContent = where;
for (const label of document.querySelectorAll("input[name=view]"))
  if (![...kinds, "original"].includes(label.value)) label.closest("label").remove();
if (!kinds.includes("blur")) byId("blurred").remove();
about().then(({ network, data, licence }) => {
  byId("network").textContent = data ? `The network (${network}) was trained on ${data}.` : "The network is one of this server's own.";
  byId("licence").textContent = licence ? `Licence: ${licence}` : "Nothing is said of the licence of the data that it was trained on.";
}).catch(() => {}).finally(() => { document.documentElement.dataset.ready = "true"; });
