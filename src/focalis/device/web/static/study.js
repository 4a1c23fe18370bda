// The study page: the table of lesions steers the pictures, verdicts go to the device, keys do both.
import { Beside } from "./beside.js";
import { Pen } from "./pen.js";
import { Slices } from "./slices.js";
import "./times.js";

const study = JSON.parse(document.getElementById("study").textContent);
const csrf = document.querySelector("meta[name=csrf]").content;
const rows = [...document.querySelectorAll(".lesions tr[data-lesion]")];
const together = document.getElementById("together"); // null for those who may not judge
const fold = document.getElementById("fold");
const past = study.edited.map((lesion) => ({ lesion })); // edits, and the verdicts before each change, for undo
const windows = document.getElementById("window");
const overlay = document.getElementById("overlay");
const slices = new Slices(document.getElementById("slices"), study, () => moved());
const beside = new Beside(slices, (text) => { document.getElementById("beside-said").textContent = text; });
let volume = null; // the WebGL viewer, once it is wanted

// part of a picture's address, so that a verdict or an edit asks for it anew
const state = () => study.edition + Object.entries(study.verdicts).map(([number, verdict]) => number + verdict[0]).join("");

function moved() {
  document.getElementById("zoom").textContent = `${slices.zoom} ×`;
  beside.follow(null);
}

async function showBeside(button) {
  const known = beside.panes.find((pane) => pane.button === button);
  try {
    const pane = known ?? (button.dataset.series
      ? await beside.open(button, document.getElementById("pane"))
      : beside.add(document.getElementById("earlier-pane"), button, study.earlier));
    beside.toggle(pane);
  } catch (error) {
    document.getElementById("beside-said").textContent = error.message;
  }
}

function draw(look) {
  slices.draw(look);
  const { window, ...shared } = look; // each has its own window
  beside.draw(shared);
}

function choose(number) {
  const lesion = study.lesions.find((each) => each.number === number);
  if (!lesion) return;
  study.chosen = number;
  for (const row of rows) {
    const chosen = Number(row.dataset.lesion) === number;
    row.classList.toggle("chosen", chosen);
    if (chosen) { row.setAttribute("aria-current", "true"); row.scrollIntoView({ block: "nearest" }); }
    else row.removeAttribute("aria-current");
  }
  slices.jump(lesion.centre_zyx);
  draw({ selected: number });
  moved();
  pen?.drop();
  showEdits();
  volume?.jump(lesion.centre_ras_mm);
}

const undecided = (lesion) => !study.verdicts[lesion.number];
const isFolded = (lesion) => together !== null && lesion.longest_mm < Number(fold.value);
const ofLabel = (lesion) => {
  const label = document.getElementById("of")?.value;
  return !label || String(lesion.label) === label;
};

function next(step) {
  const open = study.lesions.filter((each) => !isFolded(each) || each.number === study.chosen);
  const at = open.findIndex((each) => each.number === study.chosen);
  const lesion = open[Math.min(Math.max(at + step, 0), open.length - 1)];
  if (lesion) choose(lesion.number);
}

function nextUndecided(number) {
  const at = study.lesions.findIndex((each) => each.number === number) + 1;
  const around = [...study.lesions.slice(at), ...study.lesions.slice(0, at)];
  const lesion = around.find((each) => undecided(each) && !isFolded(each));
  if (lesion) choose(lesion.number);
}

