// One reading: the crop, its text, and characters that show where the network looked.
import { element } from "./dom.js";
import { crop, middle, view } from "./picture.js";

export function percent(confidence) {
  return `${Math.min(99, Math.round(100 * confidence))} %`; // never 100 %: no reading is certain
}

function level(confidence) {
  return confidence >= 0.9 ? "high" : confidence >= 0.6 ? "middle" : "low";
}

function hidden(text) {
  return element("span", "hidden", text);
}

// `bitmap` is null if the browser cannot decode the picture; `corners` and `upright` describe the part that was read.
export function readingView(bitmap, corners, upright, result) {
  const box = element("div", "reading");
  const cropped = bitmap ? view(crop(bitmap, corners, upright, result.rotation)) : null;
  const picture = element("div", "picture", cropped?.canvas);
  const words = element("div", "words");
  box.append(picture, words);
  if (cropped) cropped.canvas.setAttribute("aria-hidden", "true"); // the text beside it says the same
  if (result.error) {
    words.append(element("p", "failure", result.error.message));
    return box;
  }
  const sure = element("strong", level(result.confidence), `${level(result.confidence)}, ${percent(result.confidence)}`);
  const turned = result.rotation ? ` · read turned by ${result.rotation}°` : "";
  const text = result.text ? element("div", "text", result.text) : element("div", "text quiet", "(nothing to read)");
  words.append(text, element("p", "", "Confidence: ", sure, turned));
  if (result.characters.length) words.append(characters(result, cropped));
  return box;
}

function characters(result, cropped) {
  const list = element("ul", "characters");
  list.setAttribute("aria-label", "Characters, with confidence and where the network looked");
  const { maps, covered } = result.attention;
  let kept = null;
  const show = (place) => cropped?.look(maps[place], covered);
  const showKept = () => show(kept === null ? undefined : Number(kept.dataset.place));
  const keep = (button) => {
    kept?.setAttribute("aria-pressed", "false");
    kept = button;
    kept?.setAttribute("aria-pressed", "true");
    showKept();
  };
  const add = (place, className, shown, note) => {
    const where = `, looked ${Math.round(100 * middle(maps[place], covered))} % from the left`;
    const button = element("button", `character ${className}`, element("b", "", shown), element("span", "", note), hidden(where));
    button.type = "button";
    button.dataset.place = place;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("focus", () => show(place));
    button.addEventListener("pointerenter", () => show(place));
    for (const kind of ["blur", "pointerleave"]) button.addEventListener(kind, showKept);
    button.addEventListener("click", () => keep(kept === button ? null : button));
    list.append(element("li", "", button));
  };
  result.characters.forEach((one, place) => add(place, level(one.confidence), one.text, percent(one.confidence)));
  add(result.characters.length, "quiet", "⏎", "end");
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      keep(null);
      show();
    }
  });
  return list;
}
