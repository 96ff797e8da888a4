// node heads.mjs embeddings.f32 dim head.onnx ...: a line of JSON for each, by onnxruntime-web.
import { readFileSync } from "node:fs";
import ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const [embeddings, dim, ...heads] = process.argv.slice(2);
const bytes = readFileSync(embeddings);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const embedding = new ort.Tensor("float32", values, [values.length / Number(dim), Number(dim)]);
for (const head of heads) {
  const session = await ort.InferenceSession.create(readFileSync(head), { executionProviders: ["wasm"] });
  const { label, probabilities } = await session.run({ embedding }, ["label", "probabilities"]);
  console.log(JSON.stringify({ labels: [...label.data].map(Number), probabilities: [...probabilities.data] }));
}
