// Readings as text, as the server's JSON, and as a curl command that repeats the request.
import { say } from "./dom.js";
import { address, REGIONS_AT_ONCE } from "./server.js";

export function asText(results) {
  return results.map((result) => result.text ?? "").join("\n");
}

// The response without attention, as the curl command below gets it.
export function asJson(model, results) {
  return JSON.stringify({ model, results: results.map((result) => ({ ...result, attention: undefined })) }, null, 2);
}

function quoted(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

// For a POSIX shell in the folder of the picture. `regions` is undefined if the picture is one word; many are several
// commands, as the page sends several requests.
export function asCurl(name, regions, rotate, keyed) {
  if (regions?.length > REGIONS_AT_ONCE) {
    const rest = regions.slice(REGIONS_AT_ONCE);
    return [regions.slice(0, REGIONS_AT_ONCE), rest].map((some) => asCurl(name, some, rotate, keyed)).join("\n");
  }
  const file = `@"${name.replace(/["\\]/g, "\\$&")}"`; // curl's own quotes, for names with ; or ,
  const parts = ["curl"];
  if (keyed) parts.push('-H "Authorization: Bearer $STR_APP_API_KEY"');
  if (regions) parts.push("-F", quoted(`image=${file}`), "-F", quoted(`regions=${JSON.stringify(regions)}`));
  else parts.push("-F", quoted(`images=${file}`));
  return [...parts, quoted(address(regions ? "/v1/regions" : "/v1/recognize", rotate))].join(" ");
}

export async function copy(text, what) {
  try {
    // Browsers give the clipboard only to pages from localhost or over TLS.
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else if (!copiedBySelection(text)) throw new Error();
    say(`Copied as ${what}.`);
  } catch {
    say("The browser did not allow copying.", true);
  }
}

function copiedBySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}
