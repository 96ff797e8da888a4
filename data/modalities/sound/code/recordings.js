// The page's part for recordings: opens files and the microphone; the model is in worker.js.

import { readWav } from "./sound.js";

const RATE = 48000; // what a browser decodes to, where it hides a file's own rate

export const words = {
  files: "Choose recordings",
  live: "Use the microphone",
  stop: "Stop the microphone",
  plural: "Recordings",
  accept: "audio/*,.wav,.flac,.ogg,.opus,.mp3",
};

// A file's samples, mono. WAV is read as it is; a browser would resample it.
export async function open(file) {
  const buffer = await file.arrayBuffer();
  let wav;
  try {
    wav = readWav(buffer.slice(0));
  } catch {
    wav = null;
  }
  return wav ?? decoded(buffer);
}

async function decoded(buffer) {
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(buffer);
  } catch {
    throw new Error("this browser cannot open it as a recording; save it as WAV, and choose that");
  }
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, index) => (samples[index] += value / sound.numberOfChannels));
  }
  return { samples, rate: sound.sampleRate };
}

// What a card shows of a file.
export function picture(file) {
  return Object.assign(document.createElement("audio"), { controls: true, src: URL.createObjectURL(file) });
}

export function facts({ seconds, windows, running }) {
  return `${seconds.toFixed(2)} s, ${windows} window${windows === 1 ? "" : "s"}; ${Math.max(1, Math.round(running))} ms`;
}

// The last window of the microphone, again and again, until `stopped`; `show` draws and answers.
export async function live(site, stopped, show) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("microphone.js");
  const node = new AudioWorkletNode(context, "microphone");
  const length = Math.ceil((site.sound.window / site.sound.rate) * context.sampleRate);
  const last = new Float32Array(length);
  let heard = 0;
  node.port.onmessage = ({ data }) => {
    last.copyWithin(0, data.length);
    last.set(data.subarray(-length), Math.max(0, length - data.length));
    heard += data.length;
  };
  context.createMediaStreamSource(stream).connect(node);
  let going = true;
  stopped.then(() => (going = false));
  while (going) {
    if (heard >= length) await show({ samples: last.slice(), rate: context.sampleRate });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  for (const track of stream.getTracks()) track.stop();
  await context.close();
}
