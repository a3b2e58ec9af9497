// The interactive description of the API. It reads /openapi.json and needs nothing from anywhere else.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const key = document.getElementById("key");
const find = document.getElementById("find");
key.value = sessionStorage.getItem("recourse-key") || "";
key.addEventListener("input", () => sessionStorage.setItem("recourse-key", key.value));

/** Make an element: tag, attributes, children (text or elements). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function resolved(schema, document_) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? { ...document_.components.schemas[name], name } : schema || {};
}

/** In words: what a value looks like. */
function inWords(schema, document_) {
  const own = resolved(schema, document_);
  if (own.name) return own.name;
  const some = own.oneOf || own.anyOf;
  if (some) return some.map((each) => inWords(each, document_)).join(" or ");
  if (own.enum) return own.enum.map((each) => JSON.stringify(each)).join(", ");
  if (own.const !== undefined) return JSON.stringify(own.const);
  if (own.type === "array") return `list of ${inWords(own.items || {}, document_)}`;
  const type = Array.isArray(own.type) ? own.type.join(" or ") : own.type || "anything";
  return own.format ? `${type} (${own.format})` : type;
}

/** An example to start from: what is required, and nothing else. */
function example(schema, document_, depth = 0) {
  const own = resolved(schema, document_);
  if (own.default !== undefined && own.default !== null) return own.default;
  if (own.examples && own.examples.length) return own.examples[0];
  if (own.const !== undefined) return own.const;
  if (own.enum) return own.enum[0];
  const some = own.oneOf || own.anyOf;
  if (some) return example(some.find((each) => each.type !== "null") || {}, document_, depth);
  const type = Array.isArray(own.type) ? own.type.find((each) => each !== "null") : own.type;
  if (type === "object" || own.properties) {
    const result = {};
    if (depth > 4) return result;
    for (const name of own.required || []) result[name] = example((own.properties || {})[name], document_, depth + 1);
    return result;
  }
  if (type === "array") return [];
  if (type === "integer" || type === "number") return own.minimum || 0;
  if (type === "boolean") return false;
  if (own.format === "date-time") return new Date().toISOString();
  if (own.format === "uuid") return "00000000-0000-0000-0000-000000000000";
  return "";
}

function fieldTable(schema, document_) {
  const own = resolved(schema, document_);
  if (!own.properties) return null;
  const needed = new Set(own.required || []);
  const rows = Object.entries(own.properties).map(([name, each]) =>
    make("tr", {}, make("td", { class: needed.has(name) ? "needed" : "" }, make("code", {}, name)),
      make("td", {}, inWords(each, document_)), make("td", { class: "quiet" }, resolved(each, document_).description || "")));
  return make("table", {}, make("tbody", {}, ...rows));
}

function operationOf(path, method, operation, shared, document_) {
  const inside = make("div", { class: "inside" });
  const box = make("details", { id: operation.operationId }, make("summary", {}, make("span", { class: `method ${method}` }, method.toUpperCase()),
    make("code", {}, path), make("span", { class: "quiet" }, operation.summary || "")), inside);
  box.dataset.words = `${method} ${path} ${operation.summary || ""} ${operation.description || ""} ${operation.operationId || ""}`.toLowerCase();
  box.addEventListener("toggle", () => { if (box.open && !inside.childElementCount) fill(inside, path, method, operation, shared, document_); });
  return box;
}

function fill(inside, path, method, operation, shared, document_) {
  if (operation.description && operation.description !== `${operation.summary}.`) inside.append(make("p", {}, operation.description));
  const parameters = [...(shared || []), ...(operation.parameters || [])].filter((each) => each.in !== "cookie");
  const inputs = parameters.map((each) => {
    const input = make("input", { size: 34, placeholder: inWords(each.schema, document_) });
    return { ...each, input };
  });
  if (method === "post") {
    const own = { name: "Idempotency-Key", in: "header", input: make("input", { size: 40 }) };
    if (!inputs.some((each) => each.name.toLowerCase() === "idempotency-key")) {
      own.input.value = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
      own.description = "the same on a retry; fresh for a new request";
      inputs.push(own);
    }
  }
  if (inputs.length) {
    inside.append(make("table", {}, make("tbody", {}, ...inputs.map((each) => make("tr", {},
      make("td", { class: each.required ? "needed" : "" }, make("code", {}, each.name), ` (${each.in})`), make("td", {}, each.input),
      make("td", { class: "quiet" }, each.description || (each.schema && each.schema.description) || ""))))));
  }
  let body = null;
  const content = operation.requestBody && operation.requestBody.content;
  if (content) {
    const [type, media] = Object.entries(content)[0];
    const schema = media.schema;
    const area = make("textarea", { spellcheck: "false", "aria-label": "body" });
    area.value = schema && type === "application/json" ? JSON.stringify(example(schema, document_), null, 2) : "";
    body = { type, area };
    inside.append(make("p", {}, "Body ", make("code", {}, schema && schema.$ref ? inWords(schema, document_) : type)), fieldTable(schema, document_) || "", area);
  }
  const send = make("button", { type: "button" }, "Send");
  const command = make("pre", {});
  const answer = make("div", {});
  send.addEventListener("click", () => ask(path, method, inputs, body, command, answer));
  inside.append(make("p", {}, send), command, answer, answers(operation, document_));
}

