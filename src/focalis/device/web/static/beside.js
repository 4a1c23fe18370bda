// Images beside the study's: those of an earlier study, or of another series. All show the same place at one scale.
import { Slices } from "./slices.js";

const MOST = 3;
const AGAIN_MS = 1000;

const through = (matrix, [z, y, x]) => matrix.map((row) => Math.round(row[0] * z + row[1] * y + row[2] * x + row[3]));

// as many millimetres as in other slices
const extent = ({ study }) => Math.max(...study.shape.map((count, axis) => count * study.spacing[axis]));
const zoomLike = (shown, other) => (shown.zoom > 1 ? (shown.zoom * extent(other)) / extent(shown) : 1);

export class Beside {
  constructor(main, said) {
    Object.assign(this, { main, said, panes: [], look: {} });
    this.root = document.getElementById("beside");
  }

  get shown() { return this.panes.filter((pane) => !pane.element.hidden); }

  // told: address, shape, spacing, places, windows; there and back: matrices to and from it, null if it is not linked;
  // lesions: those of the study to its own, if it has others
  add(element, button, told) {
    const slices = new Slices(element.querySelector(".planes"), { chosen: 0, ...told }, () => this.follow(pane));
    const pane = { element, button, told, slices, window: element.querySelector("select") };
    pane.window.replaceChildren(...Object.keys(told.windows).map((name) => new Option(name)));
    pane.window.addEventListener("change", () => slices.draw({ window: pane.window.value }));
    this.panes.push(pane);
    return pane;
  }

  toggle(pane, wanted = pane.element.hidden) {
    if (wanted && this.shown.length >= MOST) this.said(`${MOST} others are shown already; hide one first.`);
    else {
      pane.element.hidden = !wanted;
      pane.button.setAttribute("aria-pressed", String(wanted));
      this.root.classList.toggle("on", this.shown.length > 0);
      this.root.dataset.count = this.shown.length + 1;
      const all = [this.main, ...this.shown.map((each) => each.slices)];
      for (const slices of all) slices.beside = all.filter((other) => other !== slices);
      if (!wanted) return;
      pane.slices.activate(this.main.active.axis);
      this.draw(this.look);
      this.follow(null);
    }
  }

  // another series of the study, once the device has read it
  async open(button, template, number) {
    const answer = await fetch(button.dataset.series);
    if (answer.status === 202) {
      this.said("Reading the images …");
      await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
      return this.open(button, template, number);
    }
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    this.said("");
    const element = template.content.querySelector(".pane").cloneNode(true);
    element.removeAttribute("id");
    element.querySelector(".planes").removeAttribute("id");
    element.querySelector("b").textContent = button.textContent;
    element.querySelector("select").setAttribute("aria-label", `Window of ${button.textContent}`);
    for (const plane of element.querySelectorAll(".plane")) {
      const slider = plane.querySelector("input"), size = told.shape[plane.dataset.axis];
      slider.max = size - 1;
      slider.setAttribute("aria-label", `${plane.dataset.plane} slice of ${button.textContent}`);
      plane.querySelector(".of").textContent = size;
      const picture = plane.querySelector("img");
      picture.removeAttribute("src");
      picture.hidden = true; // until the first one has come
      picture.alt = `${plane.dataset.plane} slice of ${button.textContent}`;
    }
    this.root.append(element);
    return this.add(element, button, told);
  }

  // all others to the place of one of them; null is the study
  follow(from) {
    if (from) {
      const { back } = from.told;
      if (!back) return;
      this.main.follow(through(back, from.slices.place), through(back, from.slices.centre), zoomLike(from.slices, this.main));
    }
    for (const { slices, told } of this.shown.filter((pane) => pane !== from && pane.told.there)) {
      slices.follow(through(told.there, this.main.place), through(told.there, this.main.centre), zoomLike(this.main, slices));
    }
  }

  draw(look) {
    Object.assign(this.look, look);
    for (const { slices, told, window } of this.shown) {
      const selected = told.lesions ? told.lesions[this.look.selected] ?? 0 : this.look.selected;
      slices.draw({ ...this.look, selected, window: window.value });
    }
  }
}
