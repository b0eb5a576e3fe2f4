import { element } from "./dom.js";

// A paragraph in which `code` is marked up.
function prose(className, text) {
  const pieces = (text || "").split("`").map((piece, i) => (i % 2 ? element("code", "", piece) : piece));
  return element("p", className, ...pieces);
}

function typeName(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeName).join(" or ");
  if (schema.type === "array") return `list of ${typeName(schema.items || {})}`;
  return schema.format || (schema.properties && schema.title) || schema.type || "any";
}

function bodyNames(content) {
  return Object.entries(content || {}).map(([type, body]) => `${type}: ${typeName(body.schema || {})}`).join("; ");
}

function table(head, rows) {
  const cells = (tag, row) => element("tr", "", ...row.map((cell) => element(tag, "", cell)));
  return element("table", "", element("thead", "", cells("th", head)), element("tbody", "", ...rows.map((row) => cells("td", row))));
}

function operation(path, method, about) {
  const heading = element("h2", "", element("span", "method", method.toUpperCase()), element("code", "", path));
  const parts = [heading, element("p", "", about.summary), prose("quiet", about.description)];
  const query = (about.parameters || []).filter((parameter) => parameter.in === "query");
  if (query.length) {
    parts.push(table(["Query parameter", "Type", "Meaning"], query.map(({ name, schema, description }) => [
      name, typeName(schema) + ("default" in schema ? `, default ${schema.default}` : ""), prose("", description),
    ])));
  }
  if (about.requestBody) {
    parts.push(prose("", `Body: ${about.requestBody.description}`));
    parts.push(table(["Content type", "Content"], Object.entries(about.requestBody.content).map(([type, body]) => {
      const fields = Object.entries(body.schema.properties || {}).map(([name, schema]) => `field ${name}: ${typeName(schema)}`);
      return [type, fields.join(", ") || typeName(body.schema)];
    })));
  }
  const answers = Object.entries(about.responses).map(([status, answer]) => [status, answer.description, bodyNames(answer.content)]);
  parts.push(table(["Status", "Meaning", "Response"], answers));
  const section = element("section", "", ...parts);
  section.dataset.tag = about.tags[0];
  return section;
}

function object(name, schema) {
  const rows = Object.entries(schema.properties || {}).map(([field, about]) => [field, typeName(about), about.description || ""]);
  return element("section", "", element("h3", "", name), prose("quiet", schema.description), table(["Field", "Type", ""], rows));
}

document.getElementById("examples").textContent = [
  `curl -F images=@first.jpg -F images=@second.png ${location.origin}/v1/recognize`,
  `curl -H 'Content-Type: image/jpeg' --data-binary @first.jpg ${location.origin}/v1/recognize`,
].join("\n");

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((document_) => {
    const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, about]) => operation(path, method, about)));
    operations.sort((a, b) => (a.dataset.tag === "health") - (b.dataset.tag === "health"));
    document.getElementById("operations").append(...operations);
    const schemas = Object.entries(document_.components.schemas);
    document.getElementById("schemas").append(...schemas.map(([name, schema]) => object(name, schema)));
  });
