"use strict";
// What the page knows without a document: a log of what the person did, oldest first, and what it adds up to.

function fold(log) {
  const state = { verdicts: new Map(), missing: [], complete: new Set() };
  for (const entry of log) {
    if (entry.verdict === "missing") state.missing.push(entry);
    else if (entry.verdict === "remove") state.missing.splice(entry.number, 1);
    else if (entry.verdict === "complete") toggle(state.complete, placeOf(entry));
    else state.verdicts.set(entry.item, entry);
  }
  return state;
}

function toggle(set, value) {
  if (!set.delete(value)) set.add(value);
}

function placeOf({ image, task }) {
  return JSON.stringify([image, task]);
}

// The verdicts that stand, one JSON object a line: the file that `read_verdicts` reads.
function linesOf(log) {
  const state = fold(log);
  const complete = [...state.complete].map((place) => {
    const [image, task] = JSON.parse(place);
    return { verdict: "complete", image, task };
  });
  return [...state.verdicts.values(), ...state.missing, ...complete].map((entry) => JSON.stringify(entry) + "\n").join("");
}

// The inverse: a log. Throws an Error that names the line which is no verdict about these items.
function readLines(text, items) {
  const ids = new Set(items.map((item) => item.id));
  const images = new Set(items.map((item) => item.image));
  const known = ["accept", "reject", "fix", "missing", "complete"];
  const log = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    let entry = null;
    try { entry = JSON.parse(line); } catch { /* reported below */ }
    const ofItem = ["accept", "reject", "fix"].includes(entry?.verdict);
    if (!known.includes(entry?.verdict) || !(ofItem ? ids.has(entry.item) : images.has(entry.image))) {
      throw new Error(`Line ${index + 1} is no verdict about this queue`);
    }
    log.push(entry);
  }
  return log;
}

// The item to show after `index`: the next without a verdict, from the start again after the end; else the same.
function nextOpen(items, state, index) {
  for (let step = 1; step <= items.length; step++) {
    const next = (index + step) % items.length;
    if (!state.verdicts.has(items[next].id)) return next;
  }
  return index;
}

// How the task of an item stands in its image: judged of shown; whole where nothing of it is left out of the queue.
function standing(items, state, item) {
  const group = items.filter((other) => other.image === item.image && other.task === item.task);
  const judged = group.filter((other) => state.verdicts.has(other.id)).length;
  const whole = group.length === item.siblings;
  return { judged, shown: group.length, whole, done: whole && judged === group.length, complete: state.complete.has(placeOf(item)) };
}

// The task that an object missing from an item's image belongs to.
function missingTask(item) {
  const free = item.query === null && !item.grounds && item.boxes;
  return free ? item.task : "<OD>";
}

// The box [x1, y1, x2, y2] between two points, within the image; null where it is smaller than 2 x 2 pixels.
function boxBetween(a, b, [width, height]) {
  const within = (value, most) => Math.round(10 * Math.min(Math.max(value, 0), most)) / 10;
  const xs = [a.x, b.x].map((x) => within(x, width)).sort((p, q) => p - q);
  const ys = [a.y, b.y].map((y) => within(y, height)).sort((p, q) => p - q);
  return xs[1] - xs[0] < 2 || ys[1] - ys[0] < 2 ? null : [xs[0], ys[0], xs[1], ys[1]];
}

// The smallest box around the parts of a region.
function boxAround(parts) {
  const xs = parts.flat().map((point) => point[0]), ys = parts.flat().map((point) => point[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

// [x, y, width, height] of what a crop shows: a box with its surroundings, never less than `least` pixels, in the image.
function viewAround([x1, y1, x2, y2], [width, height], least = 24) {
  const margin = Math.max(0.25 * Math.max(x2 - x1, y2 - y1), (least - Math.max(x2 - x1, y2 - y1)) / 2);
  const left = Math.max(0, x1 - margin), top = Math.max(0, y1 - margin);
  return [left, top, Math.max(1, Math.min(width, x2 + margin) - left), Math.max(1, Math.min(height, y2 + margin) - top)];
}

// What a key asks for: a command's name, ["class", number], or null. In a text field only Enter and Escape do.
function commandOf(key, inField) {
  if (inField) return key === "Escape" ? "leave" : key === "Enter" ? "enter" : null;
  if (/^[1-9]$/.test(key)) return ["class", Number(key) - 1];
  return {
    a: "accept", r: "reject", u: "undo", m: "missing", c: "complete", f: "fix", Enter: "fix", s: "save",
    ArrowLeft: "back", ArrowUp: "back", ArrowRight: "on", ArrowDown: "on", Escape: "leave",
  }[key.length === 1 ? key.toLowerCase() : key] ?? null;
}

function nameOf(task) {
  const words = task.replace(/^<|>$/g, "").replaceAll("_", " ").toLowerCase();
  return { od: "Objects", ocr: "Text", "ocr with region": "Text" }[words] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

if (typeof module !== "undefined") {
  module.exports = {
    fold, linesOf, readLines, nextOpen, standing, missingTask, boxBetween, boxAround, viewAround, commandOf, nameOf,
  };
}
