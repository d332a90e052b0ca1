// The numbers of the playground: snrlib's distances and losses, written once, and their gradients.
"use strict";

// --- Reverse-mode differentiation in the manner of micrograd -------------------------------------------------------
// A Value knows which values it came from and its slope to each. Plain numbers pass through the same functions and
// stay plain, so a formula below gives a number for numbers, and a number with its gradient for Values.

class Value {
  constructor(data, parents = []) {
    this.data = data;
    this.parents = parents; // [value, slope] each
    this.grad = 0;
  }
  backward() {
    const order = [], seen = new Set();
    const visit = (value) => {
      if (seen.has(value)) return;
      seen.add(value);
      for (const [parent] of value.parents) visit(parent);
      order.push(value);
    };
    visit(this);
    this.grad = 1;
    for (const value of order.reverse()) // the chain rule, from the result back
      for (const [parent, slope] of value.parents) parent.grad += slope * value.grad;
  }
}

const data = (x) => (x instanceof Value ? x.data : x);
const made = (result, ...pairs) => {
  const parents = pairs.filter(([x]) => x instanceof Value);
  return parents.length ? new Value(result, parents) : result;
};
const plain = (x, y) => typeof x === "number" && typeof y === "number";
const add = (x, y) => (plain(x, y) ? x + y : made(data(x) + data(y), [x, 1], [y, 1]));
const sub = (x, y) => (plain(x, y) ? x - y : made(data(x) - data(y), [x, 1], [y, -1]));
const mul = (x, y) => (plain(x, y) ? x * y : made(data(x) * data(y), [x, data(y)], [y, data(x)]));
const div = (x, y) => (plain(x, y) ? x / y : made(data(x) / data(y), [x, 1 / data(y)], [y, -data(x) / data(y) ** 2]));
const sqrt = (x) => made(Math.sqrt(data(x)), [x, 0.5 / Math.sqrt(data(x))]);
const relu = (x) => (data(x) > 0 ? x : 0); // max(0, x)
const sum = (terms) => terms.reduce(add, 0);
const mean = (terms) => div(sum(terms), terms.length);
// log sum exp, from the largest exponent so that nothing overflows; its slopes are the shares of a softmax.
const logSumExp = (terms) => {
  const top = Math.max(...terms.map(data));
  const result = top + Math.log(terms.reduce((s, t) => s + Math.exp(data(t) - top), 0));
  return made(result, ...terms.map((t) => [t, Math.exp(data(t) - result)]));
};

// --- Vectors ---------------------------------------------------------------------------------------------------------

const minus = (x, y) => x.map((xm, m) => sub(xm, y[m]));
const dot = (x, y) => sum(x.map((xm, m) => mul(xm, y[m])));
const power = (x) => dot(x, x); // ||x||^2
const once = (x) => { const middle = mean(x); return x.map((xm) => sub(xm, middle)); };
const centre = (x) => once(once(x)); // P x = x - mean(x); twice, since the first mean carries a rounding error
const apply = (L, x) => L.map((row) => dot(row, x)); // L x
const normalize = (x) => { // x / ||x||; a zero vector stays zero
  const tiny = Math.sqrt(data(power(x))) <= 1e-12;
  const length = tiny ? 1e-12 : sqrt(power(x));
  return x.map((xm) => div(xm, length));
};

// --- The family of distances: snrlib/distances.py ------------------------------------------------------------------
//     no unit      d(a, b) = ||A(b - a)||                          A = I, the identity; P, which centres; or the matrix L
//     the anchor   d(a, b) = ||A(b - a)||^2 / ||A a||^2
//     both sides   d(a, b) = ||A(b - a)||^2 / (||A a|| ||A b||)
//     length 1     d(a, b) = ||A b / ||A b|| - A a / ||A a||||^2 / 2 = 1 - cos(A a, A b)

const FAMILY = { // name: [A, what the squared distance is divided by]
  euclidean: ["I", null], // eq. 9
  centred_euclidean: ["P", null],
  mahalanobis: ["L", null],
  relative_euclidean: ["I", "anchor"], // eq. 10
  snr: ["P", "anchor"], // eq. 8
  relative_mahalanobis: ["L", "anchor"],
  cosine: ["I", 2], // 2, and vectors of length 1
  correlation: ["P", 2],
  symmetric_snr: ["P", "both"],
};
const DISTANCES = Object.keys(FAMILY);
const unitOf = (name) => FAMILY[name][1];
const isRelative = (name) => unitOf(name) !== null; // a ratio of squares, which enters a loss as it is
const isAnchored = (name) => unitOf(name) === "anchor"; // it matters which side is the anchor
const EPS = 1e-12; // floor of ||A x||^2 in a unit: a constant anchor has no SNR distance, a zero vector no direction
const ROUNDING = 1e-15; // a squared distance up to it is rounding, and counts as 0

