// The page: takes texts, shows answers. The model is in worker.js.

import { ask, begin, element, fail, find, listen, newCard, put, shares, words } from "./shared.js";

const LONGEST = 300; // characters of a text that are shown

// `source` is a text, or a file that has one.
async function classify(card, name, source) {
  const body = card.querySelector("div");
  try {
    const answer = await ask(source);
    const shown = answer.text.length > LONGEST ? `${answer.text.slice(0, LONGEST)} ...` : answer.text;
    const cut = answer.tokens > answer.used ? `, cut to ${answer.used}` : "";
    const facts = `${answer.tokens} tokens${cut}; ${Math.max(1, Math.round(answer.took))} ms`;
    body.replaceChildren(element("h2", words(answer)), element("p", shown, { dir: "auto" }));
    body.append(...shares(answer), element("p", name ? `${name}: ${facts}` : facts, { className: "facts" }));
    card.dataset.label = answer.label;
    card.dataset.probabilities = JSON.stringify(answer.probabilities);
    find("announce").textContent = words(answer);
  } catch (error) {
    fail(card, name, error);
  }
}

function classifyFiles(files) {
  const cards = files.map((file) => newCard(file.name));
  put(...cards);
  files.forEach((file, at) => classify(cards[at], file.name, file));
}

begin(() => {
  find("classify").addEventListener("click", () => {
    const card = newCard("");
    put(card);
    classify(card, "", find("text").value);
  });
  listen(classifyFiles, ({ types }) => types.includes("Files")); // a text goes into its field
  return "Texts";
});
