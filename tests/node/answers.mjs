// node answers.mjs classify_photo.mjs edge.onnx < list of files: a line of JSON for each.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [code, path] = process.argv.slice(2);
const { EdgeModel } = await import(pathToFileURL(code));
const model = await EdgeModel.load(path);
for (const file of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const { name, probabilities } = await model.classify(await model.read(file));
  console.log(JSON.stringify({ label: model.labels.classes.indexOf(name), probabilities }));
}
