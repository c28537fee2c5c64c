// Keeps a page that a watching server delivers up to date. Only sections whose text changed are
// replaced, so that scroll, open details, chosen points and switches stay as the reader left them.
"use strict";
(() => {
  let version = document.documentElement.dataset.version;
  const state = document.querySelector("#live-state");
  const say = (words) => { if (state) state.textContent = words; };
  const sections = (page) => [...page.querySelectorAll("main > [id]")];
  let seen = new Map(sections(document).map((part) => [part.id, part.dataset.mark]));

  const merge = (page) => {
    const main = document.querySelector("main");
    const fresh = sections(page);
    const ids = new Set(fresh.map((part) => part.id));
    sections(document).filter((part) => !ids.has(part.id)).forEach((part) => part.remove());
    fresh.forEach((part, i) => {
      const old = document.getElementById(part.id);
      if (old && seen.get(part.id) === part.dataset.mark) return;
      const made = document.importNode(part, true);
      const open = old ? [...old.querySelectorAll("details")].map((d) => d.open) : [];
      made.querySelectorAll("details").forEach((d, k) => { d.open = open[k] ?? d.open; });
      if (old) old.replaceWith(made);
      else if (i === 0) main.prepend(made);
      else document.getElementById(fresh[i - 1].id).after(made);
      if (part.id === "map") window.mountMap?.(document);
    });
    seen = new Map(fresh.map((part) => [part.id, part.dataset.mark]));
    document.title = page.title;
  };

  const refresh = async () => {
    try {
      const answer = await fetch("version" + location.search, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const newest = await answer.text();
      if (newest !== version) {
        const page = await (await fetch(location.href, { cache: "no-store" })).text();
        merge(new DOMParser().parseFromString(page, "text/html"));
        version = newest;
      }
      say("live");
    } catch {
      say("no answer from the server; it may have been stopped");
    }
    setTimeout(refresh, 2000);
  };
  setTimeout(refresh, 2000);
})();