async function send(numbers, verdict) {
  const body = new URLSearchParams(numbers.map((number) => ["lesion", number]));
  body.append("verdict", verdict);
  body.append("seen", study.edition);
  const answer = await fetch(`/studies/${study.task}/verdicts`, {
    method: "POST",
    body,
    headers: { "X-CSRF-Token": csrf, Accept: "application/json" },
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail);
  for (const number of numbers) {
    if (verdict === "undecided") delete study.verdicts[number];
    else study.verdicts[number] = verdict;
  }
}

async function judge(numbers, verdict) {
  if (!study.may_judge || !numbers.length) return false;
  const before = numbers.map((number) => [number, study.verdicts[number] ?? "undecided"]);
  return keep(async () => {
    await send(numbers, verdict);
    past.push(before);
  });
}

async function undo() {
  const before = past.at(-1);
  if (!before) return;
  if (before.lesion) {
    if (await edit("undo", {}, before.lesion)) {
      past.pop();
      show();
      if (study.chosen !== before.lesion) choose(before.lesion);
    }
    return;
  }
  const kept = await keep(async () => {
    for (const verdict of new Set(before.map((each) => each[1]))) {
      await send(before.filter((each) => each[1] === verdict).map((each) => each[0]), verdict);
    }
    past.pop();
  });
  if (kept) choose(before[0][0]);
}

// change verdicts, and show what stands on the device then; whether it was kept
async function keep(change) {
  let fault = "";
  try {
    await change();
  } catch (error) {
    fault = `The verdict was not kept: ${error.message}`;
  }
  show(fault);
  return !fault;
}

function show(fault = "") {
  for (const row of rows) {
    const verdict = study.verdicts[row.dataset.lesion] ?? "";
    row.dataset.verdict = verdict;
    row.toggleAttribute("data-edited", study.edited.includes(Number(row.dataset.lesion)));
    for (const button of row.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === verdict));
  }
  draw({ state: state() });
  volume?.colour(study.verdicts);
  if (!together) return;
  showEdits();
  const left = study.lesions.filter(undecided), decided = study.lesions.length - left.length;
  const folded = study.lesions.filter(isFolded), folds = folded.filter(undecided);
  document.getElementById("undecided").textContent = fault || `${decided} of ${study.lesions.length} decided`;
  document.getElementById("decided").value = decided;
  document.getElementById("undo").disabled = !past.length;
  document.querySelector("#correction button").disabled = left.length > 0;
  const all = left.filter((each) => !isFolded(each) && ofLabel(each));
  for (const button of together.querySelectorAll("[data-all]")) {
    button.disabled = !all.length;
    button.querySelector("span").textContent = String(all.length);
  }
  for (const row of rows) row.hidden = folded.some((each) => each.number === Number(row.dataset.lesion));
  document.getElementById("folded").hidden = !folded.length;
  document.getElementById("folded-text").textContent = `${folded.length} below ${fold.value} mm, ${folds.length} undecided`;
  for (const button of document.querySelectorAll("[data-folded]")) button.disabled = !folds.length;
}

// An edit of an outline. They go one after the other, for each one names the edition that it follows.
const edits = document.getElementById("edits"); // null for those who may not judge
const pen = edits && new Pen(slices, (stroke) => edit(stroke.operation, stroke), showEdits);
let editing = Promise.resolve();
let lastCut = null;

const HINTS = { cut: "Drag a line across the lesion, or tap its ends.", redraw: "Drag around the lesion, or tap its corners." };
const DONE = { grow: "grown", shrink: "shrunk", cut: "cut", redraw: "redrawn", undo: "as before the last edit" };

function edit(operation, stroke = {}, lesion = study.chosen) {
  if (!edits || !lesion) return false;
  const { plane = slices.active.name, index = 0, points = [], keep = "larger" } = stroke;
  editing = editing.then(async () => {
    const said = document.getElementById("edit-said");
    said.classList.remove("bad");
    said.textContent = "…";
    if (!document.getElementById("volume").hidden) showVolume(false);
    try {
      const flat = points.flat().map((value) => value.toFixed(2)).join(" ");
      const answer = await fetch(`${study.address}/edits`, {
        method: "POST",
        body: new URLSearchParams({ lesion, operation, plane, index, points: flat, keep, seen: study.edition }),
        headers: { "X-CSRF-Token": csrf, Accept: "application/json" },
      });
      const content = await answer.json();
      if (!answer.ok) throw new Error(content.detail);
      take(content);
      if (operation !== "undo") past.push({ lesion });
      lastCut = operation === "cut" && keep === "larger" ? { ...stroke, lesion } : null;
      const { volume_mm3: volume, parts } = content.lesion;
      said.textContent = `Lesion ${lesion} ${DONE[operation]}: ${(volume / 1000).toFixed(2)} ml`;
      if (parts > 1) said.textContent += `, in ${parts} parts; each becomes a lesion of its own when it is sent`;
    } catch (error) {
      said.textContent = error.message;
      said.classList.add("bad");
      return false;
    }
    show();
    return true;
  });
  return editing;
}