/** z / ||z||; under the floor it has no direction: it stays shorter, and without a gradient. */
function atLengthOne(z) {
  const squared = power(z);
  if (data(squared) <= EPS) return z.map((zm) => data(zm) / Math.sqrt(EPS));
  const length = sqrt(squared);
  return z.map((zm) => div(zm, length));
}

/** x -> A x, at length 1 where the distance asks for it. */
function map(name, L) {
  const A = { I: (x) => x, P: centre, L: (x) => apply(L, x) }[FAMILY[name][0]];
  return unitOf(name) === 2 ? (x) => atLengthOne(A(x)) : A;
}

/** d(a, b) of two mapped vectors; `anchor` is the one of them in whose power an anchored distance is measured. */
function ofMapped(unit, a, b, anchor) {
  const noise = power(minus(b, a));
  if (unit === null) return data(noise) <= ROUNDING ? 0 : sqrt(noise);
  if (unit === 2) return div(noise, 2);
  const powers = (unit === "anchor" ? [anchor, anchor] : [a, b]).map(power);
  const floored = powers.map((one) => Math.max(data(one), EPS));
  if (floored.includes(EPS)) return data(noise) / Math.sqrt(floored[0] * floored[1]); // finite, without a gradient
  return div(noise, unit === "anchor" ? powers[0] : sqrt(mul(...powers)));
}

/** w w' has the unit vector w along which L stretches: in the plane at an angle, for signals along (1, ..., 1). */
const E1 = [1, -1, 0].map((x) => x / Math.sqrt(2)); // e1 and e2 span the vectors with mean zero
const E2 = [1, 1, -2].map((x) => x / Math.sqrt(6));
function stretched(state) {
  const radians = (state.angle * Math.PI) / 180;
  return state.mode === "points"
    ? E1.map((_, m) => Math.cos(radians) * E1[m] + Math.sin(radians) * E2[m])
    : Array(state.signals[0].length).fill(1 / Math.sqrt(state.signals[0].length));
}
/** L = I + (stretch - 1) w w' */
const components = (state) => {
  const w = stretched(state);
  return w.map((wi, i) => w.map((wj, j) => (i === j ? 1 : 0) + (state.stretch - 1) * wi * wj));
};

/** The four embeddings a, p, n1, n2, labels 0, 0, 1, 1: x = u e1 + v e2 + c (1, 1, 1), or the signals. */
const embeddings = (state) => state.mode === "signals"
  ? state.signals
  : state.points.map(([u, v], i) => E1.map((_, m) => u * E1[m] + v * E2[m] + (i ? state.offset : state.anchor_offset)));
const LABELS = [0, 0, 1, 1];

// --- The losses: snrlib/losses ----------------------------------------------------------------------------------------
// e_ij stands for the equations' d^2: d_ij^2 of an absolute distance; one in a unit is a ratio of squares already.
// s is the scale, an inverse temperature: 1 in the report.

const all = [0, 1, 2, 3];
const pairs = all.flatMap((i) => all.filter((j) => j !== i).map((j) => [i, j])); // ordered
const same = (i, j) => LABELS[i] === LABELS[j];
const positives = pairs.filter(([i, j]) => same(i, j)); // one of every i
const negatives = (i) => all.filter((k) => !same(i, k));

