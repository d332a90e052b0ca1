// The questions of the playground: what each sets, and what it claims of the numbers now shown.
// A claim is [whether it holds, the words], of the numbers n of a state.
"use strict";

const far = [[-1.8, 1.6], [-1.2, -1.9]];
const LESSONS = {
  start: { title: "Start again", set: {}, claim: () => null },
  asymmetry: {
    title: "1 Asymmetry",
    set: { points: [[1, 0.5], [2, 1], ...far], distance: "snr", loss: "distance" },
    claim: (n, state) => {
      const [there, back] = [n.distances.snr[0][1], n.distances.snr[1][0]];
      const ratio = power(centre(n.embeddings[1])) / power(centre(n.embeddings[0]));
      return [there !== back, `SNR: (a → p) / (p → a) = ${format(there / back)}, Var(p) / Var(a) = ${format(ratio)}.`];
    },
  },
  triangle: {
    title: "2 Triangle inequality",
    set: { points: [[0.8, 0.4], [1.6, 0.8], [2.4, 1.2], [-1.2, -1.9]], distance: "snr", loss: "distance" },
    claim: (n, state) => {
      const d = n.distances.snr, [one, two, direct] = [d[0][1], d[1][2], d[0][2]];
      const roots = [one, two, direct].map(Math.sqrt);
      const sign = (x, y) => (Math.abs(x - y) <= 1e-9 * y ? "=" : x < y ? "<" : ">");
      return [one + two < direct, `SNR: (a → p) + (p → n₁) = ${format(one)} + ${format(two)} ${sign(one + two, direct)} ${format(direct)} = a → n₁; ` +
        `with roots ${format(roots[0])} + ${format(roots[1])} ${sign(roots[0] + roots[1], roots[2])} ${format(roots[2])}.`];
    },
  },
  offset: {
    title: "3 Offset in the plane",
    set: { anchor_offset: -0.5, offset: 1, distance: "snr", loss: "triplet" },
    claim: (n, state) => {
      const none = numbers({ ...state, anchor_offset: 0, offset: 0 });
      const both = (d) => `${format(n.distances[d][0][1])} with these offsets, ${format(none.distances[d][0][1])} without`;
      return [Math.abs(n.distances.snr[0][1] - none.distances.snr[0][1]) < 1e-9, `a → p: SNR ${both("snr")}; Euclid ${both("euclidean")}.`];
    },
  },
  signals: {
    title: "4 Offset of a signal",
    set: (START) => ({ mode: "signals", signals: [START.signals[0], START.signals[0].map((x) => x + 1), ...START.signals.slice(2)], distance: "snr", loss: "contrastive" }),
    claim: (n, state) => {
      const { correlation, signal, compared } = n.pair, k = correlation * Math.sqrt(compared / signal);
      const fits = correlation > 1 - 1e-9;
      return [fits, fits ? `b = k a + c with k = ${format(k)}: (1 − k)² = ${format((1 - k) ** 2)}, SNR distance a → b = ${format(n.distances.snr[0][1])}, correlation ${format(correlation)}.`
        : `b is no multiple of a plus a constant: SNR distance a → b = ${format(n.distances.snr[0][1])}, correlation ${format(correlation)}.`];
    },
  },
  normalisation: {
    title: "5 Normalisation",
    set: { points: [[1.4, 0.5], [0.8, 1.6], ...far], normalize_embeddings: true, distance: "snr", loss: "triplet" },
    claim: (n, state) => {
      const d = (name) => n.distances[name][0][1];
      const seven = [d("euclidean") ** 2, d("centred_euclidean") ** 2, d("relative_euclidean"), d("snr"), d("symmetric_snr"), 2 * d("cosine"), 2 * d("correlation")];
      const two = [d("mahalanobis") ** 2, d("relative_mahalanobis")];
      const equal = (x) => Math.max(...x) - Math.min(...x) < 1e-9;
      const shown = (x) => x.map(format).join(", ");
      return [equal(seven), `a → p: Euclid², centred Euclid², relative Euclid, SNR, symmetric SNR, 2 × cosine, 2 × correlation: ${shown(seven)}; Mahalanobis², relative Mahalanobis: ${shown(two)}. ` +
        (equal([...seven, ...two]) ? "All nine agree." : equal(seven) ? "The first seven agree." : "The first seven do not all agree.")];
    },
  },
  flees: {
    title: "6 The anchor flees",
    set: { points: [[1.3, -0.3], [-1.1, 1], ...far], distance: "snr", loss: "distance" },
    claim: (n, state) => {
      if (state.loss !== "distance") return [false, "Choose “d(a, p) alone” as the loss."];
      const [a, p] = n.embeddings;
      const towards = -dot(n.gradient[0], minus(p, a)), inner = dot(centre(a), centre(p));
      return [towards < 0, `(Pa)ᵀ(Pp) = ${format(inner)}; step of a towards p, (p − a)ᵀ(−∂d/∂a) = ${format(towards)}: ` +
        (towards < 0 ? "a flees its positive." : "a goes towards its positive.")];
    },
  },
  constant: {
    title: "7 Constant anchor",
    set: { points: [[0, 0], [1.2, 0.9], ...far], anchor_offset: 1, margin: 0.5, distance: "snr", loss: "distance" }, // margin 1 = n → a would be the kink of a hinge
    claim: (n, state) => {
      const floored = power(centre(n.embeddings[0])) <= EPS;
      return [floored, `Var(a) = ${format(n.pair.signal)}; SNR distance a → p = ${format(n.distances.snr[0][1])}; length of the gradient at a: ${format(Math.sqrt(power(n.gradient[0])))}` +
        (floored ? ", for it is undefined and held." : ".")];
    },
  },
  unit: {
    title: "8 Unit",
    set: { points: [[1, 0], [1, 1], ...far], distance: "symmetric_snr", loss: "distance" },
    claim: (n, state) => {
      const twice = (x) => x.map((one, i) => (i === 1 ? one.map((xm) => 2 * xm) : one)); // 2p in the place of p
      const then = numbers({ ...state, points: twice(state.points), signals: twice(state.signals) });
      const found = [["SNR", "snr"], ["symmetric SNR", "symmetric_snr"], ["correlation", "correlation"]].map(([words, name]) => {
        const [now, later] = [n, then].map(({ distances }) => distances[name][0][1]);
        return { words, name, now, later, stays: Math.abs(later - now) < 1e-9 };
      });
      const stay = found.filter(({ stays }) => stays);
      return [stay.length === 1 && stay[0].name === "correlation", `d(a, ${state.mode === "points" ? "p" : "b"}) and, with it doubled: ` +
        found.map(({ words, now, later }) => `${words} ${format(now)}, ${format(later)}`).join("; ") + `. ` +
        (stay.length ? `Unchanged: ${stay.map(({ words }) => words).join(", ")}.` : "All three change.")];
    },
  },
};
