// Requests to the server.

const MOST_TRIES = 3;
const LONGEST_WAIT_S = 10;
const PICTURES_AT_ONCE = 32;
export const REGIONS_AT_ONCE = 64;

// Absolute: fetch rejects relative URLs if the page was opened with credentials in its URL.
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
  const answer = await fetch(address(path, rotate, path !== "/v1/photos"), { method: "POST", body: form }).catch(() => {
    throw new Refusal(0, "The server cannot be reached.");
  });
  if (answer.status === 429 && tries > 1) {
    const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, LONGEST_WAIT_S);
    await new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });
    return post(path, fields, rotate, tries - 1);
  }
  const body = await answer.json().catch(() => null); // a proxy's own errors are not JSON
  if (answer.ok && body) return body;
  const hint = answer.status === 401 ? " Reload the page and give the key as the password." : "";
  throw new Refusal(answer.status, (body?.detail || `The server answered ${answer.status}.`) + hint);
}

// Reads whole pictures; calls `done(index, model, result)` or `failed(index, message)` for each.
export async function readWords(files, rotate, done, failed) {
  const indices = [...files.keys()];
  const groups = [];
  while (indices.length) groups.push(indices.splice(0, PICTURES_AT_ONCE));
  while (groups.length) {
    const group = groups.shift();
    const fields = group.map((index) => ["images", files[index]]);
    const { model, results, refusal } = await post("/v1/recognize", fields, rotate).catch((error) => ({ refusal: error }));
    if (!refusal) {
      for (const [i, index] of group.entries()) {
        await done(index, model, results[i]).catch((error) => failed(index, error.message)); // not drawn
      }
      continue;
    }
    const half = Math.ceil(group.length / 2);
    // The limits are set by the operator: fewer pictures per request may pass.
    if (refusal.status === 413 && group.length > 1) groups.unshift(group.slice(0, half), group.slice(half));
    else group.forEach((index) => failed(index, refusal.message));
  }
}

// In several requests where there are many regions. If the first is refused, so are all; if a later one, its regions are.
export async function readRegions(file, regions, rotate) {
  const answer = { model: "", results: [] };
  for (let first = 0; first < regions.length; first += REGIONS_AT_ONCE) {
    const some = regions.slice(first, first + REGIONS_AT_ONCE);
    const fields = [["image", file], ["regions", JSON.stringify(some)]];
    const { model, results, refusal } = await post("/v1/regions", fields, rotate).catch((error) => ({ refusal: error }));
    if (refusal && !first) throw refusal;
    answer.model = model ?? answer.model;
    answer.results.push(...(results ?? some.map(() => ({ error: { message: refusal.message } }))));
  }
  return answer;
}

export function findWords(file) {
  return post("/v1/photos", [["image", file]]);
}

// The names of the models, the detector's or null, and whether the server requires keys.
export async function about() {
  const url = address("/v1/models");
  let answer = await fetch(url, { credentials: "omit" });
  const keyed = answer.status === 401;
  if (keyed) answer = await fetch(url);
  const body = answer.ok ? await answer.json() : { models: [] };
  return { keyed, detector: body.detector ?? null, models: body.models.map((model) => model.name) };
}
