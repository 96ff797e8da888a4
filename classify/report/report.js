// What the report does when a person asks: pictures enlarge, points of the map say what they are,
// cards are filtered by class, and decisions about labels are saved as a file of corrections.
"use strict";

const find = (id) => document.getElementById(id);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const parsed = (id) => JSON.parse(find(id).textContent);
const data = parsed("report-data");
document.documentElement.classList.add("js");

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

const isolated = (text) => element("bdi", text);

// Pictures, in a dialog, one after the other.

let shown = 0;

function pictures() {
  return all("main .enlarge").filter((button) => button.getClientRects().length);
}

function show(buttons, at) {
  shown = (at + buttons.length) % buttons.length;
  const picture = buttons[shown].firstElementChild;
  find("viewer-picture").replaceChildren(element("img", "", { src: picture.src, alt: "" }));
  find("viewer-title").replaceChildren(isolated(picture.alt));
  const facts = buttons[shown].closest(".card")?.querySelector("dl");
  find("viewer-facts").replaceChildren(...(facts ? facts.cloneNode(true).children : []));
  for (const button of all("#viewer [data-step]")) button.hidden = buttons.length < 2;
}

function step(by) {
  show(pictures(), shown + by);
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest(".enlarge");
  if (!button) return;
  const buttons = pictures();
  show(buttons, buttons.indexOf(button));
  find("viewer").showModal();
});
for (const button of all("#viewer [data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
find("viewer-close").addEventListener("click", () => find("viewer").close());
find("viewer").addEventListener("click", ({ target }) => {
  if (target === find("viewer")) find("viewer").close(); // beside it
});
find("viewer").addEventListener("keydown", ({ key }) => {
  if (key === "ArrowRight") step(1);
  if (key === "ArrowLeft") step(-1);
});
find("viewer").addEventListener("close", () => pictures()[shown]?.focus());

// Points of the map: by pointer, by finger, and by the arrow keys.

const NEAR = 24; // pixels around a point in which it counts as pointed at
const AHEAD = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function explore(drawing) {
  const { points, pictures, first } = parsed(drawing.dataset.points);
  const here = drawing.querySelector(".here");
  const panel = drawing.nextElementSibling;
  let at = -1;

  function say(next) {
    if (next < 0 || next === at) return;
    at = next;
    const [x, y, [id, ...lines], picture] = points[at];
    here.style.left = `${x / 10}%`;
    here.style.top = `${y / 10}%`;
    here.hidden = panel.hidden = false;
    const text = element("div");
    text.append(element("p", ""), ...lines.map((line) => element("p", "")));
    [id, ...lines].forEach((line, row) => text.children[row].append(isolated(line)));
    const image = picture < 0 ? [] : [element("img", "", { src: pictures[picture], alt: "" })];
    panel.replaceChildren(...image, text);
  }

  function nearest(x, y) {
    const box = drawing.getBoundingClientRect();
    let best = -1;
    let least = NEAR * NEAR;
    points.forEach(([left, top], number) => {
      const across = box.left + (left / 1000) * box.width - x;
      const down = box.top + (top / 1000) * box.height - y;
      if (across * across + down * down < least) {
        least = across * across + down * down;
        best = number;
      }
    });
    return best;
  }

  // The nearest point in a direction, within 45 degrees of it.
  function next([right, down]) {
    const [x, y] = points[at];
    let best = at;
    let least = Infinity;
    points.forEach(([left, top], number) => {
      const ahead = (left - x) * right + (top - y) * down;
      const aside = Math.abs((left - x) * down) + Math.abs((top - y) * right);
      if (ahead > 0 && aside <= ahead && ahead + aside < least) {
        least = ahead + aside;
        best = number;
      }
    });
    return best;
  }

  for (const kind of ["pointermove", "pointerdown"]) {
    drawing.addEventListener(kind, (event) => say(nearest(event.clientX, event.clientY)));
  }
  drawing.addEventListener("focus", () => {
    if (at < 0 && drawing.matches(":focus-visible")) say(first);
  });
  drawing.addEventListener("keydown", (event) => {
    if (!(event.key in AHEAD)) return;
    event.preventDefault();
    say(at < 0 ? first : next(AHEAD[event.key]));
  });
}
all(".points").forEach(explore);

// Cards of one class.

for (const filter of all(".filter")) {
  const select = filter.querySelector("select");
  const cards = all(".card", filter.closest("section"));
  select.addEventListener("change", () => {
    let count = 0;
    for (const card of cards) {
      card.hidden = select.value !== "" && !JSON.parse(card.dataset.classes).includes(select.value);
      count += !card.hidden;
    }
    filter.querySelector("output").textContent = select.value ? `${count} of ${cards.length}` : "";
  });
}

// Decisions about labels.

const decisions = new Map(); // by id: [action, class]
let unsaved = false;

function decide(id, action, change) {
  if (action) decisions.set(id, [action, action === "change" ? change : ""]);
  else decisions.delete(id);
  for (const question of all(".question")) {
    if (question.dataset.id !== id) continue; // one example may be asked about twice
    for (const input of all("input", question)) input.checked = input.value === action;
    if (action === "change") choose(question.querySelector("select"), change);
  }
  unsaved = decisions.size > 0;
  find("decisions").hidden = !unsaved;
  const count = decisions.size;
  find("decided").textContent = `${count} decision${count === 1 ? "" : "s"}`;
}

function fill(select) {
  if (select.dataset.filled) return;
  select.dataset.filled = "yes";
  for (const name of data.classes) {
    if (name !== select.options[0].value) select.append(element("option", name, { value: name }));
  }
}

function choose(select, name) {
  if (select.value !== name) fill(select);
  select.value = name;
}

for (const question of all(".question")) {
  const select = question.querySelector("select");
  const chosen = () => question.querySelector("input:checked")?.value ?? "";
  for (const kind of ["focus", "pointerdown"]) select.addEventListener(kind, () => fill(select));
  select.addEventListener("change", () => decide(question.dataset.id, "change", select.value));
  question.addEventListener("change", ({ target }) => {
    if (target !== select) decide(question.dataset.id, chosen(), select.value);
  });
}

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function save() {
  const before = data.earlier.filter(([id]) => !decisions.has(id));
  const rows = [...before, ...[...decisions].map(([id, made]) => [id, ...made])];
  const text = [["id", "action", "change_to"], ...rows].map((row) => row.map(cell).join(",")).join("\n");
  const file = new Blob([`${text}\n`], { type: "text/csv;charset=utf-8" });
  const link = element("a", "", { href: URL.createObjectURL(file), download: "corrections.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  unsaved = false;
  find("decided").textContent = `${rows.length} correction${rows.length === 1 ? "" : "s"} saved`;
}

find("save")?.addEventListener("click", save);
addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
