// Copies texts, and shows while somebody types what a form would change. Every page works without.
"use strict";

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    const status = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      status.textContent = "Copied.";
    } catch {
      status.textContent = "The browser does not allow copying: select the text.";
    }
  });
}

const form = document.querySelector("form[data-preview]");
const preview = document.getElementById("preview");
if (form && preview) {
  let timer;
  let latest = 0;
  const update = async () => {
    const number = ++latest;
    const response = await fetch(form.dataset.preview, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "Content-Type": "application/x-www-form-urlencoded" },
    }).catch(() => null);
    if (number !== latest) return;
    if (!response || !response.ok) {
      preview.textContent = "There is no preview now: the console did not answer.";
      return;
    }
    // The fragment is a page of this console, in which all values are escaped.
    const fragment = new DOMParser().parseFromString(await response.text(), "text/html");
    preview.replaceChildren(...fragment.body.childNodes);
    // A screen reader says how much would change, and not all of it at each pause.
    const changes = preview.querySelectorAll("tbody tr").length;
    document.getElementById("preview-status").textContent = `Keys that would change: ${changes}`;
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 300);
  });
}

// A double click must not send a form twice.
for (const sent of document.querySelectorAll('form[method="post"]')) {
  sent.addEventListener("submit", (event) => {
    if (sent.dataset.sent) event.preventDefault();
    sent.dataset.sent = "yes";
    setTimeout(() => delete sent.dataset.sent, 2000);
  });
}

// Leads to what is to be corrected.
document.querySelector(".problems")?.focus();
