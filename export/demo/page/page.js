// The page: takes photographs and camera frames, shows answers. The model is in worker.js. What is
// not a photograph is opened and shown by a script that site.json names.

const FIRST = 3; // classes of an answer that are seen at once
const MOST_SHOWN = 50;
const find = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by id: what to do with the answer
let site;
let other; // what opens and shows examples that are not photographs
let last = 0;

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

function ask(source) {
  const id = ++last;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ kind: "classify", id, source });
  });
}

function words(answer) {
  const best = Math.max(...answer.probabilities);
  const name = site.classes[answer.probabilities.indexOf(best)];
  if (answer.label >= 0) return `${site.classes[answer.label]}, ${percent(best)}`;
  return `unknown: ${name} has ${percent(best)}, and ${percent(site.threshold)} are needed`;
}

function bars({ probabilities }, order) {
  const table = element("table");
  for (const index of order) {
    const row = table.insertRow();
    row.dataset.index = index;
    row.dataset.probability = probabilities[index];
    row.append(element("th", site.classes[index], { scope: "row" }));
    const meter = element("meter", "", { min: 0, max: 1, value: probabilities[index] });
    meter.setAttribute("aria-hidden", "true");
    row.insertCell().append(meter);
    row.append(element("td", percent(probabilities[index]), { className: "share" }));
  }
  return table;
}

// The most probable classes, and the others where one can unfold them.
function shares(answer) {
  const { probabilities } = answer;
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  const parts = [bars(answer, order.slice(0, FIRST))];
  if (order.length > FIRST) {
    const others = element("details");
    const few = Math.min(order.length, MOST_SHOWN) - FIRST;
    others.append(element("summary", `The next ${few} of ${order.length} classes`));
    others.append(bars(answer, order.slice(FIRST, MOST_SHOWN)));
    parts.push(others);
  }
  return parts;
}

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

function newCard(name, picture) {
  const card = element("li", "", { className: "card" });
  const body = element("div");
  body.append(element("h2", name), element("p", "waiting ...", { className: "facts" }));
  card.append(picture, body);
  find("results").prepend(card);
  return card;
}

async function classifyFile(file) {
  const picture = other ? other.picture(file) : photograph(file);
  const card = newCard(file.name, picture);
  try {
    const answer = await ask(other ? await other.open(file) : file);
    fill(card, file.name, answer);
    find("announce").textContent = `${file.name}: ${words(answer)}`;
  } catch (error) {
    card.classList.add("wrong");
    card.querySelector("h2").textContent = "No answer";
    card.querySelector(".facts").textContent = `${file.name}: ${error.message}`;
    find("announce").textContent = `${file.name}: ${error.message}`;
  }
}

function photograph(file) {
  const picture = element("img", "", { src: URL.createObjectURL(file), alt: "" });
  picture.onload = picture.onerror = () => URL.revokeObjectURL(picture.src);
  return picture;
}

async function runMicrophone() {
  const card = newCard("Microphone", element("canvas", "", { width: 1, height: 1 }));
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
    card.querySelector("h2").textContent = `The microphone cannot be used: ${error.message}`;
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
    find("status").textContent = `The camera cannot be used: ${error.message}`;
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

worker.addEventListener("message", ({ data }) => {
  if (data.kind === "progress") {
    find("bar").value = data.share;
  } else if (data.kind === "ready") {
    find("loading").hidden = true;
    document.body.dataset.ready = "yes";
  } else if (data.id) {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    data.kind === "answer" ? resolve(data) : reject(new Error(data.message));
  } else {
    find("status").textContent = `The classifier cannot be started: ${data.message}`;
    find("bar").hidden = true;
  }
});

function listen() {
  find("files").addEventListener("change", ({ target }) => {
    for (const file of target.files) classifyFile(file);
    target.value = ""; // the same file may be chosen again
  });
  const drop = find("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") for (const file of event.dataTransfer.files) classifyFile(file);
    });
  }
  if (navigator.mediaDevices?.getUserMedia) find("camera").hidden = false;
  find("camera").addEventListener("click", other ? runMicrophone : runCamera);
}

async function start() {
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json cannot be fetched: ${response.status}`);
  site = await response.json();
  if (site.scripts) {
    other = await import(`./${site.scripts.page}`);
    find("choose").textContent = other.words.files;
    find("camera").textContent = other.words.live;
    find("files").accept = other.words.accept;
    find("drop").setAttribute("aria-label", other.words.plural);
  }
  document.title = find("title").textContent = site.title;
  const unsure = site.threshold === null ? "" : `, or "unknown" below ${percent(site.threshold)}`;
  const shown = site.classes.slice(0, 5).join(", ") + (site.classes.length > 5 ? " ..." : "");
  find("about").textContent = `Tells ${site.classes.length} classes apart (${shown})${unsure}. ${other?.words.plural ?? "Photographs"} stay on this device: nothing is sent anywhere.`;
  find("model").textContent = `${site.backbone}, weights ${site.weights}, licence ${site.licence}; ${(site.model.bytes / 1e6).toFixed(1)} MB. Runs on onnxruntime-web ${site.runtime.version}.`;
  find("status").textContent = "Loading the classifier";
  worker.postMessage({ kind: "load", site });
  listen();
}

start().catch((error) => {
  find("status").textContent = `The classifier cannot be started: ${error.message}`;
  find("bar").hidden = true;
});
