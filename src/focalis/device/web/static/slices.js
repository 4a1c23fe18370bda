// Three planes as pictures that the device draws; works without WebGL.

const KEPT = 240;
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const MARGIN = 0.8; // of half the part of a slice that is shown: the cross stays within
const AGAIN_MS = 3000; // without a connection

const nearest = (zoom) => ZOOMS.reduce((best, each) => (Math.abs(each - zoom) < Math.abs(best - zoom) ? each : best));

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
      ink: element.querySelector(".ink polyline"),
    }));
    this.active = this.planes[0];
    this.beside = []; // other slices, which show the same plane
    this.away = false; // whether the place lies outside of the images
    this.zoom = 1;
    this.centre = [...this.place]; // of the part that is shown
    this.pen = null; // takes pointers instead of the cross: down, move, up
    this.look = { window: "", overlay: true, selected: study.chosen, state: "" };
    for (const plane of this.planes) this.#listen(plane);
    new ResizeObserver(() => this.#fit()).observe(root);
  }

  activate(number) {
    this.active = this.planes[number] ?? this.active;
    for (const other of this.beside) if (other.active !== other.planes[number]) other.activate(number);
    for (const plane of this.planes) plane.element.classList.toggle("active", plane === this.active);
  }

  // the cross within the active plane
  shift(rows, columns) {
    const [down, across] = this.#axes(this.active);
    const place = [...this.place];
    place[down] += this.#up(down) ? -rows : rows;
    place[across] += columns;
    this.away = false;
    this.place = this.#inside(place);
    this.draw();
    this.moved(this.place);
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
    this.centre = [...place];
    this.draw();
  }

  // to a place that may lie outside of the images, without telling
  follow(place, centre = place, zoom = this.zoom) {
    this.place = this.#inside(place);
    this.away = this.place.some((at, axis) => at !== place[axis]);
    this.centre = this.#inside(centre);
    this.zoom = Math.max(zoom, 1);
    this.draw();
  }

  // to the next larger or smaller zoom, or to the one nearest to a number
  enlarge(step) { this.zoomTo(ZOOMS[ZOOMS.indexOf(nearest(this.zoom)) + step] ?? this.zoom); }

  zoomTo(zoom) {
    const found = nearest(zoom);
    if (found === this.zoom) return;
    this.zoom = found;
    this.centre = [...this.place];
    this.draw();
    this.moved(this.place);
  }

  draw(look = {}) {
    Object.assign(this.look, look);
    for (let axis = 0; axis < 3; axis++) {
      const room = (this.study.shape[axis] / this.zoom / 2) * MARGIN, off = this.place[axis] - this.centre[axis];
      if (Math.abs(off) > room) this.centre[axis] = this.place[axis] - Math.sign(off) * room;
    }
    for (const plane of this.planes) this.#show(plane);
  }

  // row and column of a plane, in voxels, as pixels within its frame
  spot(plane, [row, column]) {
    const [rows, columns] = this.#axes(plane), [top, bottom, left, right] = this.#part(plane);
    const box = plane.picture.getBoundingClientRect(), frame = plane.cut.getBoundingClientRect();
    const y = (row + 0.5 - top) / (bottom - top), x = (column + 0.5 - left) / (right - left);
    return [box.left - frame.left + x * box.width, box.top - frame.top + (this.#up(rows) ? 1 - y : y) * box.height];
  }

  // row and column of the cross in a plane
  cross(plane) { return this.#axes(plane).map((axis) => this.place[axis]); }

  #inside(place) { return place.map((at, axis) => Math.min(Math.max(at, 0), this.study.shape[axis] - 1)); }

  #up(axis) { return axis === 0; }

  // the rows and columns that are shown of a plane: first, last + 1, first, last + 1
  #part(plane) {
    return this.#axes(plane).flatMap((axis) => {
      const size = this.study.shape[axis], shown = Math.min(Math.ceil(size / this.zoom), size);
      const first = Math.min(Math.max(Math.round(this.centre[axis] - shown / 2), 0), size - shown);
      return [first, first + shown];
    });
  }

  // where a pointer is, as row and column of a plane; null beside the picture
  #pointed(plane, event) {
    const [rows] = this.#axes(plane), [top, bottom, left, right] = this.#part(plane);
    const box = plane.picture.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    if (u < 0 || u >= 1 || v < 0 || v >= 1) return null;
    return [top + (this.#up(rows) ? 1 - v : v) * (bottom - top) - 0.5, left + u * (right - left) - 0.5];
  }

  #address(plane, index) {
    const { window, overlay, selected, state } = this.look;
    const query = new URLSearchParams({ window, overlay, selected, state });
    if (this.zoom > 1) query.set("part", this.#part(plane).join(" "));
    return `${this.study.address}/slices/${plane.name}/${index}.png?${query}`;
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
    const part = this.#part(plane).join(" ");
    if (plane.element.dataset.shown !== String(index) || plane.part !== part) plane.element.dataset.waiting = "";
    try {
      const url = await this.#load(address);
      if (plane.wanted !== address) return; // another slice was asked for meanwhile
      if (plane.picture.src !== url) plane.picture.src = url;
      plane.element.dataset.shown = index;
      plane.part = part;
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
    const box = plane.picture.getBoundingClientRect(), frame = plane.cut.getBoundingClientRect();
    const [x, y] = this.spot(plane, this.cross(plane));
    const left = box.left - frame.left, top = box.top - frame.top;
    Object.assign(plane.across.style, { left: `${left}px`, width: `${box.width}px`, top: `${y}px`, height: "1px" });
    Object.assign(plane.down.style, { top: `${top}px`, height: `${box.height}px`, left: `${x}px`, width: "1px" });
    this.pen?.show();
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
      if (event.ctrlKey) this.enlarge(event.deltaY > 0 ? -1 : 1); // also what a pinch on a touch pad sends
      else this.step(event.deltaY > 0 ? 1 : -1);
    }, { passive: false });
    const point = (event) => {
      const at = this.#pointed(plane, event);
      if (!at) return;
      this.#axes(plane).forEach((axis, i) => { this.place[axis] = Math.round(at[i]); });
      this.place = this.#inside(this.place);
      this.draw();
      this.moved(this.place);
    };
    const fingers = new Map();
    const apart = () => {
      const [one, other] = [...fingers.values()];
      return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    };
    let pinch = null; // distance and zoom at its beginning
    plane.cut.addEventListener("pointerdown", (event) => {
      plane.cut.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      this.activate(number);
      if (fingers.size === 2) {
        pinch = { apart: apart(), zoom: this.zoom };
        this.pen?.drop();
      } else if (fingers.size === 1) {
        const at = this.#pointed(plane, event);
        if (this.pen && at) this.pen.down(plane, at);
        else point(event);
      }
    });
    plane.cut.addEventListener("pointermove", (event) => {
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
      if (pinch) {
        if (fingers.size === 2) this.zoomTo((pinch.zoom * apart()) / pinch.apart);
      } else if (event.buttons) {
        const at = this.#pointed(plane, event);
        if (!this.pen) point(event);
        else if (at) this.pen.move(plane, at);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      plane.cut.addEventListener(name, (event) => {
        fingers.delete(event.pointerId);
        if (!fingers.size) {
          if (!pinch && this.pen) {
            if (name === "pointerup") this.pen.up(plane);
            else this.pen.drop();
          }
          pinch = null;
        }
      });
    }
  }
}
