// Recordings as the edge model takes them, in Node and in a browser: WAV, resampling, windows.
//
// `about` is the entry `sound` of NAME.labels.json. Everything is as in training, but for soxr,
// which resamples there: `resample` has soxr's pass band, and its samples differ by about 1e-4.

const PASS = 0.91363; // of the lower Nyquist frequency: what stays (soxr's HQ); above 1 nothing does
const ATTENUATION = 132; // decibels
const BETA = 0.1102 * (ATTENUATION - 8.7); // of Kaiser's window
const MOST_PHASES = 2000; // whose weights are kept

// A WAV file's samples, mono: { samples: Float32Array, rate }. PCM of 8 to 32 bits, float of 32 or 64.
export function readWav(buffer) {
  const view = new DataView(buffer);
  const word = (at) => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  if (buffer.byteLength < 12 || word(0) !== "RIFF" || word(8) !== "WAVE") throw new Error("it is not a WAV file");
  let format;
  for (let at = 12; at + 8 <= buffer.byteLength; ) {
    const [kind, size] = [word(at), view.getUint32(at + 4, true)];
    at += 8;
    if (kind === "fmt " && size >= 16 && at + 16 <= buffer.byteLength) {
      format = {
        kind: view.getUint16(at, true),
        channels: view.getUint16(at + 2, true),
        rate: view.getUint32(at + 4, true),
        bits: view.getUint16(at + 14, true),
      };
      if (format.kind === 0xfffe && size >= 26 && at + 26 <= buffer.byteLength) format.kind = view.getUint16(at + 24, true);
    } else if (kind === "data") {
      if (!format) break;
      const left = buffer.byteLength - at;
      if (left < size && size < 0x7ffff000) throw new Error(`it has ${left} of ${size} bytes of samples`);
      return { samples: mono(view, at, Math.min(left, size), format), rate: format.rate };
    }
    at += size + (size % 2);
  }
  throw new Error("it has no samples");
}

function mono(view, start, length, { kind, channels, rate, bits }) {
  const read = {
    "1 8": (at) => (view.getUint8(at) - 128) / 128,
    "1 16": (at) => view.getInt16(at, true) / 32768,
    "1 24": (at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 8388608,
    "1 32": (at) => view.getInt32(at, true) / 2147483648,
    "3 32": (at) => view.getFloat32(at, true),
    "3 64": (at) => view.getFloat64(at, true),
  }[`${kind} ${bits}`];
  if (!read || !channels || rate < 1000 || rate > 768000) throw new Error(`WAV of kind ${kind}, ${bits} bits, ${channels} channels, ${rate} Hz is not read`);
  const step = (bits / 8) * channels;
  const samples = new Float32Array(Math.floor(length / step));
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += read(start + i * step + (channel * bits) / 8);
    samples[i] = sum / channels;
    if (!Number.isFinite(samples[i])) throw new Error("it has samples that are NaN or infinite");
  }
  if (!samples.length) throw new Error("it has no samples");
  return samples;
}

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

// Samples at another rate: a sinc with Kaiser's window, at a phase for each output sample.
export function resample(samples, from, to) {
  if (from === to) return samples;
  const common = divisor(from, to);
  const [up, down] = [to / common, from / common];
  const low = Math.min(1, to / from);
  const cut = ((PASS + 1) / 2) * low;
  const half = (ATTENUATION - 7.95) / (2.285 * Math.PI * (1 - PASS) * low) / 2;
  const [reach, whole] = [Math.floor(half), bessel(BETA)];
  const weights = (phase) => {
    const found = new Float64Array(2 * reach + 2);
    for (let tap = 0; tap < found.length; tap++) {
      const t = tap - reach - phase / up;
      const inside = 1 - (t / half) ** 2;
      if (inside < 0) continue;
      const x = Math.PI * cut * t;
      found[tap] = (cut * (x ? Math.sin(x) / x : 1) * bessel(BETA * Math.sqrt(inside))) / whole;
    }
    return found;
  };
  const kept = new Map();
  const made = new Float32Array(Math.floor((2 * samples.length * to + from) / (2 * from)));
  for (let i = 0; i < made.length; i++) {
    const [middle, phase] = [Math.floor((i * down) / up), (i * down) % up];
    let taps = kept.get(phase);
    if (!taps) {
      taps = weights(phase);
      if (up <= MOST_PHASES) kept.set(phase, taps);
    }
    let sum = 0;
    const first = middle - reach;
    const last = Math.min(taps.length, samples.length - first);
    for (let tap = Math.max(0, -first); tap < last; tap++) sum += taps[tap] * samples[first + tap];
    made[i] = sum;
  }
  return made;
}

function loudness(samples, rate) {
  const size = Math.floor(rate / 100);
  let loudest = 0;
  for (let start = 0; start < samples.length; start += size) {
    let sum = 0;
    for (const value of samples.subarray(start, start + size)) sum += value * value;
    loudest = Math.max(loudest, sum / size);
  }
  return 10 * Math.log10(loudest);
}

// The windows of samples at the model's rate that are not silent.
export function windows(samples, { rate, window, hop, short, silence }) {
  const starts = [];
  for (let start = 0; start < samples.length - window; start += hop) starts.push(start);
  starts.push(Math.max(0, samples.length - window)); // the last one ends with the recording
  const found = [];
  for (const start of starts) {
    const part = samples.subarray(start, start + window);
    if (loudness(part, rate) < silence) continue;
    const filled = new Float32Array(window);
    if (short === "repeat") for (let i = 0; i < window; i++) filled[i] = part[i % part.length];
    else filled.set(part);
    found.push(filled);
  }
  if (!found.length) throw new Error(`nothing in it is louder than ${silence} dB`);
  return found;
}

// The answer for a recording: the mean of the probabilities of its windows, and the class, -1 below
// the threshold. `run` takes one window and gives its probabilities.
export async function classify({ samples, rate }, about, threshold, run) {
  const parts = windows(resample(samples, rate, about.rate), about);
  let probabilities;
  for (const part of parts) {
    const found = await run(part);
    probabilities ??= new Float64Array(found.length);
    found.forEach((value, index) => (probabilities[index] += value / parts.length));
  }
  const best = Math.max(...probabilities);
  const label = threshold !== null && best < threshold ? -1 : probabilities.indexOf(best);
  return { label, probabilities: [...probabilities], windows: parts.length };
}
