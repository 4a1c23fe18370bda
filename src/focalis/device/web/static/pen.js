// A line or an outline drawn on a slice: by dragging, by tapping its corners, or by marking the cross with a key.

const APART = 0.25; // voxels between two points of a dragged outline
const MOST = 2000;

export class Pen {
  // done({ operation, plane, index, points }): points are rows and columns in voxels
  constructor(slices, done, changed) {
    Object.assign(this, { slices, done, changed, operation: null, plane: null, index: 0, points: [] });
  }

  // take the pen up for "cut" or "redraw", or put it down with null
  take(operation) {
    this.operation = operation;
    this.slices.pen = operation && this;
    this.drop();
  }

  drop() {
    Object.assign(this, { plane: null, index: 0, points: [], dragged: false, byKey: false });
    this.show();
    this.changed();
  }

  get ready() { return this.operation === "redraw" && this.points.length > 2; }

  // a corner at the cross
  mark() {
    this.#begin(this.slices.active);
    this.byKey = true;
    this.#add(this.slices.cross(this.plane));
    if (this.operation === "cut" && this.points.length === 2) this.close();
  }

  close() {
    const { operation, plane, index, points } = this;
    if (!plane || (operation === "cut" ? points.length !== 2 : !this.ready)) return;
    this.drop();
    this.done({ operation, plane: plane.name, index, points });
  }

  down(plane, at) {
    this.#begin(plane);
    this.byKey = false;
    this.#add(at);
  }

  move(plane, at) {
    if (plane !== this.plane) return;
    const last = this.points.at(-1);
    if (Math.hypot(at[0] - last[0], at[1] - last[1]) < APART) return;
    this.dragged = true;
    if (this.operation === "cut") {
      this.points = [this.points[0], at];
      this.show();
    } else if (this.points.length < MOST) this.#add(at);
  }

  up() {
    if (this.operation === "cut" || this.dragged) this.close();
    this.dragged = false;
  }

  show() {
    for (const plane of this.slices.planes) {
      const here = plane === this.plane && this.slices.place[plane.axis] === this.index;
      const ends = this.byKey ? [this.slices.cross(plane)] : this.points.slice(-1);
      const way = here ? [...this.points, ...ends].map((at) => this.slices.spot(plane, at).map(Math.round).join()) : [];
      plane.ink.setAttribute("points", way.join(" "));
    }
  }

  // another slice begins anew
  #begin(plane) {
    const index = this.slices.place[plane.axis];
    if (plane !== this.plane || index !== this.index) Object.assign(this, { plane, index, points: [] });
  }

  #add(at) {
    const last = this.points.at(-1);
    if (!last || last[0] !== at[0] || last[1] !== at[1]) this.points.push(at);
    this.show();
    this.changed();
  }
}
