// What the playground draws with: numbers as text, elements, marks, arrows and lines of equal distance.
"use strict";

const LIMIT = 3; // of the plane, and of a plot unless the signal is larger
const clamp = (x, limit) => Math.min(limit, Math.max(-limit, x));
const round = (x, digits = 2) => Number(x.toFixed(digits)) + 0;

/** Standard normal numbers that depend on the seed alone (mulberry32, Box and Muller). */
function gaussian(seed, count) {
  let s = seed >>> 0;
  const uniform = () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

function format(x) {
  if (Number.isNaN(x)) return "undefined";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const text = size >= 1e5 || (size > 0 && size < 5e-5) ? (size < 1e-13 ? "0.0000" : x.toExponential(3)) : x.toFixed(4);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace(/-/g, "−");
}

const SVG = "http://www.w3.org/2000/svg";
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const shape = (name, attributes, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const MARKS = [ // circle, square, triangles
  (x, y, r, a) => shape("circle", { ...a, cx: x, cy: y, r }),
  (x, y, r, a) => shape("rect", { ...a, x: x - r, y: y - r, width: 2 * r, height: 2 * r }),
  (x, y, r, a) => shape("path", { ...a, d: `M${x} ${y - 1.3 * r}L${x + 1.2 * r} ${y + r}H${x - 1.2 * r}Z` }),
  (x, y, r, a) => shape("path", { ...a, d: `M${x} ${y + 1.3 * r}L${x + 1.2 * r} ${y - r}H${x - 1.2 * r}Z` }),
];
const px = (u) => 100 * u, py = (v) => -100 * v;

const arrow = (x0, y0, x1, y1, most = 16) => {
  const long = Math.hypot(x1 - x0, y1 - y0);
  if (long < 3) return "";
  const [ex, ey] = [(x1 - x0) / long, (y1 - y0) / long], head = Math.min(most, long);
  const [bx, by] = [x1 - head * ex, y1 - head * ey];
  return shape("path", { class: "arrow", d: `M${x0} ${y0}L${bx} ${by}M${x1} ${y1}L${bx - 0.45 * head * ey} ${by + 0.45 * head * ex}L${bx + 0.45 * head * ey} ${by - 0.45 * head * ex}Z` });
};

/** The largest 1, 2, 5, 10, ... times 10^k by which a step of this size stays within `most`. */
function learningRate(size, most) {
  if (!(size > 1e-12)) return 0; // nothing but rounding
  const ten = 10 ** Math.floor(Math.log10(most / size));
  return [5, 2, 1].map((m) => m * ten).find((rate) => rate * size <= most * (1 + 1e-9)) ?? ten;
}

/** Where f(u, v) = level: crossings with the edges of a grid, exact by bisection, chained to lines. */
function isoline(f, level) {
  const n = 60, at = (i) => -LIMIT + (2 * LIMIT * i) / n, ends = new Map(), places = new Map();
  const inside = Array.from({ length: n + 1 }, (_, i) => Array.from({ length: n + 1 }, (_, j) => f(at(i), at(j)) < level));
  const crossing = (i, j, k, l) => { // on the edge from (i, j) to (k, l)
    const key = `${i},${j},${k},${l}`;
    if (places.has(key)) return key;
    let [low, high] = inside[i][j] ? [[at(i), at(j)], [at(k), at(l)]] : [[at(k), at(l)], [at(i), at(j)]];
    for (let step = 0; step < 9; step++) {
      const middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
      if (f(...middle) < level) low = middle; else high = middle;
    }
    places.set(key, low);
    return key;
  };
  const join = (one, other) => { for (const [x, y] of [[one, other], [other, one]]) ends.set(x, [...(ends.get(x) ?? []), y]); };
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
    const found = [[i, j, i + 1, j], [i + 1, j, i + 1, j + 1], [i, j + 1, i + 1, j + 1], [i, j, i, j + 1]]
      .filter(([a, b, c, d]) => inside[a][b] !== inside[c][d]).map((edge) => crossing(...edge));
    for (let k = 0; k < found.length; k += 2) join(found[k], found[k + 1]);
  }
  let d = "";
  const draw = (first) => {
    let key = first, pen = "M";
    while (key !== undefined) {
      d += `${pen}${px(places.get(key)[0]).toFixed(1)} ${py(places.get(key)[1]).toFixed(1)}`;
      pen = "L";
      const next = ends.get(key).find((other) => ends.get(other)?.includes(key));
      if (next !== undefined) { ends.set(key, ends.get(key).filter((x) => x !== next)); ends.set(next, ends.get(next).filter((x) => x !== key)); }
      key = next;
    }
  };
  for (const [key, to] of ends) if (to.length === 1) draw(key); // open at the border
  for (const [key, to] of ends) if (to.length) draw(key);
  return d;
}
