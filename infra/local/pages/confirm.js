"use strict";

const form = document.getElementById("confirm");
const result = document.getElementById("result");
const password = document.getElementById("password"); // null unless the page asks for one

function show(...messages) {
  result.replaceChildren(...messages.map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  }));
  result.focus();
}

// confirm sends the token in the fragment of the address. It returns whether the API accepted it.
async function confirm() {
  const token = location.hash.slice(1);
  if (token === "") {
    show("The link is incomplete. Open it from the mail again.");
    return false;
  }
  let response, body;
  try {
    response = await fetch(form.dataset.action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(password ? { token, newPassword: password.value } : { token }),
    });
    body = await response.json().catch(() => ({}));
  } catch {
    show("The request failed. Try again.");
    return false;
  }
  if (response.ok) {
    show(body.message ?? form.dataset.done);
    return true;
  }
  show(...(body.errors ?? [{ message: `The request failed with status ${response.status}. Try again.` }]).map((e) => e.message));
  return false;
}

form.hidden = false;
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  if (await confirm()) {
    form.hidden = true;
    history.replaceState(null, "", location.pathname); // the history must not hold the token
    return;
  }
  button.disabled = false;
});
