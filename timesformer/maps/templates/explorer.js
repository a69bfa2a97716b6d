// Panels of the page, one for each model, and their controls.
class Panel {
  constructor(model, number) {
    this.model = model;
    this.head = model.heads.length - 1;
    const template = by("panel").content.cloneNode(true);
    this.root = template.querySelector("section");
    this.part = name => this.root.querySelector("." + name);
    this.root.setAttribute("aria-label", "Model " + model.name);
    this.part("name").textContent = model.name;
    this.part("note").textContent = model.note;
    this.part("top").hidden = model.top.length === 0;
    for (const { label, probability } of model.top) {
      const item = make("li", this.part("guesses"), `${label} ${percent(probability)}`);
      make("span", item, "", { class: "bar" }).style.width = `${100 * probability}%`;
    }
    this.layer = this.select("Layer", "layer", [...new Set(model.maps.map(map => map.layer))], String);
    this.step = this.select("Step", "step", [], String);
    this.headSelect = this.select("Head", "head", model.heads.map((_, i) => i), i => model.heads[i]);
    this.show = this.select("Show", "show", [-1, ...model.methods.keys()],
      i => i < 0 ? "attention of a layer" : model.methods[i].method);
    this.layer.value = model.maps.at(-1).layer;
    this.headSelect.value = this.head;
    this.steps(model.maps.at(-1).step);
    const scale = Math.max(1, Math.ceil(192 / Math.min(...model.size)));
    this.pixels = model.size.map(side => side * scale);
    this.canvases = model.frames.map((_, frame) => this.canvas(frame));
    this.film = this.part("film");
    [this.film.height, this.film.width] = this.pixels;
    this.part("frames").classList.toggle("many", model.frames.length > 16);
    this.listen();
    by("panels").append(template);
  }

  select(label, name, values, said) {
    const holder = make("label", this.part("controls"), label + " ");
    const select = make("select", holder, "", { class: name });
    for (const value of values) make("option", select, said(value), { value });
    select.addEventListener("change", () => this.changed());
    return select;
  }

  /** Fill the list of steps with those of the layer. */
  steps(wanted) {
    const found = this.model.maps.filter(map => map.layer === Number(this.layer.value)).map(map => map.step);
    this.step.replaceChildren();
    for (const name of found) make("option", this.step, name, { value: name });
    this.step.value = found.includes(wanted) ? wanted : found.at(-1);
  }

  canvas(frame) {
    const figure = make("figure", this.part("frames"));
    const canvas = make("canvas", figure, "", { role: "img" });
    [canvas.height, canvas.width] = this.pixels;
    canvas.dataset.frame = frame;
    make("figcaption", figure);
    return canvas;
  }