const LOSSES = {
  // Eq. 1:  1/(2N) sum_(i,j)  y d^2 + (1 - y) max(0, margin - d)^2, and without the squares if d is a ratio of squares
  contrastive: ({ d, e, relative, margin }) => {
    const push = (i, j) => { const gap = relu(sub(margin, d(i, j))); return relative ? gap : mul(gap, gap); };
    return div(mean(pairs.map(([i, j]) => (same(i, j) ? e(i, j) : push(i, j)))), 2);
  },
  // Eq. 2:  1/|T| sum_(i,j,k)  max(d_ij^2 + m - d_ik^2, 0)
  triplet: ({ e, margin }) =>
    mean(positives.flatMap(([i, j]) => negatives(i).map((k) => relu(sub(add(e(i, j), margin), e(i, k)))))),
  // Eq. 3:  1/N sum_i  log(1 + sum_(j != i) exp(s (sim(f_i, f_j+) - sim(f_i, f_i+)))), the pairs (a, p) and (n1, n2)
  //         sim = (A f)'(A g) if d is absolute, sim = -d if it is a ratio of squares
  n_pair: ({ d, z, relative, s }) => {
    const sim = (i, j) => (relative ? sub(0, d(i, j)) : dot(z[i], z[j]));
    return mean([[0, 1, 3], [2, 3, 1]].map(([i, own, other]) => logSumExp([0, mul(s, sub(sim(i, other), sim(i, own)))])));
  },
  // Eqs. 4-5:  1/(2|P|) sum_(i,j)  max(L_ij, 0)^2
  //            L_ij = log(sum_k exp(margin - s d_ik) + sum_l exp(margin - s d_jl)) + s d_ij
  lifted: ({ d, margin, s }) =>
    div(mean(positives.map(([i, j]) => {
      const push = [i, j].flatMap((end) => negatives(end).map((k) => sub(margin, mul(s, d(end, k)))));
      const lifted = add(logSumExp(push), mul(s, d(i, j)));
      const held = data(lifted) > 4e9 ? 4e9 : relu(lifted); // only the undefined distance of a constant anchor is held
      return mul(held, held);
    })), 2),
  // 1/n sum_i  1/alpha log(1 + sum_(k in P_i) exp(alpha (e_ik - margin))) + 1/beta log(1 + sum_(k in N_i) exp(beta (margin - e_ik)))
  // P_i: the positives with e_ik > min_(negatives) e - epsilon;  N_i: the negatives with e_ik < max_(positives) e + epsilon
  multi_similarity: ({ e, margin }) => {
    const alpha = 1 / margin, beta = 25 / margin, epsilon = margin / 5; // the paper's, in units of the margin
    return mean(positives.map(([i, j]) => {
      const nearest = Math.min(...negatives(i).map((k) => data(e(i, k)))), farthest = data(e(i, j));
      const P = [j].filter((k) => data(e(i, k)) > nearest - epsilon);
      const N = negatives(i).filter((k) => data(e(i, k)) < farthest + epsilon);
      const pull = logSumExp([0, ...P.map((k) => mul(alpha, sub(e(i, k), margin)))]);
      const push = logSumExp([0, ...N.map((k) => mul(beta, sub(margin, e(i, k))))]);
      return add(div(pull, alpha), div(push, beta));
    }));
  },
  // 1/|P| sum_(i,j)  -log(exp(-s e_ij) / (exp(-s e_ij) + sum_k exp(-s e_ik))), k the negatives of i
  nt_xent: ({ e, s }) => {
    const sim = (i, k) => mul(-s, e(i, k));
    return mean(positives.map(([i, j]) => sub(logSumExp([j, ...negatives(i)].map((k) => sim(i, k))), sim(i, j))));
  },
  // 1/n sum_i  -1/|P_i| sum_(j in P_i) log(exp(-s e_ij) / sum_(k != i) exp(-s e_ik)): every i has one positive j here,
  // which with the negatives makes up all k != i, so this is nt_xent
  supcon: (given) => LOSSES.nt_xent(given),
  // Not a loss: d(a, p) alone, to see what one distance does
  distance: ({ d }) => d(0, 1),
};

/** A loss of the embeddings x; d(i, j) has i as query and j as ref, and `anchor` says which of them is the anchor. */
function loss(name, x, { distance, L, margin, scale, normalize_embeddings, anchor }) {
  const relative = isRelative(distance), unit = unitOf(distance), A = map(distance, L);
  const z = x.map((one) => A(normalize_embeddings ? normalize(one) : one));
  const known = new Map();
  const d = (i, j) => {
    if (!known.has(4 * i + j)) known.set(4 * i + j, ofMapped(unit, z[i], z[j], z[anchor === "query" ? i : j]));
    return known.get(4 * i + j);
  };
  const e = (i, j) => (relative ? d(i, j) : mul(d(i, j), d(i, j)));
  return LOSSES[name]({ d, e, z, relative, margin, s: scale });
}

/** All that the page shows of a state. distances[name][i][j] has i as the anchor, whatever side the losses take. */
function numbers(state) {
  const x = embeddings(state), L = components(state);
  const options = { ...state, L };
  const distances = {}, losses = {};
  for (const distance of DISTANCES) {
    const A = map(distance, L);
    const z = x.map((one) => A(state.normalize_embeddings ? normalize(one) : one));
    distances[distance] = z.map((a, i) => z.map((b, j) => (i === j ? 0 : ofMapped(unitOf(distance), a, b, a))));
    losses[distance] = Object.fromEntries(Object.keys(LOSSES).map((name) => [name, loss(name, x, { ...options, distance })]));
  }
  const leaves = x.map((one) => one.map((xm) => new Value(xm)));
  const result = loss(state.loss, leaves, options);
  if (result instanceof Value) result.backward(); // else it is a constant, and all gradients are 0
  const gradient = leaves.map((one) => one.map((xm) => xm.grad));
  return { embeddings: x, components: L, distances, losses, loss: data(result), gradient, pair: pairFacts(x[0], x[1]) };
}

/** Signal a and noisy signal b: eqs. 6-8 and 11-14, of the vectors as they are. */
function pairFacts(a, b) {
  const [ca, cb] = [centre(a), centre(b)], M = a.length;
  const signal = power(ca) / M, noise = power(minus(cb, ca)) / M; // Var(a), Var(b - a), eq. 7
  const compared = power(cb) / M, correlation = dot(ca, cb) / Math.sqrt(power(ca) * power(cb));
  return { signal, compared, noise, snr: signal / noise, decibel: 10 * Math.log10(signal / noise), correlation };
}
