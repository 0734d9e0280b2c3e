// Shows the OpenAPI document of the server API: all methods with their fields, a curl command and a response.
"use strict";

const REF = "#/components/schemas/";

/** Creates an element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

/** Converts text with `code` in backticks to child nodes. */
function prose(text) {
  return (text || "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.slice(REF.length);
    return [make("a", { href: "#" + name }, name)];
  }
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) {
    return ["object of ", ...typeOf(schema.additionalProperties)];
  }
  return [schema.type || "any JSON"];
}

function defaultOf(schema) {
  const value = schema.default;
  const empty = value === undefined || value === "" || JSON.stringify(value) === "[]" || JSON.stringify(value) === "{}";
  return empty ? [] : ["default ", make("code", {}, JSON.stringify(value))];
}

/** Lists the fields of an object, required fields first. `requiredWord` marks them: results use "always". */
function fields(schema, requiredWord) {
  const required = schema.required || [];
  const entries = Object.entries(schema.properties || {});
  if (!entries.length) return make("p", { class: "none" }, "No fields.");
  entries.sort(([a], [b]) => required.includes(b) - required.includes(a));
  const list = make("dl", { class: "fields" });
  for (const [name, field] of entries) {
    const note = required.includes(name) ? [make("strong", {}, requiredWord)] : defaultOf(field);
    list.append(
      make("div", {},
        make("dt", {}, make("code", {}, name), " ", make("span", { class: "type" }, typeOf(field)), " ",
          make("span", { class: "note" }, note)),
        make("dd", {}, prose(field.description))));
  }
  return list;
}

function curl(method, example) {
  const url = new URL(method, location.href).href;
  const body = JSON.stringify(example).replaceAll("'", "'\\''");
  return `curl ${url} -H 'X-API-Key: <key>' \\\n  -d '${body}'`;
}

function copyable(text, label) {
  const code = make("code", {}, text);
  const button = make("button", { type: "button", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text, code)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return make("div", { class: "snippet" }, make("pre", { tabindex: "0" }, code), button);
}

/** Copies text to the clipboard. Without a clipboard, as on pages over plain HTTP, selects it and returns false. */
async function copy(text, element) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The browser does not permit it. The text is selected below.
    }
  }
  getSelection().selectAllChildren(element);
  return false;
}

function resultOf(schema) {
  const success = schema.oneOf[0];
  const ref = (success.$ref ? success : success.properties.result).$ref;
  return ref.slice(REF.length);
}

function methodSection(path, operation, schemas) {
  const name = operation.operationId;
  const request = operation.requestBody.content["application/json"];
  const response = operation.responses["200"].content["application/json"];
  const requestSchema = schemas[request.schema.$ref.slice(REF.length)];
  const resultSchema = schemas[resultOf(response.schema)];
  return make("section", { id: name },
    make("h2", {}, make("a", { href: "#" + name }, make("span", { class: "verb" }, "POST "), path)),
    make("p", { class: "summary" }, prose(operation.summary)),
    make("p", {}, prose(operation.description)),
    make("h3", {}, "Request"), fields(requestSchema, "required"),
    copyable(curl(name, request.example), `the curl command for ${name}`),
    make("h3", {}, "Result"), make("p", {}, prose(resultSchema.description)), fields(resultSchema, "always"),
    make("div", { class: "snippet" },
      make("pre", { tabindex: "0" }, make("code", {}, JSON.stringify(response.example, null, 2)))));
}

/** The names of the schemas that fields of this schema refer to: directly, in lists or in objects. */
function partsOf(schema) {
  return Object.values(schema.properties || {})
    .flatMap((field) => [field, field.items, field.additionalProperties])
    .filter((holder) => holder && holder.$ref)
    .map((holder) => holder.$ref.slice(REF.length));
}

function objectsSection(schemas) {
  const names = [...new Set(Object.values(schemas).flatMap(partsOf))].sort();
  const parts = names.map((name) => make("div", { id: name, class: "object" },
    make("h3", {}, name), make("p", {}, prose(schemas[name].description)), fields(schemas[name], "always")));
  return make("section", { id: "objects" }, make("h2", {}, "Objects"), ...parts);
}

function show(api) {
  const schemas = api.components.schemas;
  const operations = Object.entries(api.paths).map(([path, item]) => [path, item.post]);
  document.getElementById("about").append(...prose(api.info.description));
  document.getElementById("version").textContent = `Version ${api.info.version}`;
  document.getElementById("menu").append(...operations.map(([, operation]) =>
    make("li", {}, make("a", { href: "#" + operation.operationId, title: operation.summary }, operation.operationId))));
  document.getElementById("methods").replaceChildren(
    ...operations.map(([path, operation]) => methodSection(path, operation, schemas)),
    objectsSection(schemas));
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
}

async function start() {
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
  } catch (error) {
    document.getElementById("state").textContent = `The OpenAPI document could not be loaded: ${error.message}.`;
  }
}

start();
