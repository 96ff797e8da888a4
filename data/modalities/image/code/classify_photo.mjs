// Classify photographs with an edge model in Node: onnxruntime-node and sharp are all it needs.
//
//     npm install onnxruntime-node sharp
//     node classify_photo.mjs edge.onnx photo.jpg [photo.jpg ...]
//
// The model must take photographs of any size (`python -m export classifier ... --any-size`), and
// NAME.labels.json must lie beside it. Prints a line for each photograph: its name, the class, and
// the probability. Copy this file into your own program.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import ort from "onnxruntime-node";
import sharp from "sharp";

export class EdgeModel {
  static async load(path) {
    const labels = JSON.parse(await readFile(path.replace(/\.onnx$/, ".labels.json"), "utf8"));
    if (!labels.image.any_size) {
      throw new Error("it was exported without --any-size, and resizes nothing by itself");
    }
    return new EdgeModel(await ort.InferenceSession.create(path), labels);
  }

  constructor(session, labels) {
    this.session = session;
    this.labels = labels;
  }

  // A photograph upright, on white, in sRGB: { data: uint8 of height x width x 3, height, width }.
  async read(path) {
    const { data, info } = await sharp(path)
      .rotate() // by EXIF
      .flatten({ background: "white" })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    return { data, height: info.height, width: info.width };
  }

  // The class of a photograph (null for "unknown"), and the probability of every class.
  async classify(photo) {
    const shape = [1, photo.height, photo.width, 3];
    const image = new ort.Tensor("uint8", new Uint8Array(photo.data), shape);
    const { label, probabilities } = await this.session.run({ image });
    const index = Number(label.data[0]);
    return { name: this.labels.classes[index] ?? null, probabilities: [...probabilities.data] };
  }
}

async function main([path, ...photos]) {
  if (!photos.length) {
    console.error("usage: node classify_photo.mjs edge.onnx photo.jpg [photo.jpg ...]");
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
  for (const photo of photos) {
    try {
      const { name, probabilities } = await model.classify(await model.read(photo));
      console.log(`${photo}  ${name ?? "unknown"}  ${Math.max(...probabilities).toFixed(3)}`);
    } catch (error) {
      console.error(`${photo} cannot be read: ${error.message}`);
      failed += 1;
    }
  }
  return failed ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.argv.slice(2));
}
