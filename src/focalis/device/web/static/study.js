// The study page: the table of lesions steers the pictures, verdicts go to the device, keys do both.
import { Slices } from "./slices.js";
import "./times.js";

const study = JSON.parse(document.getElementById("study").textContent);
const csrf = document.querySelector("meta[name=csrf]").content;
const rows = [...document.querySelectorAll(".lesions tbody tr")];
const windows = document.getElementById("window");
const overlay = document.getElementById("overlay");
const slices = new Slices(document.getElementById("slices"), study, () => {});
let volume = null; // the WebGL viewer, once it is wanted

// part of a picture's address, so that a verdict asks for it anew
const state = () => Object.entries(study.verdicts).map(([number, verdict]) => number + verdict[0]).join("");

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
  slices.draw({ selected: number });
  volume?.jump(lesion.centre_ras_mm);
}

function next(step) {
  const at = study.lesions.findIndex((each) => each.number === study.chosen);
  const lesion = study.lesions[Math.min(Math.max(at + step, 0), study.lesions.length - 1)];
  if (lesion) choose(lesion.number);
}

async function judge(number, verdict) {
  const text = document.getElementById("undecided");
  if (!study.may_judge || !number) return;
  try {
    const answer = await fetch(`/studies/${study.task}/lesions/${number}`, {
      method: "POST",
      body: new URLSearchParams({ verdict }),
      headers: { "X-CSRF-Token": csrf, Accept: "application/json" },
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.detail);
    study.verdicts[number] = verdict;
    const row = rows.find((each) => Number(each.dataset.lesion) === number);
    row.dataset.verdict = verdict;
    for (const button of row.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === verdict));
    text.textContent = content.undecided ? `${content.undecided} not decided yet` : "All decided";
    document.querySelector("#correction button").disabled = content.undecided > 0;
    slices.draw({ state: state() });
    volume?.colour(study.verdicts);
  } catch (error) {
    text.textContent = `The verdict was not kept: ${error.message}`;
  }
}

async function showVolume(wanted) {
  const box = document.getElementById("volume"), text = document.getElementById("volume-text");
  document.getElementById("slices").hidden = wanted;
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
    judge(number, event.submitter.value);
  });
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
  slices.draw({ overlay: overlay.checked });
  volume?.show(overlay.checked);
});
document.getElementById("show-slices")?.addEventListener("click", () => showVolume(false));
document.getElementById("show-volume")?.addEventListener("click", () => showVolume(true));

const KEYS = {
  ArrowUp: () => slices.step(1),
  ArrowDown: () => slices.step(-1),
  PageUp: () => slices.step(10),
  PageDown: () => slices.step(-10),
  j: () => next(1),
  k: () => next(-1),
  a: () => judge(study.chosen, "accepted"),
  r: () => judge(study.chosen, "rejected"),
  l: () => overlay.click(),
  1: () => slices.activate(0),
  2: () => slices.activate(1),
  3: () => slices.activate(2),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  if (event.target.matches("select")) return;
  if (event.target.matches("input[type=range]") && /^(Arrow|Page)/.test(event.key)) return; // the slider moves itself
  if (event.target.id === "canvas" && !"ar".includes(event.key)) return; // the other keys there are the viewer's own
  event.preventDefault();
  KEYS[event.key]();
});

slices.draw({ window: windows.value, state: state() });