  listen() {
    const frames = this.part("frames");
    const pick = event => {
      const canvas = event.target.closest("canvas");
      if (!canvas) return;
      const box = canvas.getBoundingClientRect(), [t] = this.model.grid;
      const clamp = x => Math.min(0.9999, Math.max(0, x));
      const time = Math.floor(Number(canvas.dataset.frame) * t / this.model.frames.length);
      from({ cls: false, t: (time + 0.5) / t, h: clamp((event.clientY - box.top) / box.height),
        w: clamp((event.clientX - box.left) / box.width) });
      this.attend();
    };
    frames.addEventListener("click", pick);
    frames.addEventListener("pointermove", event => {
      if (event.buttons === 1 && event.pointerType === "mouse") pick(event);
    });
    frames.addEventListener("keydown", event => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: "w-", ArrowRight: "w+", ArrowUp: "h-", ArrowDown: "h+", PageUp: "t-", PageDown: "t+" };
    const actions = {
      "[": () => panels.forEach(panel => panel.turn(panel.layer, -1)),
      "]": () => panels.forEach(panel => panel.turn(panel.layer, 1)),
      s: () => panels.forEach(panel => panel.turn(panel.step, 1, true)),
      h: () => panels.forEach(panel => panel.turn(panel.headSelect, 1, true)),
      c: () => from({ cls: true }),
      " ": () => by("play").click(),
    };
    if (moves[event.key]) {
      const [axis, sign] = moves[event.key], length = this.model.grid["thw".indexOf(axis)];
      const at = Math.floor(query[axis] * length) + (query.cls ? 0 : Number(sign + 1));
      from({ cls: false, [axis]: (Math.min(length - 1, Math.max(0, at)) + 0.5) / length });
      this.attend();
    } else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  turn(select, by, round = false) {
    const length = select.options.length, next = select.selectedIndex + by;
    select.selectedIndex = round ? (next + length) % length : Math.min(length - 1, Math.max(0, next));
    this.attend();
    this.changed();
  }

  /** Return from a method to the attention of a layer, whose query can be chosen. */
  attend() {
    if (this.show.value !== "-1") { this.show.value = "-1"; this.changed(); }
  }

  changed() {
    this.steps(this.step.value);
    this.head = Number(this.headSelect.value);
    draw();
  }

  view() {
    if (this.show.value !== "-1") return this.model.methods[Number(this.show.value)];
    return this.model.maps.find(map => map.layer === Number(this.layer.value) && map.step === this.step.value);
  }

  async load() {
    const images = await Promise.all([...this.model.frames, ...this.model.film].map(picture));
    this.images = { frames: images.slice(0, this.model.frames.length), film: images.slice(this.model.frames.length) };
    this.grounds();
  }

  grounds() {
    const under = image => ground(image, this.model.size, by("colours").checked);
    this.under = { frames: this.images.frames.map(under), film: this.images.film.map(under) };
  }

  /** Time of the map that covers a frame of the clip. */
  time(frame) {
    const token = Math.floor(frame * this.model.grid[0] / this.model.frames.length);
    return Math.min(this.found.view.grid[0] - 1, Math.floor(token / this.found.view.cell[0]));
  }

  paint(canvas, under, frame, top) {
    const pen = canvas.getContext("2d"), { height, width } = canvas;
    pen.imageSmoothingEnabled = this.pixels[0] / this.model.size[0] < 3;
    pen.drawImage(under, 0, 0, width, height);
    const time = this.time(frame);
    pen.imageSmoothingEnabled = by("smooth").checked;
    pen.imageSmoothingQuality = "high";
    const { grid, cell } = this.found.view, [, rows, columns] = this.model.grid;
    const [high, wide] = [height * cell[1] / rows, width * cell[2] / columns];
    const strength = Number(by("strength").value) / 100;
    // The last cells of a coarse grid may reach beyond the picture.
    pen.drawImage(glow(this.found, time, top, strength), 0, 0, wide * grid[2], high * grid[1]);
    const mark = (index, colours, dash) => {
      const [t, h, w] = place(grid, index);
      if (t !== time) return;
      const line = Math.max(2, width / 90);
      for (const [colour, thick] of [[colours[0], 2 * line], [colours[1], line]]) {
        pen.setLineDash(colour === colours[1] ? dash : []);
        pen.lineWidth = thick;
        pen.strokeStyle = colour;
        pen.strokeRect(w * wide + line, h * high + line, wide - 2 * line, high - 2 * line);
      }
      pen.setLineDash([]);
    };
    if (this.best >= 0) mark(this.best, ["#000", "#fff"], [4, 4]);
    if (this.found.from !== null) mark(this.found.from, ["#fff", "#0072B2"], []);
  }

  render(top) {
    const { found, model } = this, [times, rows, columns] = found.view.grid, size = rows * columns;
    this.top = top;
    this.canvases.forEach((canvas, frame) => {
      this.paint(canvas, this.under.frames[frame], frame, top);
      const time = this.time(frame);
      const share = found.cells.subarray(time * size, (time + 1) * size).reduce((a, b) => a + b, 0);
      const several = model.frames.length / times > 1 ? ` in ${Math.round(model.frames.length / times)} frames` : "";
      const seconds = `${model.seconds[frame].toFixed(2)} s`;
      canvas.setAttribute("aria-label", `frame ${frame}, ${seconds}: ${percent(share)} of the weight${several}`);
      canvas.nextSibling.textContent = `${frame} · ${seconds} · ${percent(share)}${several}`;
      make("span", canvas.nextSibling, "", { class: "bar" }).style.width = `${100 * Math.min(1, share)}%`;
    });
    this.part("most").textContent = percent(top);
    this.part("said").textContent = this.said();
  }

  said() {
    const { found, model } = this, { view } = found;
    const order = [...found.cells.keys()].filter(i => found.cells[i] > 0)
      .sort((a, b) => found.cells[b] - found.cells[a]).slice(0, 3);
    const time = view.grid[0] === model.frames.length ? "frame" : "time";
    const where = index => {
      const [t, h, w] = place(view.grid, index);
      return view.grid[1] * view.grid[2] > 1 ? `${time} ${t}, row ${h}, column ${w}` : `${time} ${t}`;
    };
    const strongest = order.map(i => `${where(i)} (${percent(found.cells[i])})`).join("; ");
    const parts = [];
    if (view.method !== undefined) parts.push(`${view.method}: contributions to the prediction.`);
    else {
      const cell = found.from === null ? model.query : `the patch at ${where(found.from)}`;
      parts.push(`Layer ${view.layer}, ${view.step}, ${model.heads[this.head]}, from ${cell}.`);
    }
    parts.push(order.length ? `Most weight on ${strongest}.` : "No weight on patches.");
    if (found.cls > 0) parts.push(`${percent(found.cls)} on ${model.beside}.`);
    if (view.method === undefined && found.from !== null) {
      parts.push(`The ${view.shape[2]} strongest keys are stored; with ${model.beside} they hold `
        + `${percent(found.kept)} of the weight.`);
    }
    if (view.coarse) parts.push(`Coarse: a cell merges ${view.cell.join(" × ")} patches (time × rows × columns).`);
    return parts.join(" ");
  }

  /** Show the film at a time in seconds. */
  play(seconds) {
    const { filmSeconds, filmFrames } = this.model;
    let at = 0;
    while (at + 1 < filmSeconds.length && filmSeconds[at + 1] <= seconds + 1e-6) at++;
    this.paint(this.film, this.under.film[at], filmFrames[at], this.top);
    this.film.setAttribute("aria-label", `The video at ${filmSeconds[at].toFixed(2)} s under the map`);
    this.part("when").textContent = `${filmSeconds[at].toFixed(2)} s, under the map of frame ${filmFrames[at]}`;
    this.canvases.forEach((canvas, frame) => canvas.classList.toggle("now", frame === filmFrames[at]));
  }
}

function from(changes) {
  Object.assign(query, changes);
  draw();
}

let latest = 0;
async function draw() {
  const mine = ++latest;
  const found = await Promise.all(panels.map(look));
  if (mine !== latest) return;  // a newer request is being drawn
  const tops = found.map(({ cells }) => cells.reduce((a, b) => Math.max(a, b), 0));
  const same = by("same").checked ? Math.max(...tops) : null;
  panels.forEach((panel, i) => {
    panel.found = found[i];
    panel.best = tops[i] > 0 ? found[i].cells.indexOf(tops[i]) : -1;
    panel.render(same ?? tops[i]);
  });
  by("class").setAttribute("aria-pressed", query.cls);
  film();
  document.body.dataset.drawn = mine;  // number of the request that is now shown
}

const clock = { running: false, last: 0, at: 0 };
const film = () => panels.forEach(panel => panel.play(Number(by("seek").value)));
function tick(now) {
  if (!clock.running) return;
  const seek = by("seek"), [start, end] = [Number(seek.min), Number(seek.max)];
  clock.at += (now - clock.last) / 1000 * Number(by("speed").value);
  if (clock.at > end + 0.3) clock.at = start;  // the last frame stays for a moment
  clock.last = now;
  seek.value = Math.min(end, clock.at);
  film();
  requestAnimationFrame(tick);
}

/** Show what the part of the address after # names: query=TIME,ROW,COLUMN or query=class, layer, step, head, seconds. */
function restore(fragment) {
  const wanted = new URLSearchParams(fragment.slice(1));
  for (const panel of panels) {
    for (const [name, select] of [["layer", panel.layer], ["step", panel.step], ["head", panel.headSelect]]) {
      const value = wanted.get(name);
      if ([...select.options].some(option => option.value === value)) select.value = value;
      panel.steps(panel.step.value);
    }
    panel.head = Number(panel.headSelect.value);
  }
  const at = (wanted.get("query") ?? "").split(",").map(Number), { grid } = panels[0].model;
  if (at.length === 3 && at.every((x, axis) => Number.isInteger(x) && x >= 0 && x < grid[axis])) {
    const [t, h, w] = at.map((x, axis) => (x + 0.5) / grid[axis]);
    Object.assign(query, { cls: false, t, h, w });
  }
  if (wanted.has("seconds")) by("seek").value = wanted.get("seconds");  // the slider keeps it within the video
}

async function begin() {
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack the page's data");
  DATA.models.forEach((model, number) => panels.push(new Panel(model, number)));
  by("same").parentElement.hidden = panels.length < 2;
  by("panels").classList.toggle("two", panels.length > 1);
  await Promise.all(panels.map(panel => panel.load()));
  const times = DATA.models.flatMap(model => model.filmSeconds), seek = by("seek");
  seek.min = seek.value = Math.min(...times);
  seek.max = Math.max(...times);
  by("class").addEventListener("click", () => { panels.forEach(panel => panel.attend()); from({ cls: true }); });
  for (const id of ["smooth", "strength", "same"]) by(id).addEventListener("input", draw);
  by("colours").addEventListener("input", () => { panels.forEach(panel => panel.grounds()); draw(); });
  seek.addEventListener("input", () => { clock.at = Number(seek.value); film(); });
  by("play").addEventListener("click", () => {
    clock.running = !clock.running;
    by("play").textContent = clock.running ? "Pause" : "Play";
    clock.at = Number(seek.value) >= Number(seek.max) ? Number(seek.min) : Number(seek.value);
    clock.last = performance.now();
    if (clock.running) requestAnimationFrame(tick);
  });
  restore(location.hash);
  await draw();
}

begin().catch(error => {
  by("failed").hidden = false;
  by("failed").textContent = "The page cannot be shown: " + error.message;
});