function answers(operation, document_) {
  const rows = Object.entries(operation.responses || {}).map(([status, response]) => {
    const media = Object.values(response.content || {})[0];
    return make("tr", {}, make("td", {}, status), make("td", {}, response.description || ""),
      make("td", {}, media && media.schema ? make("code", {}, inWords(media.schema, document_)) : ""));
  });
  return make("table", {}, make("tbody", {}, ...rows));
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function ask(path, method, inputs, body, command, answer) {
  let target = path;
  const query = new URLSearchParams();
  const headers = {};
  for (const each of inputs) {
    const value = each.input.value.trim();
    if (each.in === "path") target = target.replace(new RegExp(`\\{${each.name}[^}]*\\}`), encodeURIComponent(value));
    else if (value && each.in === "query") query.append(each.name, value);
    else if (value && each.in === "header") headers[each.name] = value;
  }
  if (key.value) headers.Authorization = `Bearer ${key.value.trim()}`;
  const options = { method: method.toUpperCase(), headers };
  if (body && body.area.value.trim()) {
    headers["Content-Type"] = body.type;
    options.body = body.area.value;
  }
  const address = target + (query.size ? `?${query}` : "");
  const shown = Object.entries(headers).map(([name, value]) =>
    `-H ${quoted(`${name}: ${name === "Authorization" ? "Bearer $RECOURSE_KEY" : value}`)}`.replace("'Authorization: Bearer $RECOURSE_KEY'", '"Authorization: Bearer $RECOURSE_KEY"'));
  command.textContent = ["curl", `-X ${options.method}`, ...shown, options.body ? `-d ${quoted(options.body)}` : "", quoted(location.origin + address)].filter(Boolean).join(" ");
  answer.replaceChildren("…");
  try {
    const began = performance.now();
    const response = await fetch(address, options);
    const text = await response.text();
    let pretty = text;
    try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON; shown as it is */ }
    answer.replaceChildren(make("p", { class: `status-${String(response.status)[0]}` },
      `${response.status} ${response.statusText} in ${Math.round(performance.now() - began)} ms`), make("pre", {}, pretty));
  } catch (error) {
    answer.replaceChildren(make("p", { class: "status-0" }, String(error)));
  }
}

function show(document_) {
  const operations = document.getElementById("operations");
  const services = document.getElementById("services");
  operations.replaceChildren();
  for (const tag of document_.tags) {
    const section = make("section", {}, make("h2", { id: tag.name }, tag.name), make("p", { class: "quiet" }, tag.description || ""));
    for (const [path, item] of Object.entries(document_.paths)) {
      for (const method of METHODS) {
        if (item[method] && (item[method].tags || []).includes(tag.name)) {
          section.append(operationOf(path, method, item[method], item.parameters, document_));
        }
      }
    }
    operations.append(section);
    services.append(make("a", { href: `#${tag.name}` }, tag.name));
  }
  const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));  // …/docs#create_complaint
  if (wanted) {
    wanted.open = true;
    wanted.scrollIntoView();
  }
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const box of operations.querySelectorAll("details")) box.hidden = !words.every((word) => box.dataset.words.includes(word));
  });
}

fetch("/openapi.json").then((response) => response.ok ? response.json() : Promise.reject(new Error(`${response.status} ${response.statusText}`)))
  .then(show, (error) => { document.getElementById("operations").textContent = `The description cannot be read: ${error.message}`; });
