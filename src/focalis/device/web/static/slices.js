// Three planes as pictures that the device draws; works without WebGL.

const KEPT = 240;
const AGAIN_MS = 3000; // without a connection

export class Slices {
  constructor(root, study, moved) {
    this.study = study;
    this.moved = moved;
    this.place = [study.places.axial, study.places.coronal, study.places.sagittal]; // z, y, x
    this.cache = new Map();
    this.planes = [...root.querySelectorAll(".plane")].map((element) => ({
      element,
      axis: Number(element.dataset.axis),
      name: element.dataset.plane,
      picture: element.querySelector("img"),
      slider: element.querySelector("input"),
      at: element.querySelector(".at"),
      across: element.querySelector(".across"),
      down: element.querySelector(".down"),
      cut: element.querySelector(".cut"),
      lost: element.querySelector(".lost"),
    }));
    this.active = this.planes[0];
    this.beside = null; // the slices of another study, which show the same plane
    this.away = false; // whether the place lies outside of the images
    this.look = { window: "", overlay: true, selected: study.chosen, state: "" };
    for (const plane of this.planes) this.#listen(plane);
    new ResizeObserver(() => this.#fit()).observe(root);
  }

  activate(number) {
    this.active = this.planes[number] ?? this.active;
    if (this.beside && this.beside.active.axis !== this.active.axis) this.beside.activate(number);
    for (const plane of this.planes) plane.element.classList.toggle("active", plane === this.active);
  }

  step(count) { this.go(this.active.axis, this.place[this.active.axis] + count); }

  go(axis, index) {
    this.away = false;
    this.place[axis] = Math.min(Math.max(index, 0), this.study.shape[axis] - 1);
    this.draw();
    this.moved(this.place);
  }

  jump(place) {
    this.place = [...place];
    this.draw();
  }

  // to a place that may lie outside of the images, without telling
  follow(place) {
    const inside = place.map((at, axis) => Math.min(Math.max(at, 0), this.study.shape[axis] - 1));
    this.away = inside.some((at, axis) => at !== place[axis]);
    this.jump(inside);
  }

  draw(look = {}) {
    Object.assign(this.look, look);
    for (const plane of this.planes) this.#show(plane);
  }

  #address(plane, index) {
    const { window, overlay, selected, state } = this.look;
    const query = new URLSearchParams({ window, overlay, selected, state });
    return `/studies/${this.study.task}/slices/${plane.name}/${index}.png?${query}`;
  }

  async #load(address) {
    if (!this.cache.has(address)) {
      const picture = fetch(address).then(async (answer) => {
        if (answer.status === 401) throw new Error("log in again");
        if (!answer.ok) throw new Error(`the device answers ${answer.status}`);
        return URL.createObjectURL(await answer.blob());
      });
      this.cache.set(address, picture);
      picture.catch(() => this.cache.delete(address)); // the next look asks again
      if (this.cache.size > KEPT) {
        const [oldest, picture] = this.cache.entries().next().value;
        this.cache.delete(oldest);
        picture.then((url) => URL.revokeObjectURL(url), () => {});
      }
    }
    return this.cache.get(address);
  }

  async #show(plane) {
    const index = this.place[plane.axis];
    plane.slider.value = index;
    plane.slider.setAttribute("aria-valuetext", `${plane.name} slice ${index + 1} of ${this.study.shape[plane.axis]}`);
    plane.at.textContent = index + 1;
    plane.element.toggleAttribute("data-away", this.away);
    this.#cross(plane);
    const address = this.#address(plane, index);
    plane.wanted = address;
    if (plane.element.dataset.shown !== String(index)) plane.element.dataset.waiting = "";
    try {
      const url = await this.#load(address);
      if (plane.wanted !== address) return; // another slice was asked for meanwhile
      if (plane.picture.src !== url) plane.picture.src = url;
      plane.element.dataset.shown = index;
      delete plane.element.dataset.waiting;
      plane.lost.hidden = true;
      if (plane.picture.hidden) { plane.picture.hidden = false; this.#fit(); }
      for (const near of [index + 1, index - 1]) {
        if (near >= 0 && near < this.study.shape[plane.axis]) this.#load(this.#address(plane, near)).catch(() => {});
      }
    } catch (error) {
      if (plane.wanted !== address) return;
      // another slice's picture must not stand under this one's number
      delete plane.element.dataset.waiting;
      plane.picture.hidden = true;
      plane.lost.hidden = false;
      const offline = error instanceof TypeError;
      plane.lost.textContent = `This slice was not loaded: ${offline ? "no connection to the device" : error.message}`;
      clearTimeout(plane.again);
      if (offline) plane.again = setTimeout(() => { if (plane.wanted === address) this.#show(plane); }, AGAIN_MS);
    }
  }

  // rows and columns of a plane as axes of z, y, x; superior is at the top
  #axes(plane) { return [[1, 2], [0, 2], [0, 1]][plane.axis]; }

  #fit() {
    for (const plane of this.planes) {
      const { naturalWidth, naturalHeight } = plane.picture;
      if (!naturalWidth) continue;
      const scale = Math.min(plane.cut.clientWidth / naturalWidth, plane.cut.clientHeight / naturalHeight);
      plane.picture.style.width = `${naturalWidth * scale}px`;
      plane.picture.style.height = `${naturalHeight * scale}px`;
      this.#cross(plane);
    }
  }

  #cross(plane) {
    const [rows, columns] = this.#axes(plane);
    const box = plane.picture.getBoundingClientRect(), frame = plane.cut.getBoundingClientRect();
    let y = (this.place[rows] + 0.5) / this.study.shape[rows];
    const x = (this.place[columns] + 0.5) / this.study.shape[columns];
    if (rows === 0) y = 1 - y;
    const left = box.left - frame.left, top = box.top - frame.top;
    Object.assign(plane.across.style, { left: `${left}px`, width: `${box.width}px`, top: `${top + y * box.height}px`, height: "1px" });
    Object.assign(plane.down.style, { top: `${top}px`, height: `${box.height}px`, left: `${left + x * box.width}px`, width: "1px" });
  }

  #listen(plane) {
    const number = this.planes.indexOf(plane);
    plane.slider.addEventListener("input", () => this.go(plane.axis, Number(plane.slider.value)));
    plane.slider.addEventListener("focus", () => this.activate(plane.axis));
    plane.picture.addEventListener("load", () => this.#fit());
    if (plane.picture.complete) requestAnimationFrame(() => this.#fit());
    plane.cut.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.activate(plane.axis);
      this.step(event.deltaY > 0 ? 1 : -1);
    }, { passive: false });
    const point = (event) => {
      const box = plane.picture.getBoundingClientRect();
      const [rows, columns] = this.#axes(plane);
      const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
      if (u < 0 || u >= 1 || v < 0 || v >= 1) return;
      this.place[columns] = Math.floor(u * this.study.shape[columns]);
      this.place[rows] = Math.floor((rows === 0 ? 1 - v : v) * this.study.shape[rows]);
      this.draw();
      this.moved(this.place);
    };
    plane.cut.addEventListener("pointerdown", (event) => {
      plane.cut.setPointerCapture(event.pointerId);
      this.activate(number);
      point(event);
    });
    plane.cut.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
  }
}