// what the device answers to an edit
function take({ lesion, verdict, edited, edition }) {
  study.edition = edition;
  for (const field of document.querySelectorAll("[name=seen]")) field.value = edition;
  study.lesions[study.lesions.findIndex((each) => each.number === lesion.number)] = lesion;
  study.edited = study.edited.filter((each) => each !== lesion.number);
  if (edited) study.edited.push(lesion.number);
  if (verdict === "undecided") delete study.verdicts[lesion.number];
  else study.verdicts[lesion.number] = verdict;
  const row = rows.find((each) => Number(each.dataset.lesion) === lesion.number);
  row.querySelector(".parts").textContent = lesion.parts > 1 ? `${lesion.parts} parts` : "";
  row.querySelector(".ml").textContent = (lesion.volume_mm3 / 1000).toFixed(2);
  row.querySelector(".mm").textContent = lesion.longest_mm.toFixed(1);
  row.querySelector(".mean").textContent = String(Number(lesion.mean.toPrecision(4)));
  closeVolume();
}

// the other part of the last cut stays instead
async function keepOther() {
  const cut = lastCut;
  if (!cut || !(await edit("undo", {}, cut.lesion))) return;
  past.pop();
  await edit("cut", { ...cut, keep: "smaller" }, cut.lesion);
}

function showEdits() {
  if (!edits) return;
  edits.hidden = !study.chosen;
  document.getElementById("edits-of").textContent = study.chosen;
  for (const button of edits.querySelectorAll("[data-pen]")) {
    button.setAttribute("aria-pressed", String(button.dataset.pen === pen?.operation));
  }
  document.getElementById("slices").classList.toggle("drawing", Boolean(pen?.operation));
  document.getElementById("close").hidden = !pen?.ready;
  document.getElementById("other").hidden = lastCut?.lesion !== study.chosen;
}

// a corner at the cross, of a line or an outline that begins with it
function mark(operation) {
  if (!pen || !study.chosen) return;
  if (pen.operation !== operation) pen.take(operation);
  pen.mark();
}

async function judgeAndGoOn(number, verdict) {
  if (number && (await judge([number], verdict))) nextUndecided(number);
}

// it holds the lesions as they were; the next look reads them again
function closeVolume() {
  if (!volume) return;
  volume = null;
  const canvas = document.getElementById("canvas");
  canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
  canvas.replaceWith(canvas.cloneNode());
}

async function showVolume(wanted) {
  const box = document.getElementById("volume"), text = document.getElementById("volume-text");
  document.getElementById("beside").hidden = wanted;
  box.hidden = !wanted;
  document.getElementById("show-slices").setAttribute("aria-pressed", String(!wanted));
  document.getElementById("show-volume").setAttribute("aria-pressed", String(wanted));
  if (!wanted || volume) return;
  try {
    const { openVolume } = await import("./viewer/viewer.js");
    const chosen = study.lesions.find((each) => each.number === study.chosen);
    volume = await openVolume(document.getElementById("canvas"), {
      image: `/studies/${study.task}/image.nii`,
      lesions: `/studies/${study.task}/lesions.nii`,
      count: study.lesions.length,
      window: study.windows[windows.value],
      at: chosen?.centre_ras_mm,
      verdicts: study.verdicts,
    });
    volume.show(overlay.checked);
    box.dataset.ready = "true";
    text.textContent = "Drag in the 3D view to turn it; drag or scroll in a plane to move.";
  } catch (error) {
    showVolume(false);
    document.getElementById("show-volume").disabled = true;
    document.getElementById("no-volume").textContent = `3D is not available in this browser: ${error.message}`;
  }
}

for (const row of rows) {
  const number = Number(row.dataset.lesion);
  row.addEventListener("click", (event) => {
    if (event.target.closest("button")) return;
    event.preventDefault();
    choose(number);
  });
  row.querySelector("form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    choose(number);
    judgeAndGoOn(number, event.submitter.value);
  });
}
if (together) {
  const kept = localStorage.getItem("fold-mm");
  if (kept) fold.value = kept;
  together.hidden = false;
  fold.addEventListener("input", () => {
    localStorage.setItem("fold-mm", fold.value);
    show();
  });
  document.getElementById("of")?.addEventListener("change", () => show());
  document.getElementById("undo").addEventListener("click", undo);
  document.getElementById("unfold").addEventListener("click", () => {
    fold.value = 0;
    fold.dispatchEvent(new Event("input"));
  });
  const numbers = (test) => study.lesions.filter((each) => undecided(each) && test(each)).map((each) => each.number);
  for (const button of together.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => judge(numbers((each) => !isFolded(each) && ofLabel(each)), button.dataset.all));
  }
  for (const button of document.querySelectorAll("[data-folded]")) {
    button.addEventListener("click", () => judge(numbers(isFolded), button.dataset.folded));
  }
}
// writing it takes a while; a second click would send a second one
document.getElementById("correction")?.addEventListener("submit", (event) => {
  event.submitter.disabled = true;
  document.getElementById("undecided").textContent = "Being written and sent …";
});
windows.addEventListener("change", () => {
  slices.draw({ window: windows.value });
  volume?.window(...study.windows[windows.value]);
});
overlay.addEventListener("change", () => {
  draw({ overlay: overlay.checked });
  volume?.show(overlay.checked);
});
document.getElementById("show-slices")?.addEventListener("click", () => showVolume(false));
const others = [...document.querySelectorAll("[data-beside]")];
for (const button of others) button.addEventListener("click", () => showBeside(button));
document.getElementById("show-volume")?.addEventListener("click", () => showVolume(true));

