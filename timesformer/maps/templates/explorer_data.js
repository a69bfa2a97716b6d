"use strict";
// Data of the page: JSON in #data, and arrays in script elements as base64 of zlib; packing.py describes their layout.
const DATA = JSON.parse(document.getElementById("data").textContent);
const LOW = [232, 96, 28], HIGH = [255, 246, 196], DIM = 0.5, COVER = 0.85;
const query = { cls: true, t: 0.5, h: 0.5, w: 0.5 };  // position as a fraction of the clip, shared by all panels
const panels = [];
const by = id => document.getElementById(id);
const percent = x => (100 * x).toFixed(x >= 0.0995 ? 0 : x >= 0.00995 ? 1 : 2) + " %";
const make = (tag, parent, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (parent) parent.append(element);
  return element;
};

const chunks = new Map();
async function chunk(number) {
  if (!chunks.has(number)) {
    const bytes = Uint8Array.from(atob(by("chunk-" + number).textContent), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    chunks.set(number, new Uint8Array(await new Response(stream).arrayBuffer()));
  }
  return chunks.get(number);
}

const picture = source => new Promise((done, failed) => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = failed;
  image.src = source;
});

/** Draw a frame as it appears under the map: grey and dimmed, or in its colours. */
function ground(image, [height, width], colours) {
  const canvas = make("canvas");
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height), p = pixels.data;
  for (let i = 0; i < p.length; i += 4) {
    const luma = 0.299 * p[i] + 0.587 * p[i + 1] + 0.114 * p[i + 2];
    for (let c = 0; c < 3; c++) p[i + c] = DIM * (colours ? p[i + c] : luma);
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

const count = grid => grid[0] * grid[1] * grid[2];
const place = (grid, index) =>
  [Math.floor(index / (grid[1] * grid[2])), Math.floor(index / grid[2]) % grid[1], index % grid[2]];

/** Attention of a query: weights of the map's cells, weight on the class token, and share that is stored. */
async function look(panel) {
  const { model } = panel, view = panel.view();
  const bytes = await chunk(view.chunk), numbers = new DataView(bytes.buffer);
  const cells = new Float32Array(count(view.grid));
  const dense = (at, top) => { for (let i = 0; i < cells.length; i++) cells[i] = top * (bytes[at + i] / 255) ** 2; };
  if (view.method !== undefined) {
    dense(0, view.top);
    return { view, cells, cls: view.onClass, kept: 1, from: null };
  }
  const { head } = panel, [heads, queries, keys] = view.shape, slots = heads * queries * keys, rows = heads * queries;
  const from = query.cls ? null : cellOf(panel, view);
  if (from === null) {  // the class token's row is complete
    const at = 3 * slots + 4 * rows, tail = at + heads * cells.length + 8 * head;
    dense(at + head * cells.length, numbers.getFloat32(tail, true));
    return { view, cells, cls: numbers.getFloat32(tail + 4, true), kept: 1, from };
  }
  const row = head * queries + from;
  const u16 = at => (bytes[at + row] + 256 * bytes[at + rows + row]) / 65535;
  const top = u16(3 * slots) ** 2, cls = u16(3 * slots + 2 * rows);
  let key = 0, kept = cls;
  for (let i = row * keys; i < (row + 1) * keys; i++) {
    key += bytes[i] + 256 * bytes[slots + i];
    const weight = top * (bytes[2 * slots + i] / 255) ** 2;
    cells[key] += weight;
    kept += weight;
  }
  return { view, cells, cls, kept: Math.min(1, kept), from };
}

/** Cell of a map that contains the query. */
function cellOf({ model }, view) {
  const at = [query.t, query.h, query.w].map((f, axis) => {
    const patch = Math.min(model.grid[axis] - 1, Math.floor(f * model.grid[axis]));
    return Math.min(view.grid[axis] - 1, Math.floor(patch / view.cell[axis]));
  });
  return (at[0] * view.grid[1] + at[1]) * view.grid[2] + at[2];
}

/** Draw the weights of one time as a picture with one pixel for each cell. */
function glow(found, time, top, strength) {
  const [, height, width] = found.view.grid, canvas = make("canvas");
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), pixels = pen.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    const s = top > 0 ? Math.min(1, found.cells[time * height * width + i] / top) : 0;
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = LOW[c] + s * (HIGH[c] - LOW[c]);
    pixels.data[4 * i + 3] = Math.round(255 * COVER * strength * s);
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}
