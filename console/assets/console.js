// Loads the live sections of a page again and again. The page works without this script.
"use strict";

(() => {
  const INTERVAL = 2000;
  const state = document.getElementById("live-state");
  const button = document.getElementById("live-switch");
  if (!state || !button) return;
  // A section whose next rows are at another address.
  const feed = document.querySelector("[data-next]");
  let isPaused = false;

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  // Puts the rows of a feed below those that have come.
  function keepRows(next) {
    const kept = feed.querySelector(".scroll");
    const come = next.querySelector(".scroll");
    if (!kept) return;
    if (!come) {
      next.querySelector(".empty").replaceWith(kept.cloneNode(true));
      return;
    }
    const rows = come.querySelector("tbody");
    rows.append(...kept.cloneNode(true).querySelectorAll("tbody tr"));
    while (rows.rows.length > feed.dataset.rowsMax) rows.lastElementChild.remove();
  }

  async function update() {
    const options = { headers: { "passbook-live": "1" }, redirect: "error" };
    const response = await fetch(feed ? feed.dataset.next : location.href, options);
    if (response.status === 401) {
      isPaused = true;
      button.hidden = true;
      state.textContent = "You are signed out. Reload the page to sign in.";
      return;
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (isPaused) return;
    for (const section of document.querySelectorAll("[data-live]")) {
      const next = page.getElementById(section.id);
      // What has the focus stays, so that nobody loses the place.
      const isKept = section.contains(document.activeElement);
      if (!next || isKept) continue;
      if (section === feed) {
        keepRows(next);
        feed.dataset.next = next.dataset.next;
      }
      if (next.innerHTML !== section.innerHTML) section.replaceChildren(...next.childNodes);
    }
    const problem = page.querySelector(".problem");
    const why = problem ? problem.textContent : response.statusText;
    say(response.ok ? "Live" : `The page shows what it was. ${why}`);
  }

  async function loop() {
    if (!isPaused && !document.hidden) {
      try {
        await update();
      } catch {
        if (!isPaused) say("The server does not answer. The page shows what it was.");
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