// a lesion that is pointed at joins the table, which the device writes
async function point() {
  const told = document.getElementById("pointed");
  if (!told || told.dataset.busy) return;
  told.dataset.busy = "true";
  told.textContent = "Segmenting …";
  try {
    const [z, y, x] = slices.place;
    const answer = await fetch(`/studies/${study.task}/points`, {
      method: "POST",
      body: new URLSearchParams({ z, y, x }),
      headers: { "X-CSRF-Token": csrf, Accept: "application/json" },
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.detail);
    location.assign(`/studies/${study.task}?lesion=${content.lesion}`);
  } catch (error) {
    told.textContent = error.message;
    delete told.dataset.busy;
  }
}
document.getElementById("slices").addEventListener("click", (event) => {
  if (document.getElementById("pointing")?.checked && !pen?.operation && event.target.closest(".cut")) point();
});

if (edits) {
  for (const button of edits.querySelectorAll("[data-edit]")) button.addEventListener("click", () => edit(button.dataset.edit));
  for (const button of edits.querySelectorAll("[data-pen]")) {
    button.addEventListener("click", () => {
      pen.take(pen.operation === button.dataset.pen ? null : button.dataset.pen);
      document.getElementById("edit-said").textContent = HINTS[pen.operation] ?? "";
    });
  }
  document.getElementById("close").addEventListener("click", () => pen.close());
  document.getElementById("other").addEventListener("click", keepOther);
}
document.getElementById("zoom-in").addEventListener("click", () => slices.enlarge(1));
document.getElementById("zoom-out").addEventListener("click", () => slices.enlarge(-1));

function nextWindow() {
  windows.selectedIndex = (windows.selectedIndex + 1) % windows.options.length;
  windows.dispatchEvent(new Event("change"));
}

const CROSS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const KEYS = {
  ArrowUp: () => slices.step(1),
  ArrowDown: () => slices.step(-1),
  PageUp: () => slices.step(10),
  PageDown: () => slices.step(-10),
  j: () => next(1),
  k: () => next(-1),
  a: () => judgeAndGoOn(study.chosen, "accepted"),
  r: () => judgeAndGoOn(study.chosen, "rejected"),
  u: undo,
  b: () => others[0]?.click(),
  l: () => overlay.click(),
  p: point,
  g: () => edit("grow"),
  s: () => edit("shrink"),
  c: () => mark("cut"),
  d: () => mark("redraw"),
  o: keepOther,
  w: nextWindow,
  "+": () => slices.enlarge(1),
  "=": () => slices.enlarge(1),
  "-": () => slices.enlarge(-1),
  1: () => slices.activate(0),
  2: () => slices.activate(1),
  3: () => slices.activate(2),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (pen?.operation && event.key === "Escape") pen.take(null);
  if (pen?.ready && event.key === "Enter" && !event.target.matches("button, a")) pen.close();
  if (event.shiftKey && CROSS[event.key] && !event.target.matches("input, select")) {
    event.preventDefault();
    slices.shift(...CROSS[event.key]);
    return;
  }
  if (!KEYS[event.key]) return;
  if (event.target.matches("select, input[type=number]")) return;
  if (event.target.matches("input[type=range]") && /^(Arrow|Page)/.test(event.key)) return; // the slider moves itself
  if (event.target.id === "canvas" && !"ar".includes(event.key)) return; // the other keys there are the viewer's own
  event.preventDefault();
  KEYS[event.key]();
});

draw({ window: windows.value, overlay: overlay.checked, selected: study.chosen });
show();
