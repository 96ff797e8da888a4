// Classify recordings with an edge model in Node: onnxruntime-node is all it needs.
//
//     npm install onnxruntime-node
//     node classify_sound.mjs edge.onnx recording.wav [recording.wav ...]
//
// NAME.labels.json must lie beside the model, and sound.mjs beside this file. Reads WAV. Prints a
// line for each recording: its name, the class, and the probability. Copy both into your own program.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import ort from "onnxruntime-node";
import { classify, readWav } from "./sound.mjs";

export class EdgeModel {
  static async load(path) {
    const labels = JSON.parse(await readFile(path.replace(/\.onnx$/, ".labels.json"), "utf8"));
    if (!labels.sound) throw new Error("it is not for recordings");
    return new EdgeModel(await ort.InferenceSession.create(path), labels);
  }

  constructor(session, labels) {
    this.session = session;
    this.labels = labels;
  }

  // A recording, mono: { samples: Float32Array, rate }.
  async read(path) {
    const { buffer, byteOffset, byteLength } = await readFile(path);
    return readWav(buffer.slice(byteOffset, byteOffset + byteLength));
  }

  // The class of a recording (null for "unknown"), and the probability of every class.
  async classify(recording) {
    const { sound, threshold, classes } = this.labels;
    const run = async (samples) => {
      const waveform = new ort.Tensor("float32", samples, [1, samples.length]);
      return (await this.session.run({ waveform }, ["probabilities"])).probabilities.data;
    };
    const { label, probabilities } = await classify(recording, sound, threshold, run);
    return { name: classes[label] ?? null, probabilities };
  }
}

async function main([path, ...recordings]) {
  if (!recordings.length) {
    console.error("usage: node classify_sound.mjs edge.onnx recording.wav [recording.wav ...]");
    return 1;
  }
  let model;
  try {
    model = await EdgeModel.load(path);
  } catch (error) {
    console.error(`${path} cannot be used: ${error.message}`);
    return 1;
  }
  let failed = 0;
  for (const recording of recordings) {
    try {
      const { name, probabilities } = await model.classify(await model.read(recording));
      console.log(`${recording}  ${name ?? "unknown"}  ${Math.max(...probabilities).toFixed(3)}`);
    } catch (error) {
      console.error(`${recording} cannot be read: ${error.message}`);
      failed += 1;
    }
  }
  return failed ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.argv.slice(2));
}
