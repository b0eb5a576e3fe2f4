// What the page asks the server.

const MOST_TRIES = 3;
const LONGEST_WAIT_S = 10;
const PICTURES_AT_ONCE = 32;

// Not relative: fetch refuses that under a page which was opened with a key in its own address.
export function address(path, rotate, attention) {
  const url = new URL(path, location.origin);
  if (rotate) url.searchParams.set("rotate", "true");
  if (attention) url.searchParams.set("attention", "true");
  return url.href;
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function post(path, fields, rotate, tries = MOST_TRIES) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  const answer = await fetch(address(path, rotate, true), { method: "POST", body: form }).catch(() => {
    throw new Refusal(0, "The server cannot be reached.");
  });
  if (answer.status === 429 && tries > 1) {
    const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, LONGEST_WAIT_S);
    await new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });
    return post(path, fields, rotate, tries - 1);
  }
  const body = await answer.json().catch(() => null); // a proxy's own refusals are no JSON
  if (answer.ok && body) return body;
  const hint = answer.status === 401 ? " Reload the page and give the key as the password." : "";
  throw new Refusal(answer.status, (body?.detail || `The server answered ${answer.status}.`) + hint);
}

// Reads whole pictures and tells `done(place, model, result)` of each, or `failed(place, sentence)`.
export async function readWords(files, rotate, done, failed) {
  const places = [...files.keys()];
  const groups = [];
  while (places.length) groups.push(places.splice(0, PICTURES_AT_ONCE));
  while (groups.length) {
    const group = groups.shift();
    try {
      const { model, results } = await post("/v1/recognize", group.map((place) => ["images", files[place]]), rotate);
      for (const [i, place] of group.entries()) await done(place, model, results[i]);
    } catch (refusal) {
      const half = Math.ceil(group.length / 2);
      // The server's limits are its operator's: fewer at once may pass.
      if (refusal.status === 413 && group.length > 1) groups.unshift(group.slice(0, half), group.slice(half));
      else group.forEach((place) => failed(place, refusal.message));
    }
  }
}

export function readRegions(file, regions, rotate) {
  return post("/v1/regions", [["image", file], ["regions", JSON.stringify(regions)]], rotate);
}

// The model's name, and whether the server asks for keys.
export async function about() {
  const url = address("/v1/models");
  let answer = await fetch(url, { credentials: "omit" });
  const keyed = answer.status === 401;
  if (keyed) answer = await fetch(url);
  const body = answer.ok ? await answer.json() : { models: [] };
  return { keyed, models: body.models.map((model) => model.name) };
}
