// The tokens of a text, as training makes them: Hugging Face's tokenizers for JavaScript, and the
// rule in NAME.labels.json. Runs in Node and in a browser.

const MARKS = [ // byte order marks
  [[0xef, 0xbb, 0xbf], "utf-8"],
  [[0xff, 0xfe], "utf-16le"],
  [[0xfe, 0xff], "utf-16be"],
];

// The text in a file's bytes: UTF-8, or what a byte order mark says.
export function textOf(bytes) {
  const [, encoding] = MARKS.find(([mark]) => mark.every((byte, at) => bytes[at] === byte)) ?? [null, "utf-8"];
  return new TextDecoder(encoding, { fatal: true }).decode(bytes);
}

export class Tokens {
  // Tokenizer: the class of the package @huggingface/tokenizers; json: the content of
  // NAME.tokenizer.json; rule: `text` of NAME.labels.json.
  constructor(Tokenizer, json, rule) {
    this.tokenizer = new Tokenizer(json, {});
    this.rule = rule;
    // Training lowers each letter by itself; JavaScript would write a final sigma as another one.
    this.lowers = /"lowercase":true|"type":"Lowercase"/.test(JSON.stringify(json.normalizer));
  }

  // All tokens, neither cut nor with special ones.
  all(text) {
    const given = this.lowers ? text.replaceAll("\u03a3", "\u03c3") : text;
    return this.tokenizer.encode(given, { add_special_tokens: false }).ids;
  }

  // The tokens that the model takes.
  encode(text) {
    const { tokens, prefix, suffix, unknown } = this.rule;
    const ids = this.all(text).slice(0, tokens - prefix.length - suffix.length);
    if (!ids.length) throw new Error("there is no text in it");
    if (unknown !== null && ids.every((id) => id === unknown)) throw new Error("none of its words is known");
    return [...prefix, ...ids, ...suffix];
  }
}

// What the model takes for one text; `ort` is onnxruntime-node or onnxruntime-web.
export function inputs(ort, ids) {
  const tensor = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
  return { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) };
}
