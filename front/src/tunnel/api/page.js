// Shows /api-docs/openapi.json and tries what it describes. Everything it writes is text, never markup.
"use strict";

const METHODS = ["get", "post", "delete"];

function element(kind, text, ...children) {
  const made = document.createElement(kind);
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

// Follows a "$ref" inside the document.
function resolve(api, node) {
  if (!node || !node.$ref) return node;
  return node.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
}

function rows(pairs) {
  return element("table", null, ...pairs.map(([name, what]) =>
    element("tr", null, element("th", name), element("td", what))));
}

async function send(api, path, method, servers, fields, body, output) {
  let url = servers ? path : document.getElementById("base").value + path;
  for (const [name, input] of fields) url = url.replace(`{${name}}`, encodeURIComponent(input.value));
  const headers = { "Accept": "application/json" };
  const token = document.getElementById("token").value;
  if (token) headers["X-Auth-Token"] = token;
  if (body) headers["Content-Type"] = "application/json";
  output.textContent = "...";
  try {
    const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
    output.textContent = `${answer.status}\n${await answer.text()}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

function operation(api, path, method, described, servers) {
  const box = element("details", null,
    element("summary", null, element("span", method.toUpperCase()), element("code", path),
      document.createTextNode(` ${described.summary || ""}`)));
  box.firstChild.firstChild.className = "method";
  if (described.description) box.append(element("p", described.description));
  const fields = (described.parameters || []).map((parameter) => {
    const { name, description, example } = resolve(api, parameter);
    const input = element("input");
    input.value = example ?? "";
    box.append(element("label", `${name}: `, input, document.createTextNode(` ${description || ""}`)));
    return [name, input];
  });
  let body;
  const content = described.requestBody && described.requestBody.content["application/json"];
  if (content) {
    body = element("textarea", JSON.stringify(content.example, null, 2));
    box.append(element("label", "Body:", body));
  }
  const answers = Object.entries(described.responses).map(([code, answer]) =>
    [code, resolve(api, answer).description]);
  const output = element("pre");
  const button = element("button", "Try it");
  button.addEventListener("click", () => send(api, path, method, servers, fields, body, output));
  box.append(rows(answers), button, output);
  return box;
}

async function show() {
  const api = await (await fetch("/api-docs/openapi.json")).json();
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description;
  document.getElementById("base").append(...api.servers.map(({ url }) => element("option", url)));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((known) => item[known])) {
      document.getElementById("operations").append(operation(api, path, method, item[method], item.servers));
    }
  }
}

show();
