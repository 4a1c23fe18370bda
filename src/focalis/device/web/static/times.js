// Times as the person's clock shows them; without JavaScript they stay in UTC.

export function localise(root = document) {
  for (const element of root.querySelectorAll("time")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    const today = at.toDateString() === new Date().toDateString();
    const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    element.textContent = today ? clock : `${at.toLocaleDateString()} ${clock}`;
    element.title = at.toLocaleString();
  }
}

localise();
