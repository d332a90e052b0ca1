// One map: its dots are stamped into the pixels of a canvas; above them lies what follows the pointer.
// Plain pixels draw 100,000 dots in some ten milliseconds in every browser, also where there is no graphics card.
"use strict";
const FEW = 150; // dots in view, up to which pictures stand in for them
const NAMES = 40; // of groups on one map, at most
const MARGIN = 24; // pixels around a canvas, so that no dot's own need be counted: more than half a mark
const REACH = 8; // pixels around the pointer in which a dot is found

const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const sprites = new Map();

// A star of so many points on a unit circle; without an inner radius a polygon.
const star = (points, turn, inner = 0) => (pen, r) => {
  const corners = inner ? 2 * points : points;
  for (let c = 0; c < corners; c++) {
    const angle = (turn + (360 * c) / corners) * (Math.PI / 180);
    const radius = inner && c % 2 ? inner * r : r;
    pen.lineTo(radius * Math.cos(angle), radius * Math.sin(angle));
  }
  pen.closePath();
};
const MARKS = { // each with a factor that makes their areas alike
  circle: [1, (pen, r) => pen.arc(0, 0, r, 0, 2 * Math.PI)],
  square: [1.2, star(4, 45)],
  triangle: [1.4, star(3, -90)],
  diamond: [1.25, star(4, -90)],
  inverted_triangle: [1.4, star(3, 90)],
  star: [1.5, star(5, -90, 0.45)],
  hex: [1.1, star(6, 0)],
  plus: [1.3, (pen, r) => { pen.rect(-r, -r / 3, 2 * r, (2 * r) / 3); pen.rect(-r / 3, -r, (2 * r) / 3, 2 * r); }],
};

// The pixels of a mark that it covers: where they are from its middle, their colours, and how much they cover.
function sprite(colour, mark, diameter, opacity, edge) {
  const key = [colour, mark, diameter, opacity, edge].join();
  if (!sprites.has(key)) {
    if (sprites.size > 2000) sprites.clear();
    const [factor, path] = MARKS[mark];
    const r = (diameter / 2) * factor, half = Math.min(MARGIN, Math.ceil(r + 1)), side = 2 * half + 1;
    Object.assign(scratch.canvas, { width: side, height: side }); // which clears it
    scratch.translate(side / 2, side / 2);
    scratch.globalAlpha = opacity;
    scratch.beginPath();
    path(scratch, r);
    Object.assign(scratch, { fillStyle: colour, strokeStyle: edge, lineWidth: Math.max(0.5, diameter / 14) });
    scratch.fill();
    if (diameter > 5) scratch.stroke(); // keeps dots apart that touch
    const { data } = scratch.getImageData(0, 0, side, side), colours = new Uint32Array(data.buffer);
    const rows = [...colours.keys()].filter((p) => data[4 * p + 3] > 4);
    sprites.set(key, {
      places: rows.map((p) => [(p % side) - half, Math.floor(p / side) - half]),
      colours: Uint32Array.from(rows, (p) => colours[p] | 0xff000000),
      covers: Uint16Array.from(rows, (p) => Math.round((data[4 * p + 3] * 256) / 255)),
    });
  }
  return sprites.get(key);
}

