// The work list: fetched again every two seconds, replaced when it has changed, filtered in the browser.
import { localise } from "./times.js";

const rows = document.getElementById("rows");
const find = document.getElementById("find");
const live = document.getElementById("live");
const SECONDS = 2;
let tag = "";

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function focusedAddress() {
  const focused = document.activeElement;
  return rows.contains(focused) ? focused.getAttribute("href") : null;
}

async function refresh() {
  if ("found" in rows.dataset) return; // what was searched for stays as it was found
  try {
    const answer = await fetch("/work/rows", { headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 401) { location.assign("/login"); return; }
    if (answer.ok) {
      tag = answer.headers.get("etag") ?? "";
      const address = focusedAddress();
      // the server escaped every value
      rows.innerHTML = await answer.text();
      localise(rows);
      filter();
      if (address) rows.querySelector(`a[href="${CSS.escape(address)}"]`)?.focus();
    }
    live.textContent = answer.ok || answer.status === 304 ? "live" : "not up to date";
  } catch {
    live.textContent = "no connection to the device";
  }
}

// j and k walk through the studies; Enter opens the one in focus
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const links = [...rows.querySelectorAll("tr:not([hidden]) a.open")];
  if (!step || !links.length) return;
  event.preventDefault();
  const at = links.indexOf(document.activeElement);
  links[Math.min(Math.max(at < 0 ? 0 : at + step, 0), links.length - 1)].focus();
});

find.addEventListener("input", filter);
setInterval(() => { if (!document.hidden) refresh(); }, SECONDS * 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
