// What makes the pictures of page.js: the network itself, run by onnxruntime-web in this browser.

export const where = "It stays in your browser: nothing is sent anywhere.";
export const kinds = ["mask", "cutout"];
const LARGEST = 1024; // the network itself sees a few hundred pixels a side
const known = fetch("about.json").then((answer) => answer.json());
const masks = new WeakMap(); // file → its mask
let loaded = null;

export const about = () => known;

// A photograph (File) → {blob, facts}.
export async function make(kind, file, signal, tell) {
  if (!loaded) {
    tell("Loading the network …");
    loaded = load();
    loaded.catch(() => { loaded = null; });
  }
  const run = await loaded;
  signal.throwIfAborted();
  if (!masks.has(file)) {
    tell("Looking at it …");
    masks.set(file, looked(run, file));
    masks.get(file).catch(() => masks.delete(file));
  }
  const { image, mask, facts } = await masks.get(file);
  signal.throwIfAborted();
  const full = drawn(mask, image.width, image.height);
  if (kind === "mask") return { blob: await encoded(full.canvas), facts };
  const cut = drawn(image, image.width, image.height), alpha = full.getImageData(0, 0, image.width, image.height).data;
  const pixels = cut.getImageData(0, 0, image.width, image.height);
  for (let i = 3; i < alpha.length; i += 4) pixels.data[i] = (pixels.data[i] * alpha[i - 3] + 127) / 255;
  cut.putImageData(pixels, 0, 0);
  return { blob: await encoded(cut.canvas), facts };
}

// A function of pixels, and what it runs on.
async function load() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter && !adapter.info?.isFallbackAdapter) { // one in software is slower than the processor without it
    try {
      return await session(await import("./ort.webgpu.min.mjs"), "webgpu");
    } catch (error) {
      console.info(`WebGPU cannot run it (${error.message}): the processor does.`);
    }
  }
  return session(await import("./ort.wasm.min.mjs"), "wasm");
}

async function session(ort, provider) {
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  if (provider === "wasm") ort.env.wasm.proxy = true; // in a worker: the page stays awake
  const network = await ort.InferenceSession.create("model.onnx", { executionProviders: [provider], logSeverityLevel: 3 });
  const run = async (data, height, width) =>
    (await network.run({ images: new ort.Tensor("uint8", data, [1, height, width, 3]) })).maps.getData();
  await run(new Uint8Array(3 * 64 * 64), 64, 64); // what it cannot do shows here
  return { run, provider };
}

async function looked({ run, provider }, file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error("your browser cannot read this file as a picture");
  }
  const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
  const width = Math.max(1, Math.round(image.width * scale)), height = Math.max(1, Math.round(image.height * scale));
  const small = drawn(image, width, height, "#fff"), pixels = small.getImageData(0, 0, width, height);
  const colours = new Uint8Array(3 * width * height);
  for (let i = 0, j = 0; i < pixels.data.length; i += 4) {
    colours[j++] = pixels.data[i];
    colours[j++] = pixels.data[i + 1];
    colours[j++] = pixels.data[i + 2];
  }
  const begun = performance.now(), map = await run(colours, height, width), { steps } = await known;
  const facts = steps ? { steps, fixed: true, seconds: (performance.now() - begun) / 1000 } : null;
  for (let i = 0; i < map.length; i++) {
    pixels.data.fill(Math.round(255 * map[i]), 4 * i, 4 * i + 3);
    pixels.data[4 * i + 3] = 255;
  }
  small.putImageData(pixels, 0, 0);
  document.documentElement.dataset.provider = provider;
  return { image, mask: small.canvas, facts };
}

function drawn(what, width, height, fill) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (fill) {
    context.fillStyle = fill; // transparency is laid on white
    context.fillRect(0, 0, width, height);
  }
  context.imageSmoothingQuality = "high";
  context.drawImage(what, 0, 0, width, height);
  return context;
}

const encoded = (canvas) => new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("it is too large"))), "image/png"));
