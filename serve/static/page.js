// Entry point: pictures that are chosen, photographed, dropped or pasted.
import { Card, readWhole } from "./card.js";
import { say } from "./dom.js";
import { about } from "./server.js";

const list = document.getElementById("cards");
const drop = document.getElementById("drop");
const files = document.getElementById("files");
const rotate = document.getElementById("rotate");
const shown = new Set(); // cards
const options = { keyed: false, detector: null, get rotate() { return rotate.checked; } };

function removed(card) {
  shown.delete(card);
  say(`${card.file.name} removed.`);
  (list.querySelector("[data-name=remove]") ?? files).focus();
}

async function take(chosen) {
  const cards = [...chosen].map((file) => new Card(file, options, removed));
  const words = [];
  const lost = [];
  for (const card of cards.toReversed()) {
    // Sequentially, since a decoded photograph is large.
    if (!(await card.open())) {
      lost.push(card.file.name);
      continue;
    }
    list.prepend(card.item);
    shown.add(card);
    card.show();
    if (card.isWord) words.unshift(card);
  }
  if (words.length) await readWhole(words);
  else if (cards.length) say("Mark the words, then read them.");
  if (lost.length) say(`The browser cannot open ${lost.join(", ")}. If it is a folder, choose the pictures in it.`, true);
}

for (const input of [files, document.getElementById("camera")]) {
  input.addEventListener("change", () => {
    const chosen = [...input.files];
    input.value = ""; // the same picture may be chosen again
    take(chosen);
  });
}
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else say("No picture was dropped. From another page, copy the picture and paste it here.", true);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));

about().then(({ keyed, detector, models }) => {
  Object.assign(options, { keyed, detector });
  shown.forEach((card) => card.show());
  if (models.length) document.getElementById("model").textContent = `Model: ${models.join(", ")}.`;
}).catch(() => {}); // the next request will show the error
