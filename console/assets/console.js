// Loads the live sections of a page again and again. The page works without this script.
"use strict";

(() => {
  const INTERVAL = 2000;
  const state = document.getElementById("live-state");
  const button = document.getElementById("live-switch");
  if (!state || !button) return;
  let isPaused = false;

  async function update() {
    const options = { headers: { "passbook-live": "1" }, redirect: "error" };
    const response = await fetch(location.href, options);
    if (response.status === 401) {
      isPaused = true;
      button.hidden = true;
      state.textContent = "You are signed out. Reload the page to sign in.";
      return;
    }
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const section of document.querySelectorAll("[data-live]")) {
      const next = page.getElementById(section.id);
      // What has the focus stays, so that nobody loses the place.
      const isKept = section.contains(document.activeElement);
      if (next && !isKept && next.innerHTML !== section.innerHTML) {
        section.replaceChildren(...next.childNodes);
      }
    }
    if (state.textContent !== "Live") state.textContent = "Live";
  }

  async function loop() {
    if (!isPaused && !document.hidden) {
      try {
        await update();
      } catch {
        state.textContent = "The server does not answer. The page shows what it was.";
      }
    }
    setTimeout(loop, INTERVAL);
  }

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Continue" : "Pause";
    state.textContent = isPaused ? "Paused" : "Live";
  });
  button.parentElement.hidden = false;
  setTimeout(loop, INTERVAL);
})();
