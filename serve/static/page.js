"use strict";

const drop = document.getElementById("drop");
const files = document.getElementById("files");
const status = document.getElementById("status");
const results = document.getElementById("results");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function percent(confidence) {
  // Never 100 % for what is not certain.
  return confidence > 0.99 && confidence < 1 ? "99 %" : `${Math.round(100 * confidence)} %`;
}

function level(confidence) {
  return confidence >= 0.9 ? "high" : confidence >= 0.6 ? "middle" : "low";
}

function show(file, result) {
  const item = element("li", "result");
  const picture = element("div", "picture");
  const image = element("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.addEventListener("error", () => image.remove(), { once: true });
  picture.append(image);

  const words = element("div");
  if (result.error) {
    words.append(element("div", "failure", result.error.message));
  } else {
    words.append(element("div", "reading", result.text || "(nothing to read)"));
    const confidence = element("div");
    confidence.append("Confidence ", element("strong", level(result.confidence), percent(result.confidence)));
    words.append(confidence);
    const characters = element("ul", "characters");
    characters.setAttribute("aria-label", "Confidence of each character");
    for (const character of result.characters) {
      const one = element("li", level(character.confidence));
      one.append(element("b", "", character.text), element("span", "", percent(character.confidence)));
      characters.append(one);
    }
    words.append(characters);
  }
  words.append(element("div", "name", file.name));
  item.append(picture, words);
  return item;
}

async function read(chosen) {
  const pictures = [...chosen];
  if (!pictures.length) return;
  status.className = "";
  status.textContent = `Reading ${pictures.length === 1 ? "1 picture" : `${pictures.length} pictures`} …`;
  const form = new FormData();
  for (const picture of pictures) form.append("images", picture, picture.name);
  try {
    const answer = await fetch("/v1/recognize", { method: "POST", body: form });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    results.prepend(...body.results.map((result, i) => show(pictures[i], result)));
    const failed = body.results.filter((result) => result.error).length;
    status.textContent = failed ? `${pictures.length - failed} read, ${failed} could not be read.` : `${pictures.length} read.`;
  } catch (error) {
    status.className = "failure";
    status.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
  }
}

files.addEventListener("change", () => {
  read(files.files);
  files.value = "";
});
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
  read(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => read(event.clipboardData.files));

fetch("/v1/models")
  .then((answer) => answer.json())
  .then((body) => { document.getElementById("model").textContent = `Model: ${body.models.map((model) => model.name).join(", ")}.`; })
  .catch(() => {});
