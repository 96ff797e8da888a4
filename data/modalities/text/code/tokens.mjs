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

// SentencePiece's table of replacements (`precompiled_charsmap`), as the package tokenizers for
// Python reads it: a double array in base64, then what stands for each key, ended by 0. The one for
// JavaScript does without the table, and differs by joiners, variants and control characters.
class Charsmap {
  constructor(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const size = new DataView(bytes.buffer).getUint32(0, true);
    this.units = new Uint32Array(bytes.slice(4, 4 + size).buffer);
    this.values = bytes.subarray(4 + size);
    this.known = new Map();
    this.graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
  }

  // What stands for the first bytes of a text that are in the table.
  find(bytes) {
    const next = (unit) => (unit >>> 10) << ((unit & 512) >>> 6);
    let at = next(this.units[0]);
    for (const byte of bytes) {
      at ^= byte;
      const unit = this.units[at];
      if (byte === 0 || (unit & 0x800000ff) !== byte) return undefined;
      at ^= next(unit);
      if (unit & 256) {
        const start = this.units[at] & 0x7fffffff;
        return new TextDecoder().decode(this.values.subarray(start, this.values.indexOf(0, start)));
      }
    }
    return undefined;
  }

  replaced(text) {
    if (!this.known.has(text)) this.known.set(text, this.find(new TextEncoder().encode(text)));
    return this.known.get(text);
  }

  normalize(text) {
    let made = "";
    for (const { segment } of this.graphemes.segment(text)) {
      const short = new TextEncoder().encode(segment).length < 6;
      const whole = short ? this.replaced(segment) : undefined;
      made += whole ?? Array.from(segment, (letter) => this.replaced(letter) ?? letter).join("");
    }
    return made;
  }
}

function useCharsmaps(rule, normalizer) {
  if (rule?.type === "Sequence") rule.normalizers.forEach((each, at) => useCharsmaps(each, normalizer.normalizers[at]));
  if (rule?.type !== "Precompiled" || !rule.precompiled_charsmap) return;
  const charsmap = new Charsmap(rule.precompiled_charsmap);
  normalizer.normalize = (text) => charsmap.normalize(text);
}

export class Tokens {
  // Tokenizer: the class of the package @huggingface/tokenizers; json: the content of
  // NAME.tokenizer.json; rule: `text` of NAME.labels.json.
  constructor(Tokenizer, json, rule) {
    this.tokenizer = new Tokenizer(json, {});
    useCharsmaps(json.normalizer, this.tokenizer.normalizer);
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
