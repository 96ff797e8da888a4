// The page: takes photographs and camera frames, shows answers. The model is in worker.js. What is
// not a photograph is opened and shown by a script that site.json names.

import { ask, begin, element, fail, find, listen, newCard, put, shares, site, words } from "./shared.js";

let other; // what opens and shows examples that are not photographs

function facts(answer) {
  if (other) return other.facts(answer);
  const [decoding, running] = [answer.decoding, answer.running].map((time) => Math.max(1, Math.round(time)));
  const [given, used] = [answer.given, answer.used].map((size) => size.join(" x "));
  const size = given === used ? `${given} pixels` : `${given} pixels, scaled to ${used} first`;
  return `${size}; ${decoding + running} ms (${decoding} to open, ${running} to classify)`;
}

function fill(card, name, answer) {
  const body = element("div");
  body.append(element("h2", words(answer)), ...shares(answer), element("p", [name, facts(answer)].join(": "), { className: "facts" }));
  card.dataset.label = answer.label;
  card.querySelector("div").replaceWith(body);
}

async function classifyFile(file, card) {
  try {
    const answer = await ask(other ? await other.open(file) : file);
    fill(card, file.name, answer);
    find("announce").textContent = `${file.name}: ${words(answer)}`;
  } catch (error) {
    fail(card, file.name, error);
  }
}

function classifyFiles(files) {
  const cards = files.map((file) => newCard(file.name, other ? other.picture(file) : photograph(file)));
  put(...cards);
  files.forEach((file, at) => classifyFile(file, cards[at]));
}

function photograph(file) {
  const picture = element("img", "", { src: URL.createObjectURL(file), alt: "" });
  picture.onload = picture.onerror = () => URL.revokeObjectURL(picture.src);
  return picture;
}

// Held-out photographs that came with the page, to try it with.
function offer(examples) {
  find("examples").hidden = !examples.length;
  examples.forEach(({ path, label }, at) => {
    const button = element("button", "", { type: "button", className: "example" });
    button.append(element("img", "", { src: path, alt: `Example ${at + 1}`, loading: "lazy" }));
    button.addEventListener("click", async () => {
      const name = `Example ${at + 1}, labelled ${label}`;
      try {
        const response = await fetch(path);
        if (!response.ok) throw new Error(`${path} cannot be fetched: ${response.status}`);
        classifyFiles([new File([await response.blob()], name, { type: "image/jpeg" })]);
      } catch (error) {
        const card = newCard(name);
        put(card);
        fail(card, name, error);
      }
    });
    find("examples").append(button);
  });
}

async function runMicrophone() {
  const card = newCard("Microphone", element("canvas", "", { width: 1, height: 1 }));
  put(card);
  find("video").hidden = true;
  find("stop").textContent = other.words.stop;
  find("live").hidden = false;
  find("camera").hidden = true;
  const stopped = new Promise((resolve) => find("stop").addEventListener("click", resolve, { once: true }));
  const show = async (source) => {
    try {
      fill(card, "Microphone", await ask(source));
    } catch (error) {
      card.querySelector("h2").textContent = `No answer: ${error.message}`;
    }
  };
  try {
    await other.live(site, stopped, show);
  } catch (error) {
    card.querySelector("h2").textContent = `The microphone cannot be used: ${error.message}. Allow it for this page, or choose recordings.`;
  }
  find("live").hidden = true;
  find("camera").hidden = false;
}

async function runCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    find("announce").textContent = "";
    find("status").textContent = `The camera cannot be used: ${error.message}. Allow it for this page in the browser's settings, or choose photographs.`;
    find("loading").hidden = false;
    find("bar").hidden = true;
    return;
  }
  const video = find("video");
  video.srcObject = stream;
  find("live").hidden = false;
  find("camera").hidden = true;
  const thumbnail = element("canvas", "", { width: 224, height: 224 });
  const card = newCard("Camera", thumbnail);
  put(card);
  const stopped = new Promise((resolve) => find("stop").addEventListener("click", resolve, { once: true }));
  let going = true;
  stopped.then(() => (going = false));
  await video.play();
  while (going) {
    try {
      const frame = await createImageBitmap(video);
      const scale = Math.min(224 / frame.width, 224 / frame.height);
      const [width, height] = [frame.width * scale, frame.height * scale];
      thumbnail.getContext("2d").drawImage(frame, (224 - width) / 2, (224 - height) / 2, width, height);
      fill(card, "Camera", await ask(frame));
    } catch (error) {
      card.querySelector("h2").textContent = `No answer: ${error.message}`;
    }
    await new Promise(requestAnimationFrame);
  }
  for (const track of stream.getTracks()) track.stop();
  find("live").hidden = true;
  find("camera").hidden = false;
}

begin(async () => {
  if (site.scripts) {
    other = await import(`./${site.scripts.page}`);
    find("choose").textContent = other.words.files;
    find("camera").textContent = other.words.live;
    find("files").accept = other.words.accept;
    find("drop").setAttribute("aria-label", other.words.plural);
  }
  offer(site.examples ?? []);
  listen(classifyFiles);
  if (navigator.mediaDevices?.getUserMedia) find("camera").hidden = false;
  find("camera").addEventListener("click", other ? runMicrophone : runCamera);
  return other?.words.plural ?? "Photographs";
});
