// Boxes over a photograph, marked by mouse, finger, pen or keys; their corners are in pixels of the photograph.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 20; // around the photograph: of the stage in page.css
const CROWD = 40; // boxes: with more, their numbers would cover the words, and only those pointed at are shown
const LEAST = 8; // minimum side of a box, in pixels of the screen
const CORNERS = ["Top left", "Top right", "Bottom right", "Bottom left"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function shape(tag, className, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function rectangle(x0, y0, x1, y1) {
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}

function isConvexAndClockwise(corners) {
  return corners.every(([x, y], i) => {
    const [[x1, y1], [x2, y2]] = [corners[(i + 1) % 4], corners[(i + 2) % 4]];
    return (x1 - x) * (y2 - y1) - (y1 - y) * (x2 - x1) > 0;
  });
}

// A region as `POST /v1/regions` accepts it.
export function region({ corners, upright }) {
  if (upright) return [...corners[0].map(Math.round), ...corners[2].map(Math.round)];
  return corners.map((corner) => corner.map((value) => Math.round(10 * value) / 10));
}

// Calls `changed(box)` when a box was moved, made or removed (then without one), and `enter()` when Enter was pressed on one.
export class Boxes {
  constructor(stage, image, { width, height }, { changed, enter }) {
    Object.assign(this, { stage, image, width, height, changed, enter });
    this.all = [];
    this.selected = null;
    this.freeCorners = false;
    this.svg = shape("svg", "marks", { role: "group" });
    this.handles = CORNERS.map((_, i) => {
      const handle = shape("g", "handle", { tabindex: "0", role: "button", "data-corner": i });
      handle.append(shape("circle", "target", { r: 22 }), shape("circle", "dot", { r: 7 }));
      return handle;
    });
    stage.append(this.svg);
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.svg.addEventListener(kind, (event) => this[kind](event));
    }
    this.svg.addEventListener("keydown", (event) => this.keydown(event));
    this.svg.addEventListener("focusin", (event) => this.select(this.boxOf(event.target)));
    new ResizeObserver(() => this.layout()).observe(stage.parentElement);
  }

  layout() {
    const room = this.stage.parentElement.clientWidth - 2 * MARGIN;
    if (room <= 0) return; // not shown
    this.scale = Math.min(room / this.width, (0.75 * window.innerHeight) / this.height, 4);
    this.image.style.width = `${this.width * this.scale}px`;
    this.image.style.height = `${this.height * this.scale}px`;
    this.all.forEach((box) => this.draw(box));
  }

  draw(box) {
    const points = box.corners.map(([x, y]) => [x * this.scale + MARGIN, y * this.scale + MARGIN]);
    const number = this.all.indexOf(box) + 1;
    const [x, y] = points[0];
    box.outline.setAttribute("points", points.join(" "));
    box.number.setAttribute("transform", `translate(${box === this.selected ? x + 12 : x}, ${y})`); // beside the handle
    box.number.lastChild.textContent = number;
    const [[left, top], [right, bottom]] = this.extent(box);
    const size = `${Math.round(right - left)} × ${Math.round(bottom - top)} pixels at ${Math.round(left)}, ${Math.round(top)}`;
    const read = box.reading ? `, read as ${box.reading.text || "nothing"}` : "";
    box.outline.setAttribute("aria-label", `Word ${number}${read}, ${size}`);
    if (box !== this.selected) return;
    const centre = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis] / 4, 0));
    this.handles.forEach((handle, i) => {
      const away = [points[i][0] - centre[0], points[i][1] - centre[1]].map(Math.sign);
      handle.setAttribute("aria-label", `${CORNERS[i]} corner of word ${number}`);
      handle.setAttribute("transform", `translate(${points[i]})`);
      // Outwards, so that a small box still has a middle to be moved by.
      handle.firstChild.setAttribute("transform", `translate(${10 * away[0]}, ${10 * away[1]})`);
    });
  }

  extent(box) {
    const edges = (of) => [0, 1].map((axis) => of(...box.corners.map((corner) => corner[axis])));
    return [edges(Math.min), edges(Math.max)];
  }

  make(corners) {
    const outline = shape("polygon", "box", { tabindex: "0", role: "button" });
    const number = shape("g", "number");
    number.append(shape("rect", "", { x: 0, y: -18, width: 20, height: 18 }), shape("text", "", { x: 10, y: -4 }));
    const box = { corners, upright: true, outline, number, reading: null };
    this.all.push(box);
    this.svg.classList.toggle("crowded", this.all.length > CROWD);
    this.svg.append(outline, number);
    this.select(box);
    return box;
  }

  // Replaces all boxes by these quadrilaterals, which the server has found.
  fill(quads) {
    this.drag = null;
    this.select(null);
    for (const box of this.all.splice(0)) {
      box.outline.remove();
      box.number.remove();
    }
    this.svg.classList.remove("crowded");
    for (const corners of quads) Object.assign(this.make(corners), { upright: false });
    this.select(null);
    this.all.forEach((box) => this.draw(box));
  }

  // In the middle, without a pointer.
  add() {
    const step = (this.all.length % 8) * 0.05 * this.height;
    const [x, y] = [this.width / 2, Math.min(0.3 * this.height + step, 0.8 * this.height)];
    const box = this.make(rectangle(x - 0.2 * this.width, y, x + 0.2 * this.width, y + 0.15 * this.height));
    this.draw(box);
    this.changed(box);
    box.outline.focus();
    return box;
  }

  remove(box) {
    const place = this.all.indexOf(box);
    if (place < 0) return; // replaced by found words meanwhile
    this.select(null);
    this.all.splice(place, 1);
    this.svg.classList.toggle("crowded", this.all.length > CROWD);
    box.outline.remove();
    box.number.remove();
    this.all.forEach((other) => this.draw(other));
    this.changed();
    this.all[Math.min(place, this.all.length - 1)]?.outline.focus();
  }

  select(box) {
    if (box === this.selected) return;
    const before = this.selected;
    this.selected = box;
    this.handles.forEach((handle) => handle.remove());
    before?.outline.classList.remove("selected");
    if (this.all.includes(before)) this.draw(before);
    if (!box) return;
    box.outline.classList.add("selected");
    box.outline.after(...this.handles); // the next stops of the Tab key
    this.draw(box);
  }

  boxOf(target) {
    const found = this.all.find((box) => box.outline === target || box.number.contains(target));
    return found ?? (target.closest(".handle") ? this.selected : null);
  }

  // Puts the corners in place, if they still make a box.
  put(box, corners, upright = box.upright) {
    const inside = corners.map(([x, y]) => [clamp(x, 0, this.width), clamp(y, 0, this.height)]);
    if (!isConvexAndClockwise(inside)) return;
    Object.assign(box, { corners: inside, upright, reading: null });
    this.draw(box);
    this.changed(box);
  }

  move(box, corners, dx, dy) {
    const [low, high] = this.extent({ corners });
    const x = clamp(dx, -low[0], this.width - high[0]);
    const y = clamp(dy, -low[1], this.height - high[1]);
    this.put(box, corners.map((corner) => [corner[0] + x, corner[1] + y]));
  }

  moveCorner(box, corners, i, x, y) {
    if (this.freeCorners || !box.upright) {
      this.put(box, corners.map((corner, j) => (i === j ? [x, y] : corner)), false);
      return;
    }
    const least = LEAST / this.scale;
    let [[x0, y0], , [x1, y1]] = corners;
    if (i === 0 || i === 3) x0 = Math.min(x, x1 - least);
    else x1 = Math.max(x, x0 + least);
    if (i < 2) y0 = Math.min(y, y1 - least);
    else y1 = Math.max(y, y0 + least);
    this.put(box, rectangle(x0, y0, x1, y1));
  }

  // Stretched from its top left.
  resize(box, dx, dy) {
    const [[x0, y0], [x1, y1]] = this.extent(box);
    const least = LEAST / this.scale;
    const across = Math.max(least, x1 - x0 + dx) / (x1 - x0);
    const down = Math.max(least, y1 - y0 + dy) / (y1 - y0);
    this.put(box, box.corners.map(([x, y]) => [x0 + (x - x0) * across, y0 + (y - y0) * down]));
  }

  // In pixels of the photograph, whatever the page's zoom and the screen's density.
  at(event) {
    const frame = this.image.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * this.width;
    const y = ((event.clientY - frame.top) / frame.height) * this.height;
    return [clamp(x, 0, this.width), clamp(y, 0, this.height)];
  }

  pointerdown(event) {
    if (event.button || this.drag) return;
    event.preventDefault(); // no selection of text, no focus of its own
    const handle = event.target.closest(".handle");
    const box = this.boxOf(event.target);
    this.select(box);
    (handle ?? box?.outline)?.focus({ preventScroll: true });
    this.drag = { id: event.pointerId, from: this.at(event), box, corners: box?.corners, corner: handle?.dataset.corner };
    this.svg.setPointerCapture(event.pointerId);
  }

  pointermove(event) {
    const drag = this.drag;
    if (drag?.id !== event.pointerId) return;
    const [x, y] = this.at(event);
    const [dx, dy] = [x - drag.from[0], y - drag.from[1]];
    if (drag.corner !== undefined) {
      const i = Number(drag.corner);
      this.moveCorner(drag.box, drag.corners, i, drag.corners[i][0] + dx, drag.corners[i][1] + dy);
    } else if (drag.corners) {
      if (dx || dy) this.move(drag.box, drag.corners, dx, dy);
    } else if (Math.min(Math.abs(dx), Math.abs(dy)) * this.scale >= LEAST) {
      const corners = rectangle(Math.min(x, x - dx), Math.min(y, y - dy), Math.max(x, x - dx), Math.max(y, y - dy));
      drag.box ??= this.make(corners);
      this.put(drag.box, corners);
    }
  }

  pointerup(event) {
    if (this.drag?.id !== event.pointerId) return;
    const { box } = this.drag;
    this.drag = null;
    box?.outline.focus({ preventScroll: true });
  }

  // The browser took over the touch to scroll or zoom.
  pointercancel(event) {
    if (this.drag?.id !== event.pointerId) return;
    const { box, corners } = this.drag;
    this.drag = null;
    if (box && corners) this.put(box, corners);
    else if (box) this.remove(box);
  }

  keydown(event) {
    const box = this.boxOf(event.target);
    if (!box || event.altKey || event.ctrlKey || event.metaKey) return;
    const direction = ARROWS[event.key];
    const corner = event.target.dataset.corner;
    // A single press moves a little, holding the key down accelerates.
    const step = (event.repeat ? 12 : 2) / this.scale;
    if (direction) {
      const [dx, dy] = [direction[0] * step, direction[1] * step];
      if (corner !== undefined) {
        const [x, y] = box.corners[corner];
        this.moveCorner(box, box.corners, Number(corner), x + dx, y + dy);
      } else if (event.shiftKey) {
        this.resize(box, dx, dy);
      } else {
        this.move(box, box.corners, dx, dy);
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.remove(box);
    } else if (event.key === "Enter") {
      this.enter();
    } else {
      return;
    }
    event.preventDefault();
  }
}