class DotMap {
  // shared: n, shown, lit, chosen, hovered, paper, ink, groups, picture(i), tool and the callbacks that are called below.
  constructor(stage, x, y, shared) {
    Object.assign(this, { stage, x, y, shared, links: [], lasso: null, found: null, waiting: false });
    [this.dots, this.over] = stage.querySelectorAll("canvas");
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < x.length; i++) {
      left = Math.min(left, x[i]); right = Math.max(right, x[i]); low = Math.min(low, y[i]); high = Math.max(high, y[i]);
    }
    this.box = { left, right, low, high, middle: [(left + right) / 2, (low + high) / 2], size: Math.max(right - left, high - low) || 1 };
    this.home();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  // --- Where things are: a view is a middle in the map's own numbers, and how many times the whole it is enlarged.
  home() { this.view = { at: [...this.box.middle], zoom: 1 }; }
  get scale() {
    const { left, right, low, high } = this.box;
    const whole = Math.min(this.width / (right - left || 1), this.height / (high - low || 1));
    return 0.92 * whole * this.view.zoom;
  }
  toScreen(i) { return [this.width / 2 + (this.x[i] - this.view.at[0]) * this.scale, this.height / 2 - (this.y[i] - this.view.at[1]) * this.scale]; }
  toMap(px, py) { return [this.view.at[0] + (px - this.width / 2) / this.scale, this.view.at[1] - (py - this.height / 2) / this.scale]; }
  move(dx, dy) { this.view.at[0] -= dx / this.scale; this.view.at[1] += dy / this.scale; this.changed(); }
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toMap(px, py);
    this.view.zoom = Math.min(2000, Math.max(0.5, this.view.zoom * factor));
    const [nowX, nowY] = this.toMap(px, py);
    this.view.at = [this.view.at[0] + x - nowX, this.view.at[1] + y - nowY];
    this.changed();
  }
  changed() { this.draw(); this.shared.onView(); }
  resize() {
    const { clientWidth, clientHeight } = this.stage;
    const ratio = Math.min(2, devicePixelRatio || 1);
    if (!clientWidth || (clientWidth === this.width && clientHeight === this.height && ratio === this.ratio)) return;
    this.ratio = ratio;
    [this.width, this.height] = [clientWidth, clientHeight];
    for (const canvas of [this.dots, this.over]) Object.assign(canvas, { width: Math.round(clientWidth * this.ratio), height: Math.round(clientHeight * this.ratio) });
    if (this.image) this.paint();
    else this.draw();
  }
  get standing() { return this.stage.clientWidth > 0 && this.width > 0; }
  draw() { // once for all changes of a moment
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }
  paint() {
    if (!this.standing) return;
    this.stamp();
    this.paintOver();
  }

  // --- The dots
  stamp() {
    const { x, y, shared, width, height, ratio } = this;
    const { n, shown, lit } = shared, { palette, codes } = this.look;
    const w = this.dots.width + 2 * MARGIN, h = this.dots.height + 2 * MARGIN;
    const pen = this.dots.getContext("2d");
    if (this.image?.width !== w || this.image.height !== h) this.image = pen.createImageData(w, h);
    const pixels = new Uint32Array(this.image.data.buffer);
    const scale = this.scale * ratio, dx = w / 2 - this.view.at[0] * scale, dy = h / 2 + this.view.at[1] * scale;
    this.inView = [];
    let seen = 0;
    for (let i = 0; i < n; i++) {
      const px = x[i] * scale + dx, py = dy - y[i] * scale;
      if (shown[i] && px >= MARGIN && px < w - MARGIN && py >= MARGIN && py < h - MARGIN && ++seen <= FEW) this.inView.push(i);
    }
    this.pictured = shared.pictures && this.view.zoom > 1.2 && seen > 0 && seen <= FEW;
    this.diameter = Math.min(9, Math.max(2.5, 0.5 * Math.sqrt((width * height) / Math.max(seen, 1))));
    const diameter = Math.round(4 * this.diameter * ratio) / 4;
    pixels.fill(new Uint32Array(new Uint8Array([...shared.rgb, 255]).buffer)[0]);
    const looks = (opacity, edge) => palette.map(([colour, mark]) => {
      const made = sprite(colour, mark, diameter, opacity, edge);
      return { ...made, steps: Int32Array.from(made.places, ([u, v]) => v * w + u) };
    });
    const step = stepOf(n); // a fixed shuffle, so that no class of a sorted file covers all others
    for (const part of lit ? [0, 1] : [1]) {
      const made = part ? looks(1, lit ? shared.ink : shared.paper) : looks(0.14, shared.paper);
      for (let j = 0, i = 0; j < n; j++, i = (i + step) % n) {
        if (!shown[i] || (lit && lit[i] !== part)) continue;
        const px = Math.round(x[i] * scale + dx), py = Math.round(dy - y[i] * scale);
        if (px < MARGIN || px >= w - MARGIN || py < MARGIN || py >= h - MARGIN) continue;
        const { steps, colours, covers } = made[codes[i]], middle = py * w + px;
        for (let p = 0; p < steps.length; p++) {
          const t = middle + steps[p], rest = 256 - covers[p];
          if (rest < 6) { pixels[t] = colours[p]; continue; }
          // Red and blue in one product, with room for each, and green in another.
          const under = pixels[t], over = colours[p];
          const redBlue = ((under & 0xff00ff) * rest + (over & 0xff00ff) * covers[p]) >>> 8;
          const green = ((under & 0xff00) * rest + (over & 0xff00) * covers[p]) >>> 8;
          pixels[t] = 0xff000000 | (redBlue & 0xff00ff) | (green & 0xff00);
        }
      }
    }
    if (shared.printed) this.outline(pen);
    else pen.putImageData(this.image, -MARGIN, -MARGIN);
  }
  outline(pen) { // on paper: the dots as shapes, which stay sharp
    const { x, shared } = this;
    this.dots.width = this.dots.width;
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    for (let i = 0, j = 0; j < x.length; j++, i = (i + stepOf(x.length)) % x.length) {
      if (!shared.shown[i]) continue;
      const [colour, mark] = this.look.palette[this.look.codes[i]], [factor, path] = MARKS[mark], [px, py] = this.toScreen(i);
      Object.assign(pen, { fillStyle: colour, strokeStyle: shared.paper, lineWidth: Math.max(0.5, this.diameter / 14), globalAlpha: shared.lit && !shared.lit[i] ? 0.3 : 1 });
      pen.save(); pen.translate(px, py); pen.beginPath();
      path(pen, (this.diameter / 2) * factor);
      pen.restore(); pen.fill(); pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  // --- Above the dots: pictures, names, neighbours, what is pointed at, the lasso
  paintOver() {
    if (!this.standing) return;
    const { shared, width, height } = this;
    const pen = (shared.printed ? this.dots : this.over).getContext("2d"); // Chromium prints two canvases as the upper one alone
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    if (!shared.printed) pen.clearRect(0, 0, width, height);
    if (this.pictured) this.paintPictures(pen);
    this.paintNames(pen);
    for (const { from, to, right } of this.links) {
      const [a, b] = [this.toScreen(from), this.toScreen(to)];
      Object.assign(pen, { strokeStyle: right ? shared.right : shared.wrong, lineWidth: 2 });
      pen.setLineDash(right ? [] : [5, 4]);
      pen.beginPath(); pen.moveTo(...a); pen.lineTo(...b); pen.stroke();
      pen.setLineDash([]);
      pen.beginPath(); pen.arc(...b, this.diameter / 2 + 4, 0, 2 * Math.PI); pen.stroke();
    }
    const ringed = shared.chosen.length === 1 ? [shared.chosen[0]] : [];
    if (shared.hovered >= 0) ringed.push(shared.hovered);
    for (const i of ringed) {
      const at = this.toScreen(i);
      for (const [colour, lineWidth] of [[shared.paper, 5], [shared.ink, 2.5]]) {
        Object.assign(pen, { strokeStyle: colour, lineWidth });
        pen.beginPath(); pen.arc(...at, this.diameter / 2 + 3, 0, 2 * Math.PI); pen.stroke();
      }
    }
    if (this.lasso) {
      Object.assign(pen, { strokeStyle: shared.ink, fillStyle: shared.ink, lineWidth: 1.5 });
      pen.setLineDash([4, 3]);
      pen.beginPath();
      for (const [px, py] of this.lasso) pen.lineTo(px, py);
      pen.closePath(); pen.stroke();
      pen.globalAlpha = 0.08; pen.fill(); pen.globalAlpha = 1;
      pen.setLineDash([]);
    }
  }
  paintPictures(pen) {
    const { shared, width, height } = this;
    const side = Math.min(56, Math.max(18, 0.55 * Math.sqrt((width * height) / this.inView.length)));
    for (const i of this.inView) {
      const picture = shared.picture(i);
      if (!picture?.complete || !picture.naturalWidth) continue; // it is asked for, and paints when it is there
      const shrunk = side / Math.max(picture.naturalWidth, picture.naturalHeight);
      const [w, h] = [picture.naturalWidth * shrunk, picture.naturalHeight * shrunk], [px, py] = this.toScreen(i);
      pen.imageSmoothingEnabled = shrunk < 1;
      pen.globalAlpha = shared.lit && !shared.lit[i] ? 0.3 : 1;
      pen.drawImage(picture, px - w / 2, py - h / 2, w, h);
      Object.assign(pen, { strokeStyle: this.look.palette[this.look.codes[i]][0], lineWidth: 2.5 });
      pen.strokeRect(px - w / 2, py - h / 2, w, h);
      pen.globalAlpha = 1;
    }
  }
  // The name of a group stands at the median of its dots, if they lie together and no larger group's name is there.
  paintNames(pen) {
    const { shared, width, height } = this;
    if (!shared.groups) return;
    this.places = this.places?.of === shared.groups ? this.places : Object.assign(this.medians(shared.groups.codes, shared.groups.names.length), { of: shared.groups });
    const asked = (g) => shared.spotlight === g || shared.named?.has(g);
    const order = this.places.filter(({ g, spread }) => (asked(g) || spread < 0.1 * this.box.size) && !shared.hidden.has(g));
    order.sort((a, b) => asked(b.g) - asked(a.g) || b.count - a.count || a.g - b.g);
    Object.assign(pen, { font: "600 13px system-ui, sans-serif", textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 3.5, strokeStyle: shared.paper, fillStyle: shared.ink });
    const taken = (this.taken = []);
    for (const { g, at } of order) {
      if (taken.length >= NAMES) break;
      const px = width / 2 + (at[0] - this.view.at[0]) * this.scale, py = height / 2 - (at[1] - this.view.at[1]) * this.scale;
      const letters = [...(shared.groups.names[g] || "(no name)")];
      const name = letters.length > 24 ? `${letters.slice(0, 23).join("")}…` : letters.join("");
      const half = pen.measureText(name).width / 2 + 4;
      if (px - half < 0 || px + half > width || py < 9 || py > height - 9) continue;
      if (taken.some(([x, y, w]) => Math.abs(x - px) < w + half && Math.abs(y - py) < 18)) continue;
      taken.push([px, py, half, name]);
      pen.globalAlpha = shared.lit && !asked(g) ? 0.35 : 1;
      pen.strokeText(name, px, py);
      pen.fillText(name, px, py);
    }
    pen.globalAlpha = 1;
  }
  medians(codes, groups) {
    const count = new Uint32Array(groups + 1);
    for (const code of codes) count[code + 1]++;
    for (let g = 0; g < groups; g++) count[g + 1] += count[g];
    const next = count.slice(), xs = new Float32Array(codes.length), ys = new Float32Array(codes.length);
    for (let i = 0; i < codes.length; i++) { const j = next[codes[i]]++; xs[j] = this.x[i]; ys[j] = this.y[i]; }
    const found = [];
    for (let g = 0; g < groups; g++) {
      if (count[g] === count[g + 1]) continue;
      const part = (all) => { const own = all.subarray(count[g], count[g + 1]); return own.sort(); };
      const [x, y] = [part(xs), part(ys)], quantile = (all, q) => all[Math.floor(q * (all.length - 1))];
      const spread = Math.max(quantile(x, 0.75) - quantile(x, 0.25), quantile(y, 0.75) - quantile(y, 0.25));
      found.push({ g, at: [quantile(x, 0.5), quantile(y, 0.5)], spread, count: x.length });
    }
    return found;
  }

  // --- Which dot: those of one cell of a grid lie together in a list
  grid() {
    if (this.found) return this.found;
    const { x, y, box } = this, n = x.length, cells = Math.max(1, Math.ceil(Math.sqrt(n / 4)));
    const cell = (value, low) => Math.min(cells - 1, Math.max(0, Math.floor(((value - low) / box.size) * cells)));
    const of = (i) => cell(y[i], box.low) * cells + cell(x[i], box.left);
    const start = new Uint32Array(cells * cells + 1), rows = new Uint32Array(n);
    for (let i = 0; i < n; i++) start[of(i) + 1]++;
    for (let c = 0; c < cells * cells; c++) start[c + 1] += start[c];
    const next = start.slice();
    for (let i = 0; i < n; i++) rows[next[of(i)]++] = i;
    this.found = { cells, cell, start, rows };
    return this.found;
  }
  at(px, py, reach = REACH) {
    const { cells, cell, start, rows } = this.grid(), { box, shared } = this;
    const [x0, y0] = this.toMap(px - reach, py + reach), [x1, y1] = this.toMap(px + reach, py - reach);
    let best = -1, nearest = reach * reach;
    for (let v = cell(y0, box.low); v <= cell(y1, box.low); v++) {
      for (let j = start[v * cells + cell(x0, box.left)]; j < start[v * cells + cell(x1, box.left) + 1]; j++) {
        const i = rows[j], [qx, qy] = this.toScreen(i), away = (qx - px) ** 2 + (qy - py) ** 2;
        if (shared.shown[i] && away < nearest) [best, nearest] = [i, away];
      }
    }
    return best;
  }
  within(corners) {
    const place = corners.map(([px, py]) => this.toMap(px, py));
    const [xs, ys] = [place.map(([x]) => x), place.map(([, y]) => y)];
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const found = [];
    for (let i = 0; i < this.x.length; i++) {
      const x = this.x[i], y = this.y[i];
      if (!this.shared.shown[i] || x < left || x > right || y < low || y > high) continue;
      let inside = false; // a ray to the right crosses the outline an odd number of times
      for (let a = 0, b = place.length - 1; a < place.length; b = a++) {
        if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside = !inside;
      }
      if (inside) found.push(i);
    }
    return found;
  }
  // The dot that an arrow leads to: near, and more ahead than aside.
  ahead(from, ux, uy) {
    const [px, py] = this.toScreen(from);
    let best = -1, least = Infinity;
    for (let i = 0; i < this.x.length; i++) {
      const [qx, qy] = this.toScreen(i), along = (qx - px) * ux + (qy - py) * uy, aside = Math.abs((qx - px) * uy - (qy - py) * ux);
      if (this.shared.shown[i] && i !== from && along > 0 && aside <= along && along + aside < least) [best, least] = [i, along + aside];
    }
    return best;
  }

  // --- Mouse, finger and keys
  listen() {
    const { stage, shared } = this, down = new Map();
    const place = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let drag = null; // what one pointer does: { tool, from, moved }
    const release = () => { drag = null; this.lasso = null; this.paintOver(); };
    stage.onpointerdown = (event) => {
      if (event.pointerType === "mouse" && event.button > 1) return;
      down.set(event.pointerId, place(event));
      if (down.size > 1) { release(); return; } // two fingers: a pinch
      const tool = event.button === 1 ? "move" : shared.tool;
      drag = { tool, from: place(event), moved: false };
      if (tool !== "scroll") stage.setPointerCapture(event.pointerId);
      if (event.button === 1) event.preventDefault();
    };
    stage.onpointermove = (event) => {
      const now = place(event), before = down.get(event.pointerId);
      if (!before) { if (event.pointerType === "mouse") shared.onHover(this, this.at(...now), event); return; }
      if (down.size === 2) {
        const other = [...down.entries()].find(([id]) => id !== event.pointerId)[1];
        const gap = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
        this.move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
        this.zoom(gap(now, other) / gap(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (drag) {
        drag.moved ||= Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > 4;
        if (drag.moved && drag.tool === "move") this.move(now[0] - before[0], now[1] - before[1]);
        if (drag.moved && drag.tool === "lasso") { (this.lasso ??= [drag.from]).push(now); this.paintOver(); }
      }
      down.set(event.pointerId, now);
    };
    stage.onpointerup = (event) => {
      const now = place(event), add = event.shiftKey || event.ctrlKey || event.metaKey;
      const was = down.delete(event.pointerId) && drag, lasso = this.lasso;
      release();
      if (!was) return;
      if (lasso) shared.onChoose(this.within(lasso), add);
      else if (!was.moved) { const i = this.at(...now, event.pointerType === "mouse" ? REACH : 2 * REACH); shared.onChoose(i < 0 ? [] : [i], add); }
    };
    stage.onpointercancel = (event) => { down.delete(event.pointerId); release(); };
    stage.onpointerleave = () => shared.onHover(this, -1);
    stage.ondblclick = (event) => this.zoom(2, ...place(event));
    stage.addEventListener("touchstart", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !shared.fills()) return; // the page scrolls
      event.preventDefault();
      this.zoom(2 ** (-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...place(event));
    }, { passive: false });
    stage.onkeydown = (event) => {
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (arrow && event.shiftKey) this.move(-60 * arrow[0], -60 * arrow[1]);
      else if (arrow) {
        const from = shared.chosen[0] ?? -1;
        const next = from < 0 ? this.at(this.width / 2, this.height / 2, Math.max(this.width, this.height)) : this.ahead(from, ...arrow);
        if (next >= 0) shared.onChoose([next]);
      } else if (event.key === "+" || event.key === "=") this.zoom(1.5);
      else if (event.key === "-") this.zoom(1 / 1.5);
      else if (event.key === "0") { this.home(); this.changed(); } else return;
      event.preventDefault();
    };
  }
}

// About .618 n, and without a common factor with n, so that every number comes once.
function stepOf(n) {
  const common = (a, b) => (b ? common(b, a % b) : a);
  let step = Math.max(1, Math.floor(0.618 * n));
  while (common(step, n) > 1) step++;
  return step;
}
