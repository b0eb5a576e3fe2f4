// One picture: what it shows, its boxes, its readings, and what can be copied.
import { Boxes, region } from "./boxes.js";
import { asCurl, asJson, asText, copy } from "./copy.js";
import { count, element, say } from "./dom.js";
import { isOneWord, isTurnedByServerOnly, open } from "./picture.js";
import { readingView } from "./reading.js";
import { findWords, readRegions, readWords } from "./server.js";

const template = document.getElementById("card");
let made = 0;

export class Card {
  // `options.rotate` and `options.keyed` are evaluated at each request; `removed(card)` is called on removal.
  constructor(file, options, removed) {
    Object.assign(this, { file, options, model: "", whole: null, rotated: false });
    this.item = template.content.firstElementChild.cloneNode(true);
    this.part = (name) => this.item.querySelector(`[data-name="${name}"]`);
    this.part("name").textContent = file.name;
    this.part("legend").textContent = `What ${file.name} shows`;
    this.part("remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.part("copy").setAttribute("aria-label", `Copy what was read in ${file.name}`);
    made += 1;
    this.radios = Object.fromEntries([...this.item.querySelectorAll("[type=radio]")].map((radio) => [radio.value, radio]));
    for (const radio of Object.values(this.radios)) {
      radio.name = `shows-${made}`;
      radio.addEventListener("change", () => this.choose(radio.value));
    }
    const clicks = {
      remove: () => { this.close(); removed(this); },
      read: () => this.read(),
      again: () => this.read(),
      find: () => this.find(),
      add: () => this.boxes.add(),
      delete: () => this.boxes.remove(this.boxes.selected ?? this.boxes.all.at(-1)),
      free: () => { this.boxes.freeCorners = this.part("free").checked; },
      text: () => copy(asText(this.results()), "text"),
      json: () => copy(asJson(this.model, this.results()), "JSON"),
      curl: () => copy(asCurl(file.name, this.regions(), this.rotated, options.keyed), "a curl command"),
    };
    for (const [name, act] of Object.entries(clicks)) this.part(name).addEventListener("click", act);
  }

  // Measures the picture and decides whether it is one word or a photograph. False if the file cannot be opened.
  async open() {
    const first = await this.file.slice(0, 1).arrayBuffer().catch(() => null);
    if (!first) return false;
    const bitmap = await open(this.file);
    this.size = bitmap && { width: bitmap.width, height: bitmap.height };
    bitmap?.close();
    const turned = await isTurnedByServerOnly(this.file);
    this.shown = this.size !== null && !turned;
    this.part("size").textContent = this.size ? `${this.size.width} × ${this.size.height} pixels` : "";
    if (turned) this.part("size").textContent += ", turned by metadata that browsers ignore: save it again, upright, to mark words in it";
    this.radios.marks.disabled = !this.shown;
    this.isWord = !this.shown || isOneWord(this.size);
    this.radios[this.isWord ? "word" : "marks"].checked = true;
    return true;
  }

  close() {
    this.item.remove();
    if (this.url) URL.revokeObjectURL(this.url);
  }

  choose(what) {
    this.isWord = what === "word";
    if (this.isWord && !this.whole) this.read();
    else this.show();
  }

  show() {
    this.part("marking").hidden = this.isWord;
    if (!this.isWord && !this.boxes) this.openBoxes();
    const marked = this.isWord ? [] : this.boxes.all;
    const items = marked.map((box, i) => {
      const view = (box.reading && box.view) ?? element("p", "quiet", "Not read yet");
      const item = element("li", "", element("span", "place", String(i + 1)), view);
      item.addEventListener("pointerenter", () => box.outline.classList.add("pointed"));
      item.addEventListener("pointerleave", () => box.outline.classList.remove("pointed"));
      return item;
    });
    if (this.isWord && this.whole) items.push(element("li", "", this.whole.view));
    this.part("readings").replaceChildren(...items);
    for (const name of ["find", "finding"]) this.part(name).hidden = !this.options.detector;
    this.part("dragging").hidden = this.options.detector !== null;
    this.part("find").disabled = this.reading;
    this.part("delete").disabled = !marked.length;
    this.part("read").disabled = !marked.length;
    this.part("read").textContent = `Read ${count(marked.length, "word")}`;
    this.part("again").hidden = !this.isWord;
    this.part("copy").hidden = !this.results().length;
  }

  openBoxes() {
    const image = element("img");
    image.alt = `${this.file.name}, upright`;
    image.src = this.url = URL.createObjectURL(this.file);
    this.part("stage").append(image);
    const changed = () => {
      this.show();
      if (!this.boxes.all.length) this.part("add").focus();
    };
    const told = { changed, enter: () => this.read() };
    this.boxes = new Boxes(this.part("stage"), image, this.size, told);
    this.boxes.svg.setAttribute("aria-label", `Words marked in ${this.file.name}`);
  }

  // The boxes that have been read and not changed since.
  boxesRead() {
    return this.boxes?.all.filter((box) => box.reading) ?? [];
  }

  results() {
    const all = this.isWord ? [this.whole?.result] : this.boxesRead().map((box) => box.reading);
    return all.filter((result) => result && !result.error);
  }

  regions() {
    return this.isWord ? undefined : this.boxesRead().filter((box) => !box.reading.error).map(region);
  }

  read() {
    return this.isWord ? readWhole([this]) : this.readBoxes();
  }

  async readBoxes() {
    const asked = this.boxes.all.map((box) => ({ box, sent: region(box) }));
    if (!asked.length || this.reading) return;
    this.begin();
    try {
      const answer = await readRegions(this.file, asked.map(({ sent }) => sent), this.rotated);
      const bitmap = await open(this.file);
      asked.forEach(({ box, sent }, i) => {
        if (String(region(box)) !== String(sent)) return; // changed meanwhile
        const result = answer.results[i];
        box.reading = result;
        box.view = readingView(bitmap, result.region ?? box.corners, box.upright, result);
      });
      bitmap?.close();
      this.model = answer.model;
      this.end();
      this.boxes.layout();
      tell(answer.results, "word");
    } catch (error) {
      this.end(error.message);
      say(error.message, true);
    }
  }

  // Marks the words that the server finds, in place of all boxes, and reads them.
  async find() {
    if (this.reading) return;
    this.begin("Finding words …");
    try {
      const { words } = await findWords(this.file);
      this.boxes.fill(words.map(({ quad }) => quad));
      this.end();
      if (words.length) await this.readBoxes();
      else say("No words were found. You can mark them yourself.");
    } catch (error) {
      this.end(error.message);
      say(error.message, true);
    }
  }

  begin(doing = "Reading …") {
    this.reading = true;
    this.rotated = this.options.rotate;
    this.part("failure").textContent = "";
    this.item.setAttribute("aria-busy", "true");
    this.show();
    say(doing);
  }

  end(failure = "") {
    this.reading = false;
    this.part("failure").textContent = failure;
    this.item.setAttribute("aria-busy", "false");
    this.show();
  }

  async took(model, result) {
    const bitmap = this.shown ? await open(this.file) : null;
    const { width, height } = this.size ?? {};
    const view = readingView(bitmap, [[0, 0], [width, 0], [width, height], [0, height]], true, result);
    bitmap?.close();
    this.model = model;
    this.whole = { result, view };
    this.end();
  }
}

// Reads pictures of one word each.
export async function readWhole(cards) {
  const asked = cards.filter((card) => !card.reading);
  if (!asked.length) return;
  asked.forEach((card) => card.begin());
  const results = [];
  const done = async (place, model, result) => {
    results.push(result);
    await asked[place].took(model, result);
  };
  let failure = "";
  const failed = (place, sentence) => {
    failure = sentence;
    asked[place].end(sentence);
  };
  await readWords(asked.map((card) => card.file), asked[0].rotated, done, failed);
  if (failure) say(failure, true);
  else tell(results, "picture");
}

function tell(results, noun) {
  const texts = results.filter((result) => !result.error).map((result) => result.text || "nothing");
  const failed = results.length - texts.length;
  const read = `${count(texts.length, noun)} read${texts.length && texts.length <= 3 ? `: ${texts.join(", ")}` : ""}`;
  say(failed ? `${read}, ${failed} could not be read.` : `${read}.`, failed > 0);
}
