// The page: draws one item at a time and writes down what the person does.
const { items, images, classes, key } = JSON.parse(document.getElementById("queue").textContent);
let log = [], index = 0, saved = 0, drawing = null, kept = true;
let field = $("name"); // where one types: a line for a name, more room for a text

// --- what is kept in the browser

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(key) ?? "{}");
    log = stored.log ?? [];
    saved = stored.saved ?? 0;
  } catch { kept = false; }
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify({ log, saved }));
  } catch { kept = false; }
}

function write(entry, text) {
  log.push(entry);
  keep();
  say(text);
}

function say(text) {
  $("message").textContent = text;
}

// --- what the person does

const commands = {
  accept: () => judge({ verdict: "accept" }, "Accepted"),
  reject: () => judge({ verdict: "reject" }, "Rejected"),
  back: () => show(index - 1),
  on: () => show(index + 1),
  undo() {
    const entry = log.pop();
    if (!entry) return say("There is nothing to undo");
    saved = Math.min(saved, log.length);
    keep();
    const at = items.findIndex((item) => (entry.item ? item.id === entry.item : item.image === entry.image && item.task === entry.task));
    say("Undone: " + entry.verdict);
    show(at < 0 ? index : at);
  },
  missing() {
    if (drawing) return commands.leave();
    drawing = {};
    say("Draw a box around what is missing");
    render();
  },
  complete() {
    const item = items[index], now = standing(items, fold(log), item);
    if (!now.whole) return say(`${now.shown} of the ${item.siblings} in this image are in the queue, so it cannot be confirmed`);
    if (!now.done) return say(`Judge the other ${now.shown - now.judged} of this image first`);
    write({ verdict: "complete", image: images[item.image].id, task: item.task }, now.complete ? "No longer confirmed" : "Confirmed complete");
    show(now.complete ? index : nextOpen(items, fold(log), index));
  },
  fix() {
    if (!items[index].label) return say("It has no name to correct: accept or reject it");
    field.focus();
    field.select();
  },
  enter() {
    const label = field.value.trim();
    if (!label) return say("Type the right name first");
    field.blur();
    if (drawing?.box) return add(label);
    correct(label);
  },
  leave() {
    field.blur();
    say("");
    show(index);
  },
  save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([linesOf(log)], { type: "application/jsonl" }));
    link.download = "verdicts.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
    saved = log.length;
    keep();
    say("Saved as verdicts.jsonl");
    render();
  },
};

function judge(verdict, text) {
  const item = items[index];
  write({ item: item.id, ...verdict }, text);
  const state = fold(log), now = standing(items, state, item);
  if (now.done && !now.complete && item.boxes) {
    say(text + ". All of this image is judged: m for what is missing, c if it is complete");
    return render();
  }
  show(nextOpen(items, state, index));
}

function correct(label) {
  const item = items[index];
  if (!item.label) return;
  if (label === item.label) return commands.accept();
  judge({ verdict: "fix", label }, item.region ? `It is ${label}` : "Written anew");
}

function add(label) {
  const [x1, y1, x2, y2] = drawing.box, item = items[index];
  const region = { kind: "box", parts: [[[x1, y1], [x2, y2]]], label };
  write({ verdict: "missing", image: images[item.image].id, task: missingTask(item), region }, `Added ${label}`);
  show(index);
}

// --- what is shown

function show(next) {
  index = Math.min(Math.max(next, 0), items.length - 1);
  drawing = null;
  const item = items[index];
  typeInto(item.region || item.nothing ? "name" : "words", item.label);
  const after = images[items[nextOpen(items, fold(log), index)].image].src;
  if (after) new Image().src = after; // so that it is there when it is shown
  render();
}

function typeInto(id, text) {
  for (const other of [$("name"), $("words")]) other.hidden = other.id !== id;
  field = $(id);
  field.value = text;
}

function claimOf(item) {
  if (item.nothing) return "Nothing is here";
  if (item.asked && !item.label) return "This is its outline";
  return item.label || item.query || "Something is here";
}

