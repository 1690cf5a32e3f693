// What the page can do beyond being read: sort the matrix, open its cells, look at scenes. All data is in #data.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const cellOf = (patch, victim) => data.cells.find((cell) => cell.patch === patch && cell.victim === victim);
  const sceneHolds = (scene, patch, victim) => scene.views[victim] && patch in scene.views[victim].under;

  // --- text and elements

  const make = (name, attributes = {}, ...inside) => {
    const out = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
    out.append(...inside);
    return out;
  };
  const minus = (text) => text.replace("-", "\u2212");
  const number = (value) => (value === null ? "\u2013" : minus(value.toFixed(3)).replace("\u22120.000", "0.000"));
  const percent = (value) => minus((100 * value).toFixed(Math.abs(value) < 0.095 ? 1 : 0)).replace(/^\u22120\.0$/, "0.0") + "\u00a0%";
  const interval = (pair) => `[${number(pair[0])}, ${number(pair[1])}]`;

  // --- the matrix: sorted by a press on a heading, walked through with the arrow keys

  const heat = byId("heat");
  const headings = [...heat.tHead.rows[0].cells];
  const bodies = [...heat.tBodies].filter((body) => body.querySelector("td[data-patch]"));
  const original = bodies.map((body) => [...body.rows].filter((row) => row.cells.length > 1));
  let sorted = { column: -1, direction: 1 };

  const worth = (row, column) => {
    const cell = row.cells[column];
    if (!column) return cell.textContent;
    return cell.dataset.drop === "" ? -Infinity : Number(cell.dataset.drop);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a === b ? 0 : a - b);

  // First press: the largest drop on top, or names from A; second: the other way; third: as it was.
  const sortBy = (column) => {
    const first = column ? -1 : 1;
    if (sorted.column !== column) sorted = { column, direction: first };
    else if (sorted.direction === first) sorted = { column, direction: -first };
    else sorted = { column: -1, direction: 1 };
    headings.forEach((heading, index) => {
      if (index === sorted.column) heading.setAttribute("aria-sort", sorted.direction > 0 ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
    });
    bodies.forEach((body, index) => {
      const rows = [...original[index]];
      if (sorted.column >= 0) {
        rows.sort((a, b) => sorted.direction * compare(worth(a, sorted.column), worth(b, sorted.column)));
      }
      body.append(...rows);
    });
  };

  headings.forEach((heading, column) => {
    const button = make("button", { type: "button", class: "sort" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(column));
  });

  // One cell of the matrix is in the tab order, the arrow keys reach the others.
  const buttons = () => bodies.flatMap((body) => [...body.querySelectorAll("button.open")]);
  const walk = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const focusCell = (button) => {
    for (const other of buttons()) other.tabIndex = other === button ? 0 : -1;
    button.focus();
  };

  for (const cell of heat.querySelectorAll("td[data-patch]")) {
    const { patch, victim } = cell.dataset;
    const button = make("button", { type: "button", class: "open", tabindex: "-1", "aria-haspopup": "dialog" }, ...cell.childNodes);
    button.setAttribute("aria-label", `${patch} on ${victim}: ${button.textContent}`);
    cell.append(button);
    button.addEventListener("click", () => { focusCell(button); openCell(patch, victim); });
    button.addEventListener("keydown", (event) => {
      if (event.key in walk) {
        const [right, down] = walk[event.key];
        const all = buttons();
        const column = cell.cellIndex - 1 + right;
        const next = all[all.indexOf(button) + right + down * data.victims.length];
        if (next && column >= 0 && column < data.victims.length) focusCell(next);
        event.preventDefault();
      }
    });
  }
  if (buttons().length) buttons()[0].tabIndex = 0;

  // --- an open cell

  const dialog = byId("cell");
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const verdictText = (cell) => {
    if (data.patches[cell.patch] !== "trained") return "A control: no patch was trained here.";
    if (cell.own) return "Its own network: the patch was trained on it (white box).";
    const said = {
      "transfers": `Transfers: it surely costs more than ${data.margin} beyond the random control.`,
      "does not": `Does not transfer: within \u00b1${data.margin} of the random control.`,
      "undecided": `Undecided: the interval crosses the margin of ${data.margin}.`,
    };
    return said[cell.verdict] || "No random control of its size and range to hold it against.";
  };

  // Intervals as lines on one axis, zero and the margin marked.
  const intervals = (cell) => {
    const lines = [["drop", cell.drop, cell.ci95]];
    if (cell.over) lines.push(["beyond random", cell.over.drop, cell.over.ci95]);
    const known = lines.flatMap(([, value, pair]) => [value, ...pair]).filter((value) => value !== null);
    const low = Math.min(-2 * data.margin, ...known), high = Math.max(2 * data.margin, ...known);
    const x = (value) => `${3 + (94 * (value - low)) / (high - low)}%`;
    const out = make("div", { class: "intervals" });
    for (const [name, value, pair] of lines) {
      const track = make("span", { class: "track", "aria-hidden": "true" });
      track.append(make("i", { class: "margin", style: `left:${x(-data.margin)};right:calc(100% - ${x(data.margin)})` }));
      track.append(make("i", { class: "zero", style: `left:${x(0)}` }));
      if (value !== null && pair[0] !== null) {
        track.append(make("i", { class: "range", style: `left:${x(pair[0])};right:calc(100% - ${x(pair[1])})` }));
        track.append(make("i", { class: "dot", style: `left:${x(value)}` }));
      }
      out.append(make("span", {}, name), track, make("span", { class: "value" }, make("b", {}, number(value)), ` ${interval(pair)}`));
    }
    return out;
  };

  const classTable = (cell) => {
    const lost = (one) => (one.clean === null || one.attacked === null ? null : one.clean - one.attacked);
    const rows = [...cell.classes].sort((a, b) => (lost(b) ?? -9) - (lost(a) ?? -9));
    const most = Math.max(0.05, ...rows.map((one) => lost(one) ?? 0));
    const head = ["class", "IoU clean", "attacked", "lost", "pixels right", "become"];
    const body = rows.map((one) => {
      const width = Math.max(0, Math.min(1, (lost(one) ?? 0) / most));
      const into = one.into.map(([name, share]) => `${name} ${one.exact ? "" : "+"}${percent(share)}`).join(", ");
      const right = one.right ? `${percent(one.right[0])} \u2192 ${percent(one.right[1])}` : "\u2013";
      const bar = make("td", { class: "loss" }, make("i", { style: `width:${4 * width}rem` }), number(lost(one)));
      const values = [number(one.clean), number(one.attacked)].map((text) => make("td", {}, text));
      return make("tr", {}, make("th", { scope: "row" }, one.name), ...values, bar, make("td", {}, right), make("td", { class: "words" }, into || "\u2013"));
    });
    return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "classes" },
      make("table", { class: "plain-table numbers" },
        make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", class: text === "become" ? "words" : "" }, text)))),
        make("tbody", {}, ...body)));
  };

  const thumbnails = (cell) => {
    const out = make("div", { class: "thumbs" });
    data.scenes.forEach((scene, index) => {
      if (!sceneHolds(scene, cell.patch, cell.victim)) return;
      const [map, share] = scene.views[cell.victim].under[cell.patch];
      const image = make("img", { src: png(map), alt: "" });
      const button = make("button", { type: "button" }, image, `${scene.name}: ${percent(share)} newly wrong`);
      button.addEventListener("click", () => { dialog.close(); showScene(index, cell.victim, cell.patch); });
      out.append(button);
    });
    return out;
  };

  const openCell = (patch, victim) => {
    const cell = cellOf(patch, victim);
    byId("cell-title").textContent = `${patch} on ${victim}`;
    const facts = [`mIoU outside the patch: ${number(cell.clean)} clean, ${number(cell.attacked)} attacked.`,
      `Pixels right under attack: ${cell.accuracy === null ? "\u2013" : percent(cell.accuracy)}.`];
    if (cell.over) facts.push(`p of the drop beyond random: ${number(cell.over.p)}.`);
    const scenes = thumbnails(cell);
    byId("cell-body").replaceChildren(
      make("p", { class: "lead" }, verdictText(cell)),
      intervals(cell),
      make("p", { class: "small" }, `The line is 0, the band \u00b1${data.margin}; intervals are 95\u00a0%.`),
      make("p", {}, facts.join(" ")),
      make("h3", {}, "Classes, the largest loss first"),
      make("p", { class: "small" }, cell.classes.some((one) => one.exact)
        ? "Pixels right: without and with the patch. What those become that are right without it, in shares of them."
        : "What a class becomes is net, in shares of its labelled pixels outside the patch."),
      classTable(cell),
      ...(scenes.childElementCount ? [make("h3", {}, "Scenes under this patch"), scenes] : []));
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  // --- scenes

  const png = (text) => `data:image/png;base64,${text}`;
  const indexOf = new Map(data.colours.map(([r, g, b], index) => [(r << 16) | (g << 8) | b, index]));
  const nothing = data.colours.length - 1;
  const read = new Map();

  // The class indices of an index map, from the colours of its pixels.
  const decode = (text) => {
    if (!read.has(text)) {
      if (read.size > 40) read.clear();
      read.set(text, (async () => {
        const image = new Image();
        image.src = png(text);
        await image.decode();
        const canvas = make("canvas", { width: image.width, height: image.height });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        const pixels = context.getImageData(0, 0, image.width, image.height).data;
        const indices = new Uint8Array(image.width * image.height);
        for (let i = 0, at = 0; i < indices.length; i += 1, at += 4) {
          indices[i] = indexOf.get((pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2]) ?? nothing;
        }
        return { width: image.width, height: image.height, indices };
      })());
    }
    return read.get(text);
  };

  const form = byId("viewer");
  if (!form || !data.scenes.length) { reveal(); return; }
  const controls = { scene: byId("scene"), network: byId("network"), patch: byId("patch") };
  const canvases = { below: byId("below"), above: byId("above") };
  let now = null;

  const fill = (select, names) => {
    const before = select.value;
    select.replaceChildren(...names.map(([value, text]) => make("option", { value }, text)));
    if (names.some(([value]) => value === before)) select.value = before;
  };
  const patchName = (patch, victim) => {
    const cell = cellOf(patch, victim);
    if (cell && cell.own) return `${patch} (own network)`;
    return data.patches[patch] === "trained" ? patch : `${patch} (control)`;
  };
  const choices = () => {
    const scene = data.scenes[Number(controls.scene.value)];
    fill(controls.network, Object.keys(scene.views).map((name) => [name, name]));
    const view = scene.views[controls.network.value];
    fill(controls.patch, view ? Object.keys(view.under).map((name) => [name, patchName(name, controls.network.value)]) : []);
    byId("photograph").hidden = !scene.photograph;
    if (!scene.photograph && form.elements.view.value === "photograph") form.elements.view.value = "compare";
  };

  const paint = (canvas, map, colourAt) => {
    canvas.width = map.width;
    canvas.height = map.height;
    const context = canvas.getContext("2d");
    const out = context.createImageData(map.width, map.height);
    for (let i = 0; i < map.indices.length; i += 1) {
      const [r, g, b] = colourAt(i);
      out.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(out, 0, 0);
  };
  // The patch as it lies in a thinned map: [top, left, bottom, right].
  const region = (map) => {
    const [top, left, height, width] = now.scene.regions[now.patch];
    const scale = map.width / now.scene.size[1];
    return [top, left, top + height, left + width].map((value) => Math.round(value * scale));
  };
  const frame = (canvas, map) => {
    const [top, left, bottom, right] = region(map);
    const context = canvas.getContext("2d");
    const thick = Math.max(1, Math.round(map.width / 400));
    ["#000000", "#ffffff"].forEach((colour, index) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      const inset = thick * (index + 0.5);
      context.strokeRect(left + inset, top + inset, right - left - 2 * inset, bottom - top - 2 * inset);
    });
  };
  const newlyWrong = (i) => {
    const { labels, clean, attacked } = now;
    const truth = labels.indices[i];
    if (truth === nothing || clean.indices[i] !== truth || attacked.indices[i] === truth) return false;
    const [top, left, bottom, right] = region(labels);
    const y = Math.floor(i / labels.width), x = i % labels.width;
    return !(y >= top && y < bottom && x >= left && x < right);
  };
  const dimmed = data.colours.map((colour) => colour.map((part) => Math.round(0.3 * part + 0.7 * 232)));

  const twoSided = () => ["compare", "photograph"].includes(form.elements.view.value);

  const draw = async () => {
    if (!now || !now.labels) return; // update draws, once the maps are read
    const view = form.elements.view.value;
    byId("slide").hidden = byId("wipe").hidden = canvases.above.hidden = !twoSided();
    const painted = (map) => (i) => data.colours[map.indices[i]];
    if (view === "compare") {
      paint(canvases.below, now.attacked, painted(now.attacked));
      paint(canvases.above, now.clean, painted(now.clean));
      frame(canvases.below, now.attacked);
      frame(canvases.above, now.clean);
    } else if (view === "changed") {
      paint(canvases.below, now.attacked, (i) => (newlyWrong(i) ? data.wrong : dimmed[now.attacked.indices[i]]));
      frame(canvases.below, now.attacked);
    } else if (view === "labels") {
      paint(canvases.below, now.labels, painted(now.labels));
    } else {
      const shown = now, image = new Image();
      image.src = now.scene.photograph;
      const pasted = document.querySelector(`[data-patch="${CSS.escape(now.patch)}"] img.pixels`);
      await Promise.all([image, pasted].map((one) => one && one.decode()));
      if (now !== shown || form.elements.view.value !== view) return;
      for (const canvas of Object.values(canvases)) {
        canvas.width = image.width;
        canvas.height = image.height;
        canvas.getContext("2d").drawImage(image, 0, 0);
      }
      const [top, left, bottom, right] = region(image);
      if (pasted) canvases.below.getContext("2d").drawImage(pasted, left, top, right - left, bottom - top);
      else frame(canvases.below, image);
      frame(canvases.above, image);
    }
    byId("stage").dataset.view = view;
    byId("stage").dataset.shown = `${now.scene.name}|${now.victim}|${now.patch}`;
  };

  const update = async () => {
    choices();
    const scene = data.scenes[Number(controls.scene.value)];
    const victim = controls.network.value, patch = controls.patch.value;
    if (!sceneHolds(scene, patch, victim)) return;
    const [map, share] = scene.views[victim].under[patch];
    const wanted = { scene, victim, patch };
    now = wanted;
    const [labels, clean, attacked] = await Promise.all([scene.labels, scene.views[victim].clean, map].map(decode));
    if (now !== wanted) return;
    Object.assign(now, { labels, clean, attacked });
    byId("told").textContent = `${percent(share)} of the labelled pixels of ${scene.name} become wrong outside the patch on ${victim}.`;
    await draw();
  };

  const split = byId("split");
  const wipe = () => {
    canvases.above.style.clipPath = `inset(0 ${100 - split.value}% 0 0)`;
    byId("wipe").style.left = `${split.value}%`;
    split.setAttribute("aria-valuetext", `${split.value} % clean`);
  };
  const point = (event) => {
    const box = byId("stage").getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (event.buttons === 1 && twoSided()) {
      split.value = 100 * x;
      wipe();
    }
    if (!now || !now.labels || x < 0 || y < 0 || x >= 1 || y >= 1) return;
    const at = Math.floor(y * now.labels.height) * now.labels.width + Math.floor(x * now.labels.width);
    const name = (map) => data.classes[map.indices[at]] ?? "none";
    byId("pointed").textContent = `Here: label ${name(now.labels)}, clean ${name(now.clean)}, attacked ${name(now.attacked)}.`;
  };

  const showScene = (index, victim, patch) => {
    controls.scene.value = String(index);
    choices();
    controls.network.value = victim;
    choices();
    controls.patch.value = patch;
    byId("scenes").scrollIntoView();
    controls.scene.focus({ preventScroll: true });
    update();
  };

  fill(controls.scene, data.scenes.map((scene, index) => [String(index), scene.name]));
  choices();
  const shown = Object.keys(data.patches).find((patch) => cellOf(patch, controls.network.value)?.own);
  if (shown && sceneHolds(data.scenes[0], shown, controls.network.value)) controls.patch.value = shown;
  for (const select of Object.values(controls)) select.addEventListener("change", update);
  byId("view").addEventListener("change", draw);
  split.addEventListener("input", wipe);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["pointerdown", "pointermove"]) byId("stage").addEventListener(kind, point);
  form.hidden = false;
  reveal();
  wipe();
  update();

  function reveal() {
    for (const one of document.querySelectorAll(".scripted")) one.hidden = false;
    document.documentElement.dataset.ready = "true";
  }
})();
