// The form of a new order: shows the fields of the action, and checks the order while it is written.
"use strict";

const WAIT_MS = 700;
const form = document.getElementById("new-order");
const findings = document.getElementById("findings");
let waiting = 0, asked = null;

function showFields() {
  const action = form.elements.action.value;
  for (const part of form.querySelectorAll("[data-for]")) {
    part.hidden = action !== "" && !part.dataset.for.split(" ").includes(action);
  }
}

async function check() {
  const isStarted = form.elements.issuer.value && form.elements.id.value && form.elements.action.value;
  // A file is checked when the button is pressed: it may be large.
  if (!isStarted || form.elements.names_file.files.length) return;
  if (asked !== null) asked.abort();
  asked = new AbortController();
  try {
    const options = { method: "POST", body: new FormData(form), signal: asked.signal, credentials: "same-origin" };
    const response = await fetch(form.dataset.check, options);
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    findings.replaceChildren(...page.body.childNodes);
    findings.dataset.checked = String(Number(findings.dataset.checked || 0) + 1);
  } catch (error) {
    // The next change asks again; the button does not need this script.
  }
}

form.addEventListener("input", event => {
  if (event.target.name === "action") showFields();
  clearTimeout(waiting);
  waiting = setTimeout(check, WAIT_MS);
});
showFields();