function render() {
  const item = items[index], image = images[item.image], state = fold(log);
  drawStage(items, item, image, state, drawing);
  drawCrop(item, image);
  const verdict = state.verdicts.get(item.id);
  $("claim").textContent = claimOf(item);
  $("claim").classList.toggle("long", item.label.length > 40);
  const score = item.score === null ? "" : ` · ${item.score.toFixed(2)}`;
  $("facts").textContent = `${nameOf(item.task)}${score} · ${item.sources.join(", ")}`;
  $("asked").textContent = item.grounds ? `“${item.grounds}”` : item.query && item.label ? `Asked: ${item.query}` : "";
  $("why").textContent = item.why;
  $("verdict").textContent = verdict ? { accept: "accepted", reject: "rejected", fix: `corrected: ${verdict.label}` }[verdict.verdict] : "";
  $("verdict").className = verdict?.verdict ?? "";
  $("file").textContent = image.name;
  $("file").title = image.path;
  $("absent").textContent = image.missing;
  $("fixing").textContent = drawing?.box ? "What is missing here" : item.region ? "The right name" : "The right text";
  for (const chip of document.querySelectorAll("#classes button")) chip.disabled = !named(item);
  field.disabled = !item.label && !drawing?.box;
  $("fix").disabled = field.disabled;
  renderImage(item, image, state);
  const judged = items.filter((other) => state.verdicts.has(other.id)).length;
  $("bar").value = judged;
  $("count").textContent = `${judged} of ${items.length} judged`;
  $("place").textContent = `${index + 1} / ${items.length}`;
  $("unsaved").textContent = log.length > saved ? (kept ? "kept in this browser, not yet saved to a file" : "this browser keeps nothing: save before you close it") : "";
  $("unsaved").classList.toggle("alarm", !kept);
}

function named(item) {
  return Boolean(drawing?.box || item.classed);
}

function renderImage(item, image, state) {
  const now = standing(items, state, item), added = addedTo(image, state);
  $("standing").textContent = now.whole
    ? `${now.judged} of ${now.shown} judged in this image${now.complete ? ", confirmed complete" : ""}`
    : `${now.shown} of the ${item.siblings} in this image are in the queue`;
  $("complete").disabled = !now.done;
  $("complete").setAttribute("aria-pressed", now.complete);
  $("added").replaceChildren(...added.map((entry) => {
    const row = document.createElement("li"), button = document.createElement("button");
    row.textContent = `added: ${entry.region.label} `;
    button.textContent = "remove";
    button.onclick = () => { write({ verdict: "remove", number: state.missing.indexOf(entry) }, "Removed"); render(); };
    row.append(button);
    return row;
  }));
  $("missing").setAttribute("aria-pressed", drawing !== null);
}

// --- drawing what is missing

function pointAt(event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.getScreenCTM().inverse());
}

stage.addEventListener("pointerdown", (event) => {
  if (!drawing) return;
  event.preventDefault();
  drawing = { from: pointAt(event) };
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!drawing?.from) return;
  drawing.box = boxBetween(drawing.from, pointAt(event), images[items[index].image].size);
  render();
});
stage.addEventListener("pointerup", () => {
  if (!drawing?.from) return;
  drawing.from = null;
  if (!drawing.box) return say("That box is too small: draw it again");
  typeInto("name", "");
  render();
  field.focus();
  say("What is it? Type its name and press Enter, or click a class");
});

// --- what starts it all

function choose(number) {
  if (number >= classes.length || !named(items[index])) return;
  if (drawing?.box) add(classes[number]);
  else correct(classes[number]);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = event.target === field;
  if (inField && event.key === "Enter" && event.shiftKey) return;
  if (!inField && event.key === "Enter" && event.target.tagName === "BUTTON") return;
  const command = commandOf(event.key, inField);
  if (command === null) return;
  event.preventDefault();
  if (Array.isArray(command)) choose(command[1]);
  else commands[command]();
});
for (const name of ["accept", "reject", "undo", "missing", "complete", "back", "on", "save"]) $(name).onclick = () => commands[name]();
$("fix").onclick = () => commands.enter();
$("open").onchange = async (event) => {
  const [file] = event.target.files;
  try {
    log = readLines(await file.text(), items.map((item) => ({ id: item.id, image: images[item.image].id })));
    saved = log.length;
    keep();
    say(`Opened ${file.name}`);
    show(nextOpen(items, fold(log), items.length - 1));
  } catch (error) { say(error.message); }
  event.target.value = "";
};
for (const [number, label] of classes.slice(0, 9).entries()) {
  const chip = document.createElement("button"), digit = document.createElement("kbd");
  digit.textContent = number + 1;
  chip.append(digit, label);
  chip.onclick = () => choose(number);
  $("classes").append(chip);
}
$("names").append(...classes.map((label) => new Option(label)));
addEventListener("resize", render);
addEventListener("beforeunload", (event) => { if (!kept && log.length > saved) event.preventDefault(); });
load();
if (items.length) show(nextOpen(items, fold(log), items.length - 1));
