// An element with a class and children; undefined children are left out, text is never taken for markup.
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

const status = document.getElementById("status");
let fading;

// Shows a sentence for a while, and has screen readers say it.
export function say(sentence, failed = false) {
  clearTimeout(fading);
  status.className = failed ? "failure" : "";
  status.textContent = sentence;
  fading = setTimeout(() => { status.textContent = ""; }, 6000);
}

export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
