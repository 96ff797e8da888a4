// The page: takes texts, shows answers. The model is in worker.js.

const FIRST = 3; // classes of an answer that are shown
const LONGEST = 300; // characters of a text that are shown
const find = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by id: what to do with the answer
let site;
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

function words({ label, probabilities }) {
  const best = Math.max(...probabilities);
  if (label >= 0) return `${site.classes[label]}, ${percent(best)}`;
  const name = site.classes[probabilities.indexOf(best)];
  return `unknown: ${name} has ${percent(best)}, and ${percent(site.threshold)} are needed`;
}

function shares({ probabilities }) {
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  const table = element("table");
  for (const index of order.slice(0, FIRST)) {
    const row = table.insertRow();
    row.dataset.index = index;
    row.dataset.probability = probabilities[index];
    row.append(element("th", site.classes[index], { scope: "row" }));
    row.append(element("td", percent(probabilities[index]), { className: "share" }));
  }
  return table;
}

// `source` is a text, or a file that has one.
async function classify(name, source) {
  const card = element("li", "", { className: "card" });
  const body = element("div");
  body.append(element("h2", name), element("p", "waiting ...", { className: "facts" }));
  card.append(body);
  find("results").prepend(card);
  try {
    const answer = await ask(source);
    const shown = answer.text.length > LONGEST ? `${answer.text.slice(0, LONGEST)} ...` : answer.text;
    const cut = answer.tokens > answer.used ? `, cut to ${answer.used}` : "";
    const facts = `${answer.tokens} tokens${cut}; ${Math.max(1, Math.round(answer.took))} ms`;
    body.replaceChildren(element("h2", words(answer)), element("p", shown, { dir: "auto" }));
    body.append(shares(answer), element("p", name ? `${name}: ${facts}` : facts, { className: "facts" }));
    card.dataset.label = answer.label;
    card.dataset.probabilities = JSON.stringify(answer.probabilities);
    find("announce").textContent = words(answer);
  } catch (error) {
    card.classList.add("wrong");
    body.querySelector("h2").textContent = "No answer";
    body.querySelector(".facts").textContent = name ? `${name}: ${error.message}` : error.message;
    find("announce").textContent = error.message;
  }
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
  find("classify").addEventListener("click", () => classify("", find("text").value));
  find("files").addEventListener("change", ({ target }) => {
    for (const file of target.files) classify(file.name, file);
    target.value = ""; // the same file may be chosen again
  });
  const drop = find("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return; // a text goes into its field
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") for (const file of event.dataTransfer.files) classify(file.name, file);
    });
  }
}

async function start() {
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json cannot be fetched: ${response.status}`);
  site = await response.json();
  document.title = find("title").textContent = site.title;
  const unsure = site.threshold === null ? "" : `, or "unknown" below ${percent(site.threshold)}`;
  const shown = site.classes.slice(0, 5).join(", ") + (site.classes.length > 5 ? " ..." : "");
  find("about").textContent = `Tells ${site.classes.length} classes apart (${shown})${unsure}. Texts stay on this device: nothing is sent anywhere.`;
  find("model").textContent = `${site.backbone}, weights ${site.weights}, licence ${site.licence}; ${(site.model.bytes / 1e6).toFixed(1)} MB. Runs on onnxruntime-web ${site.runtime.version}.`;
  find("status").textContent = "Loading the classifier";
  worker.postMessage({ kind: "load", site });
  listen();
}

start().catch((error) => {
  find("status").textContent = `The classifier cannot be started: ${error.message}`;
  find("bar").hidden = true;
});
