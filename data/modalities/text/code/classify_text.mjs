// Classify texts with an edge model in Node: onnxruntime-node and @huggingface/tokenizers are all
// it needs.
//
//     npm install onnxruntime-node @huggingface/tokenizers
//     node classify_text.mjs edge.onnx text.txt [text.txt ...]
//
// NAME.labels.json and NAME.tokenizer.json must lie beside the model, and tokens.mjs beside this
// file. Prints a line for each file: its name, the class, and the probability. Copy both files into
// your own program.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import ort from "onnxruntime-node";
import { inputs, textOf, Tokens } from "./tokens.mjs";

export class EdgeModel {
  static async load(path) {
    const json = async (end) => JSON.parse(await readFile(path.replace(/\.onnx$/, end), "utf8"));
    const [labels, tokenizer] = [await json(".labels.json"), await json(".tokenizer.json")];
    if (!labels.text) throw new Error("it is not a model for texts");
    const tokens = new Tokens(Tokenizer, tokenizer, labels.text);
    return new EdgeModel(await ort.InferenceSession.create(path), labels, tokens);
  }

  constructor(session, labels, tokens) {
    this.session = session;
    this.labels = labels;
    this.tokens = tokens;
  }

  async read(path) {
    return textOf(await readFile(path));
  }

  // The class of a text (null for "unknown"), and the probability of every class.
  async classify(text) {
    const { label, probabilities } = await this.session.run(inputs(ort, this.tokens.encode(text)));
    const index = Number(label.data[0]);
    return { name: this.labels.classes[index] ?? null, probabilities: [...probabilities.data] };
  }
}

async function main([path, ...files]) {
  if (!files.length) {
    console.error("usage: node classify_text.mjs edge.onnx text.txt [text.txt ...]");
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
  for (const file of files) {
    try {
      const { name, probabilities } = await model.classify(await model.read(file));
      console.log(`${file}  ${name ?? "unknown"}  ${Math.max(...probabilities).toFixed(3)}`);
    } catch (error) {
      console.error(`${file} cannot be read: ${error.message}`);
      failed += 1;
    }
  }
  return failed ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.argv.slice(2));
}
