// Holds the model: decodes a photograph, runs the graph, answers. The page stays free meanwhile. What
// the page has opened itself is classified by a script that site.json names.

import * as ort from "./ort/ort.js";

const MOST_PIXELS = 16e6; // above that a photograph is scaled down first: canvases of telephones end

let session;
let site;
let other;

async function fetchWhole(path, bytes, advance) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be fetched: ${response.status} ${response.statusText}`);
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw new Error(`${path} is longer than ${bytes} bytes`);
    whole.set(value, at);
    at += value.length;
    advance(value.length);
  }
  if (at !== bytes) throw new Error(`${path} ended after ${at} of ${bytes} bytes`);
  return whole;
}

async function load(given) {
  site = given;
  const { model, runtime } = site;
  if (site.scripts) other = await import(`./${site.scripts.worker}`);
  let done = 0;
  const advance = (count) => {
    done += count;
    postMessage({ kind: "progress", share: done / (model.bytes + runtime.bytes) });
  };
  const [graph, wasm] = await Promise.all([
    fetchWhole(model.path, model.bytes, advance),
    fetchWhole(runtime.path, runtime.bytes, advance),
  ]);
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  postMessage({ kind: "ready" });
}

// Upright, on white, in sRGB: uint8 of height x width x 3.
async function pixels(source) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source);
  } catch {
    throw new Error("this browser cannot open it as a photograph; save it as JPEG or PNG, and choose that");
  }
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const given = [bitmap.width, bitmap.height];
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return { rgb, width, height, given };
}

async function run(samples) {
  const waveform = new ort.Tensor("float32", samples, [1, samples.length]);
  return (await session.run({ waveform }, ["probabilities"])).probabilities.data;
}

async function classify(source) {
  if (!session) throw new Error("the classifier could not be started; load the page again");
  const start = performance.now();
  if (other) {
    const answer = await other.classify(source, site.sound, site.threshold, run);
    const seconds = source.samples.length / source.rate;
    return { ...answer, seconds, running: performance.now() - start };
  }
  const { rgb, width, height, given } = await pixels(source);
  const decoded = performance.now();
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const { label, probabilities } = await session.run({ image }, ["label", "probabilities"]);
  const finished = performance.now();
  return {
    label: Number(label.data[0]),
    probabilities: Array.from(probabilities.data),
    given,
    used: [width, height],
    decoding: decoded - start,
    running: finished - decoded,
  };
}

async function handle(data) {
  try {
    if (data.kind === "load") await load(data.site);
    else postMessage({ kind: "answer", id: data.id, ...(await classify(data.source)) });
  } catch (error) {
    postMessage({ kind: "failed", id: data.id, message: error.message });
  }
}

let queue = Promise.resolve(); // one at a time: photographs wait until the model is there
addEventListener("message", ({ data }) => {
  queue = queue.then(() => handle(data));
});
