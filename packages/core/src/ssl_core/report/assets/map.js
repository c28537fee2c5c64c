// The map of held-out records: which places, which colours, the card of one point, neighbours.
// The page shows the first map without this script; here it becomes one that answers.
"use strict";
window.mountMap = (root) => {
  const holder = root.querySelector("#map-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const svg = root.querySelector("#map-plane");
  const card = root.querySelector("#map-card");
  const place = root.querySelector("#map-place");
  const colour = root.querySelector("#map-colour");
  const legend = root.querySelector("#map-legend");
  const sheet = root.querySelector("#map-sheet");
  const dots = [...svg.querySelectorAll("circle")];
  const make = (tag, words, name) => {
    const made = document.createElement(tag);
    if (words) made.textContent = words;
    if (name) made.className = name;
    return made;
  };

  const tone = (group) => {  // one of ten colours; every second ten are rings
    if (group < 0) return "none";
    return `c${group % 10}${Math.floor(group / 10) % 2 ? " ring" : ""}`;
  };

  // -- what is known of a record ---------------------------------------------------------------
  const groups = () => (colour.value === "label" ? data.labels : data.clusters);
  const nameOf = (group) => {
    if (colour.value === "cluster") return `cluster ${group + 1}`;
    return group < 0 ? "no label" : data.classes[group] ?? `class ${group}`;
  };
  const classOf = (i) => (data.labels[i] < 0 ? "" : data.classes[data.labels[i]] ?? "");

  const picture = (i, width) => {  // the record's cell of the sheet, drawn `width` wide
    const [w, h] = data.cell;
    const canvas = make("canvas");
    Object.assign(canvas, { width: w, height: h });
    canvas.style.width = `${width}px`;
    canvas.style.imageRendering = width < 2 * w ? "auto" : "pixelated";
    const draw = () => canvas.getContext("2d").drawImage(
      sheet, (i % data.columns) * w, Math.floor(i / data.columns) * h, w, h, 0, 0, w, h);
    if (sheet.complete) draw(); else sheet.addEventListener("load", draw, { once: true });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", data.keys[i]);
    return canvas;
  };
  const widthFor = (height, most) => Math.min(most, Math.round((height * data.cell[0]) / data.cell[1]));

  const thumb = (i, of, onPick) => {  // a small button; dashed where its class is another
    const button = make("button", "", "thumb");
    button.type = "button";
    button.title = data.keys[i];
    if (data.cell) button.append(picture(i, widthFor(84, 114)));
    else if (data.words.length) button.append(make("span", `${data.words[i].slice(0, 60)}…`, "told"));
    button.append(make("span", classOf(i) || data.keys[i].slice(-14)));
    if (of !== null && classOf(i) !== classOf(of)) {
      button.classList.add("other");
      button.title += ` (another class: ${classOf(i)})`;
    }
    button.addEventListener("click", () => onPick(i));
    return button;
  };

  // -- the chosen point ------------------------------------------------------------------------
  let here = -1;
  let pinned = false;
  const show = (i) => {
    if (i === here) return;
    here = i;
    dots.forEach((dot) => dot.classList.remove("here", "near"));
    dots[i].classList.add("here");
    svg.append(dots[i]);  // on top of the others
    data.near[i].forEach((other) => dots[other].classList.add("near"));
    const parts = [];
    if (data.cell) parts.push(picture(i, widthFor(150, 222)));
    parts.push(make("h3", data.keys[i]));
    const facts = [classOf(i) && `label ${classOf(i)}`, `cluster ${data.clusters[i] + 1}`].filter(Boolean).join(" · ");
    parts.push(make("p", facts));
    if (data.words.length) parts.push(make("p", data.words[i]));
    parts.push(make("p", "Nearest by the trained encoder", "note"));
    const thumbs = make("div", "", "thumbs");
    data.near[i].slice(0, 4).forEach((other) => thumbs.append(thumb(other, i, pick)));
    parts.push(thumbs);
    card.replaceChildren(...parts);
  };
  const pick = (i) => { pinned = true; show(i); svg.focus({ preventScroll: true }); };

  // -- places and colours ----------------------------------------------------------------------
  const shade = (only) => {
    groups().forEach((group, i) => {
      const faint = only !== null && group !== only ? " faint" : "";
      const marks = ["here", "near"].filter((m) => dots[i].classList.contains(m)).join(" ");
      dots[i].setAttribute("class", `${tone(group)}${faint} ${marks}`);
    });
  };
  const arrange = () => data.places[place.value].forEach(([x, y], i) => {
    dots[i].setAttribute("cx", x);
    dots[i].setAttribute("cy", y);
  });
  const list = () => {  // the legend: a button a group, which fades the others
    const counts = new Map();
    groups().forEach((group) => counts.set(group, (counts.get(group) ?? 0) + 1));
    const buttons = [...counts.keys()].sort((a, b) => a - b).slice(0, 30).map((group) => {
      const button = make("button", "", tone(group));
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(make("i"), make("span", `${nameOf(group)} (${counts.get(group)})`));
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") === "false";
        buttons.forEach((other) => other.setAttribute("aria-pressed", "false"));
        button.setAttribute("aria-pressed", String(on));
        shade(on ? group : null);
      });
      return button;
    });
    legend.replaceChildren(...buttons);
  };

  // -- pointer and keyboard --------------------------------------------------------------------
  const at = (i) => [dots[i].cx.baseVal.value, dots[i].cy.baseVal.value];
  const closest = (event) => {  // the dot nearest to the pointer, within 24 units
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = -1, least = 24 ** 2;
    dots.forEach((_, i) => {
      const [a, b] = at(i), square = (a - x) ** 2 + (b - y) ** 2;
      if (square < least) [best, least] = [i, square];
    });
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const i = closest(event);
    if (i >= 0 && !pinned) show(i);
  });
  svg.addEventListener("click", (event) => {
    const i = closest(event);
    if (i < 0) pinned = false; else { pinned = !(pinned && i === here); show(i); }
  });
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const toward = ([dx, dy]) => {  // the nearest dot in a direction; sideways distance counts double
    const [x, y] = at(here);
    let best = -1, least = Infinity;
    dots.forEach((_, i) => {
      const [a, b] = at(i), along = (a - x) * dx + (b - y) * dy;
      const aside = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
      if (i !== here && along > 0.05 && along + 2 * aside < least) {
        [best, least] = [i, along + 2 * aside];
      }
    });
    return best;
  };
  svg.addEventListener("focus", () => { if (here < 0) show(0); });
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") pinned = false;
    else if (event.key === "Enter" || event.key === " ") pinned = !pinned;
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(data.keys.length - 1);
    else if (event.key in WAYS) { const i = toward(WAYS[event.key]); if (i >= 0) show(i); }
    else return;
    event.preventDefault();
  });
  place.addEventListener("change", arrange);
  colour.addEventListener("change", () => { list(); shade(null); });
  root.querySelectorAll(".needs-script").forEach((part) => part.classList.remove("gone"));
  list();
  shade(null);

  // -- the gallery of neighbours ---------------------------------------------------------------
  const gallery = root.querySelector("#neighbours");
  const jump = (i) => { pick(i); svg.scrollIntoView({ block: "center" }); };
  data.examples.forEach((i) => {
    const row = make("div", "", "row");
    const others = make("div", "", "thumbs");
    data.near[i].forEach((other) => others.append(thumb(other, i, jump)));
    row.append(thumb(i, null, jump), others);
    gallery.append(row);
  });
};
window.mountMap(document);
