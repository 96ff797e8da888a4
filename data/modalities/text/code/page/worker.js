// Holds the model: tokenizes a text, runs the graph, answers. The page stays free meanwhile.

import * as ort from "./ort/ort.js";
import { Tokenizer } from "./ort/tokenizers.js";
import { inputs, textOf, Tokens } from "./tokens.mjs";

let session;
let tokens;

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be fetched: ${response.status} ${response.statusText}`);
  return response;
}

async function fetchWhole(path, bytes, advance) {
  const response = await fetched(path);
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

async function load({ model, runtime, text }) {
  let done = 0;
  const advance = (count) => {
    done += count;
    postMessage({ kind: "progress", share: done / (model.bytes + runtime.bytes) });
  };
  const [graph, wasm, json] = await Promise.all([
    fetchWhole(model.path, model.bytes, advance),
    fetchWhole(runtime.path, runtime.bytes, advance),
    fetched("edge.tokenizer.json").then((response) => response.json()),
  ]);
  tokens = new Tokens(Tokenizer, json, text);
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  postMessage({ kind: "ready" });
}

async function read(file) {
  try {
    return textOf(new Uint8Array(await file.arrayBuffer()));
  } catch {
    throw new Error("it is not a text in UTF-8; save it as one, and choose that");
  }
}

async function classify(source) {
  if (!session) throw new Error("the classifier could not be started; load the page again");
  const text = typeof source === "string" ? source : await read(source);
  const start = performance.now();
  const ids = tokens.encode(text);
  const { label, probabilities } = await session.run(inputs(ort, ids), ["label", "probabilities"]);
  const special = tokens.rule.prefix.length + tokens.rule.suffix.length;
  return {
    label: Number(label.data[0]),
    probabilities: Array.from(probabilities.data),
    text,
    tokens: tokens.all(text).length + special,
    used: ids.length,
    took: performance.now() - start,
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

let queue = Promise.resolve(); // one at a time: texts wait until the model is there
addEventListener("message", ({ data }) => {
  queue = queue.then(() => handle(data));
});
