// What is drawn: the image with its regions, and the one to judge from nearby.
const $ = (id) => document.getElementById(id);
const stage = $("stage"), crop = $("crop");

function addedTo(image, state) {
  return state.missing.filter((entry) => entry.image === image.id);
}

function svg(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function outline(region) {
  const corners = region.kind === "box" ? [boxCorners(region.parts[0])] : region.parts;
  return corners.map((part) => "M" + part.map((point) => point.join(" ")).join("L") + "Z").join("");
}

function boxCorners([[x1, y1], [x2, y2]]) {
  return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
}

function mark(parent, region, look, label, scale) {
  if (look === "now") svg("path", { d: outline(region), class: "halo" }, parent);
  const path = svg("path", { d: outline(region), class: look }, parent);
  svg("title", {}, path).textContent = label;
  if (!label || !scale) return;
  const [x, y] = boxAround(region.parts);
  svg("text", { x: x + 3 * scale, y: y + 14 * scale, "font-size": 12 * scale, class: look }, parent).textContent = label.slice(0, 40);
}

// The layer to draw on, over a picture that is loaded anew only where it is another one.
function over(parent, src, width, height) {
  if (!parent.lastChild) {
    svg("rect", { class: "blank" }, parent);
    svg("image", { preserveAspectRatio: "none" }, parent);
    svg("g", {}, parent);
  }
  const [ground, picture, layer] = parent.children;
  for (const part of [ground, picture]) {
    part.setAttribute("width", width);
    part.setAttribute("height", height);
  }
  if (!src) picture.removeAttribute("href");
  else if (picture.getAttribute("href") !== src) picture.setAttribute("href", src);
  layer.replaceChildren();
  return layer;
}

function drawStage(items, item, image, state, drawing) {
  stage.setAttribute("viewBox", `0 0 ${image.size.join(" ")}`);
  stage.classList.toggle("drawing", drawing !== null);
  const [width, height] = image.size, room = stage.getBoundingClientRect();
  const scale = Math.max(width / Math.max(room.width, 1), height / Math.max(room.height, 1));
  const layer = over(stage, image.src, width, height);
  const others = items.filter((other) => other !== item && other.image === item.image && other.task === item.task && other.region);
  const written = others.length + item.context.length <= 25 ? scale : 0;
  for (const region of item.context) mark(layer, region, "other", region.label, written);
  for (const other of others) {
    const verdict = state.verdicts.get(other.id);
    mark(layer, other.region, verdict ? `other ${verdict.verdict}` : "other", verdict?.label ?? other.label, written);
  }
  for (const entry of addedTo(image, state)) mark(layer, entry.region, "added", entry.region.label, scale);
  if (item.asked) mark(layer, item.asked, "asked", "", 0);
  if (item.region) mark(layer, item.region, "now", "", 0);
  if (drawing?.box) mark(layer, { kind: "box", parts: [[drawing.box.slice(0, 2), drawing.box.slice(2)]] }, "added", "", 0);
}

function drawCrop(item, image) {
  const region = item.region ?? item.asked;
  crop.toggleAttribute("hidden", !region || !image.src);
  if (!region || !image.src) return;
  crop.setAttribute("viewBox", viewAround(boxAround(region.parts), image.size).join(" "));
  const [width, height] = image.size;
  const layer = over(crop, image.src, width, height);
  if (item.crop) {
    const [x, y, w, h] = item.crop.at;
    svg("image", { href: item.crop.src, x, y, width: w, height: h, preserveAspectRatio: "none" }, layer);
  }
  svg("path", { d: outline(region), class: "thin" }, layer);
}
