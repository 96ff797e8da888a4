// Hands the samples of the microphone's first channel to the page.

class Microphone extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
}
registerProcessor("microphone", Microphone);
