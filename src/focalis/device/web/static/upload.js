// Sends files in batches, with progress, and takes files and folders that are dropped.

const form = document.getElementById("upload");
const drop = document.getElementById("drop");
const csrf = document.querySelector("meta[name=csrf]").content;
const BATCH_FILES = 20;
const BATCH_BYTES = 64e6;

document.getElementById("or-drop").hidden = false;

function* batches(files) {
  let batch = [], bytes = 0;
  for (const file of files) {
    if (batch.length && (batch.length >= BATCH_FILES || bytes + file.size > BATCH_BYTES)) {
      yield batch;
      batch = [], bytes = 0;
    }
    batch.push(file);
    bytes += file.size;
  }
  if (batch.length) yield batch;
}

async function send(files) {
  const text = document.getElementById("progress-text");
  const bar = document.getElementById("bar");
  const reasons = document.getElementById("reasons");
  const why = new Map();
  const counts = { kept: 0, known: 0, quarantined: 0, refused: 0 };
  let done = 0;
  document.getElementById("progress").hidden = false;
  document.getElementById("then").hidden = true;
  reasons.replaceChildren();
  form.querySelector("button").disabled = true;
  try {
    for (const batch of batches(files)) {
      const body = new FormData();
      for (const file of batch) body.append("files", file, "image.dcm");
      const answer = await fetch("/upload", { method: "POST", body, headers: { "X-CSRF-Token": csrf, Accept: "application/json" } });
      const told = await answer.text(); // an answer of the guard before the page is not JSON
      if (!answer.ok) throw new Error(answer.headers.get("content-type")?.includes("json") ? JSON.parse(told).detail : told);
      const content = JSON.parse(told);
      for (const kind of Object.keys(counts)) counts[kind] += content[kind] ?? 0;
      for (const [reason, count] of Object.entries(content.reasons)) why.set(reason, (why.get(reason) ?? 0) + count);
      reasons.replaceChildren(...[...why].map(([reason, count]) => Object.assign(document.createElement("li"), { textContent: `${count} × ${reason}` })));
      done += batch.length;
      bar.value = done / files.length;
      text.textContent = `${done} of ${files.length} files: ${counts.kept} kept, ${counts.known} known already, ${counts.quarantined} in quarantine, ${counts.refused} refused.`;
    }
  } catch (error) {
    const reason = error instanceof TypeError ? "no connection to the device" : error.message;
    text.textContent = `Stopped after ${done} of ${files.length} files: ${reason}`;
  }
  document.getElementById("then").hidden = !counts.kept;
  form.querySelector("button").disabled = false;
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const each of some) found.push(...(await filesOf(each)));
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send([...form.elements.files.files]);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
  });
}
drop.addEventListener("drop", async (event) => {
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const files = (await Promise.all(entries.map(filesOf))).flat();
  if (files.length) send(files);
});
