// What the pages of all modalities share: cards with answers, the worker, and how a page begins.

const FIRST = 3; // classes of an answer that are seen at once
const MOST_SHOWN = 50;
export const find = (id) => document.getElementById(id);
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const site = {}; // what site.json says

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by id: what to do with the answer
let last = 0;

export function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

export function ask(source) {
  const id = ++last;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ kind: "classify", id, source });
  });
}

export function words({ label, probabilities }) {
  const best = Math.max(...probabilities);
  const name = site.classes[probabilities.indexOf(best)];
  if (label >= 0) return `${site.classes[label]}, ${percent(best)}`;
  return `unknown: ${name} has ${percent(best)}, and ${percent(site.threshold)} are needed`;
}

function bars({ probabilities }, order) {
  const table = element("table");
  for (const index of order) {
    const row = table.insertRow();
    row.dataset.index = index;
    row.dataset.probability = probabilities[index];
    row.append(element("th", site.classes[index], { scope: "row" }));
    const bar = element("div", "", { className: "bar" });
    bar.append(element("div"));
    bar.firstChild.style.width = percent(probabilities[index]).replace(" ", "");
    row.insertCell().append(bar);
    row.append(element("td", percent(probabilities[index]), { className: "share" }));
  }
  return table;
}

// The most probable classes, and the others where one can unfold them.
export function shares(answer) {
  const { probabilities } = answer;
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  const parts = [bars(answer, order.slice(0, FIRST))];
  if (order.length > FIRST) {
    const others = element("details");
    const few = Math.min(order.length, MOST_SHOWN) - FIRST;
    others.append(element("summary", `${few} more of ${order.length} classes`));
    others.append(bars(answer, order.slice(FIRST, MOST_SHOWN)));
    parts.push(others);
  }
  return parts;
}

// A card that waits for its answer; `picture` may be left out. It is not on the page yet.
export function newCard(name, picture) {
  const card = element("li", "", { className: "card" });
  const body = element("div");
  body.append(element("h2", name), element("p", "waiting ...", { className: "facts" }));
  card.append(...(picture ? [picture] : []), body);
  return card;
}

// The newest come first; those chosen together keep their order.
export function put(...cards) {
  find("results").prepend(...cards);
}

export function fail(card, name, error) {
  const said = name ? `${name}: ${error.message}` : error.message;
  card.classList.add("wrong");
  card.querySelector("h2").textContent = "No answer";
  card.querySelector(".facts").textContent = said;
  find("announce").textContent = said;
}

// Calls `take` with files that are chosen or dropped, all of one time together.
export function listen(take, drops = () => true) {
  find("files").addEventListener("change", ({ target }) => {
    take([...target.files]);
    target.value = ""; // the same file may be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!drops(event.dataTransfer)) return;
      event.preventDefault();
      find("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  }
}

function stopped(message) {
  find("status").textContent = `The classifier cannot be started: ${message}. Load the page again; if that does not help, put the whole folder of the page on the server again.`;
  find("bar").hidden = true;
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
    stopped(data.message);
  }
});

async function load(ready) {
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json cannot be fetched: ${response.status}`);
  Object.assign(site, await response.json());
  const plural = await ready();
  document.title = find("title").textContent = site.title;
  const unsure = site.threshold === null ? "" : `, or "unknown" below ${percent(site.threshold)}`;
  const shown = site.classes.slice(0, 5).join(", ") + (site.classes.length > 5 ? " ..." : "");
  find("about").textContent = `Tells ${site.classes.length} classes apart (${shown})${unsure}. ${plural} stay on this device: nothing is sent anywhere.`;
  find("model").textContent = `${site.backbone}, weights ${site.weights}, licence ${site.licence}; ${(site.model.bytes / 1e6).toFixed(1)} MB. Runs on onnxruntime-web ${site.runtime.version}.`;
  find("status").textContent = "Loading the classifier";
  worker.postMessage({ kind: "load", site });
}

// Read site.json, say what it says, and load the model; `ready` prepares the page for it, and
// returns what examples are called.
export async function begin(ready) {
  try {
    await load(ready);
  } catch (error) {
    stopped(error.message);
  }
}
