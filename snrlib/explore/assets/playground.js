// What the playground shows of its numbers, and what moves them.
"use strict";
(() => {
  const START = JSON.parse(document.getElementById("start").textContent);
  const $ = (id) => document.getElementById(id);
  const LARGEST = 10; // of a component of a signal
  const COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6"]; // a, p, n1, n2: petroff10
  const GROUPS = [ // of the choices
    ["distance", "No unit", DISTANCES.filter((name) => !isRelative(name))],
    ["distance", "The anchor's power as the unit", DISTANCES.filter(isAnchored)],
    ["distance", "Symmetric, in a unit", DISTANCES.filter((name) => isRelative(name) && !isAnchored(name))],
    ["loss", "Eqs. 1–5 of the report", ["contrastive", "triplet", "n_pair", "lifted"]],
    ["loss", "Their rivals", ["multi_similarity", "nt_xent", "supcon"]],
    ["loss", "No loss", ["distance"]],
  ];
  const COLUMNS = ["contrastive", "triplet", "n_pair", "lifted", "multi_similarity", "nt_xent"]; // supcon is nt_xent here
  const names = () => (state.mode === "points" ? ["a", "p", "n₁", "n₂"] : ["a", "b", "n₁", "n₂"]);

  let state = structuredClone(START);
  let lesson = "start";
  let drawn = 0; // counts the seeds of added noise
  let component = [0, 0]; // chosen by keyboard, of each signal

  // --- Tables -----------------------------------------------------------------------------------------------------------
  // A cell keeps all digits in its value and shows four.
  const cell = (x, key, chosen = false) => {
    const shown = element("data", { value: String(x) }, format(x));
    shown.dataset.number = key;
    return element("td", { className: chosen ? "chosen" : "" }, shown);
  };
  const row = (head, cells, chosen = false) => element("tr", { className: chosen ? "chosen" : "" }, element("th", { scope: "row" }, head), ...cells);
  const table = (id, caption, columns, rows) => $(id).replaceChildren(
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...columns.map((text) => element(text ? "th" : "td", text ? { scope: "col" } : {}, ...broken(text))))),
    ...(Array.isArray(rows[0]) ? rows : [rows]).map((group) => element("tbody", {}, ...group)));
  // A long name may be broken, in the table of losses; one of two already is.
  const broken = (text) => (text.includes(" ") ? [text] : text.split("_").flatMap((part, i) => (i ? ["_", element("wbr"), part] : [part])));
  const byGroup = (make) => GROUPS.filter(([key]) => key === "distance").map(([, , group]) => group.map(make));

  // --- The plane --------------------------------------------------------------------------------------------------------
  const plane = $("plane");
  const layers = ["back", "iso", "marks", "arrows"].map((name) => shape("g", { id: `plane-${name}` }));
  for (let i = -2; i <= 2; i++) {
    layers[0].append(shape("path", { class: i ? "grid" : "axis", d: `M${100 * i} -300V300M-300 ${100 * i}H300` }));
    if (i) layers[0].append(Object.assign(shape("text", { x: 100 * i, y: 22, style: "font-size: 16px; font-weight: 400; fill: #4a525c", "text-anchor": "middle" }), { textContent: String(i).replace("-", "−") }));
  }
  for (const [text, x, y] of [["e₁", 280, -10], ["e₂", 18, -280]]) layers[0].append(Object.assign(shape("text", { x, y, style: "font-size: 18px; font-weight: 400; fill: #4a525c", "text-anchor": "middle" }), { textContent: text }));
  plane.append(...layers);

  const knobs = START.points.map((_, i) => {
    const knob = shape("g", { class: "point", tabindex: 0, role: "slider", "aria-roledescription": "point in the plane", "aria-valuemin": -LIMIT, "aria-valuemax": LIMIT, id: `point-${i}` });
    let grip = null; // where on the point it was taken
    const place = (event) => {
      const box = plane.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * 6 - 3, 3 - ((event.clientY - box.top) / box.height) * 6];
    };
    knob.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const [u, v] = place(event);
      grip = [state.points[i][0] - u, state.points[i][1] - v];
      knob.setPointerCapture(event.pointerId);
      knob.focus();
      event.preventDefault();
    });
    // A finger on a point drags it, beside one it scrolls the page; touch-action does not work inside an SVG.
    knob.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    knob.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const [u, v] = place(event);
      move(i, u + grip[0], v + grip[1]);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) knob.addEventListener(name, () => { grip = null; });
    knob.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.01 : 0.1;
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(i, state.points[i][0] + by[0], state.points[i][1] + by[1]);
    });
    layers[2].append(knob);
    return knob;
  });
  function move(i, u, v) {
    const points = state.points.map((point) => [...point]);
    points[i] = [round(clamp(u, LIMIT - 0.1)), round(clamp(v, LIMIT - 0.1))];
    set({ points });
  }

  function showPlane(n) {
    // In the plane: a vector's coordinates along e1 and e2.
    const flat = (x) => [dot(x, E1), dot(x, E2)];
    const steps = n.gradient.map((g) => flat(g).map((x) => -x));
    const rate = learningRate(Math.max(...steps.map((s) => Math.hypot(...s))), 0.9);
    state.points.forEach(([u, v], i) => {
      const [x, y] = [px(u), py(v)];
      const left = u > 2.5 || (u > -2.5 && steps[i][0] > 1e-12); // where no arrow is
      const label = Object.assign(shape("text", { x: x + (left ? -20 : 20), y: y - 14, "text-anchor": left ? "end" : "start" }), { textContent: names()[i] });
      const parts = [shape("circle", { class: "hit", cx: x, cy: y, r: 26 }), MARKS[i](x, y, 10, { class: "mark", fill: COLOURS[i] }), label];
      if (state.normalize_embeddings) {
        const [gu, gv] = flat(normalize(n.embeddings[i]));
        parts.unshift(shape("path", { class: "lead", d: `M${x} ${y}L${px(gu)} ${py(gv)}` }), MARKS[i](px(gu), py(gv), 7, { class: "ghost", stroke: COLOURS[i] }));
      }
      knobs[i].replaceChildren(...parts);
      knobs[i].setAttribute("aria-label", ["anchor a", "positive p", "negative n₁", "negative n₂"][i]);
      knobs[i].setAttribute("aria-valuenow", u);
      knobs[i].setAttribute("aria-valuetext", `u ${u.toFixed(2)}, v ${v.toFixed(2)}`);
    });
    layers[3].replaceChildren(...steps.map(([du, dv], i) => {
      const [x, y] = [px(state.points[i][0]), py(state.points[i][1])];
      return arrow(x, y, x + 100 * rate * du, y - 100 * rate * dv);
    }).filter(Boolean));

    const A = map(state.distance, n.components), unit = unitOf(state.distance), anchored = isAnchored(state.distance);
    const mapped = (x) => A(state.normalize_embeddings ? normalize(x) : x);
    const at = (u, v) => mapped(E1.map((_, m) => u * E1[m] + v * E2[m] + state.offset));
    const a = mapped(n.embeddings[0]), d = n.distances[state.distance];
    // From a constant vector every anchor is at distance 1, and all are in the same direction: there is no line.
    const direction = power(a) > EPS;
    const there = d[0][1] > ROUNDING && (direction || unit !== 2) ? isoline((u, v) => ofMapped(unit, a, at(u, v), a), d[0][1]) : "";
    const back = anchored && direction ? isoline((u, v) => { const x = at(u, v); return ofMapped(unit, x, a, x); }, d[1][0]) : "";
    layers[1].replaceChildren(shape("path", { class: "iso back", d: back }), shape("path", { class: "iso", d: there }));
    return [
      ...(there ? [[element("span", { className: "swatch" }), `points as far from a as p, ${format(d[0][1])}${anchored ? ", with a as the anchor" : ""}`]] : []),
      ...(back ? [[element("span", { className: "swatch back" }), `points from which, as anchors, a is as far as from p, ${format(d[1][0])}`]] : []),
      [rate ? `→ one step of gradient descent, − gradient × ${rateText(rate)}, as seen in the plane` : "No arrows: the gradient in the plane is 0."],
      ...(state.normalize_embeddings ? [["Hollow marks: the embeddings scaled to length 1, as seen in the plane."]] : []),
    ];
  }
  const rateText = (rate) => (rate >= 1e-3 && rate <= 1e5 ? String(Number(rate.toPrecision(1))) : rate.toExponential(0).replace("-", "−"));

  // --- The signals ------------------------------------------------------------------------------------------------------
  const canvases = [0, 1].map((i) => {
    const canvas = $(`signal-${i}`);
    let last = null; // [component, value] where the pen was
    const range = () => limits(state.signals[i]);
    const pen = (event) => {
      const box = canvas.getBoundingClientRect();
      const m = Math.floor(((event.clientX - box.left) / box.width) * 32);
      return [Math.min(31, Math.max(0, m)), round(clamp((0.5 - (event.clientY - box.top) / box.height) * 2.3 * range(), LARGEST))];
    };
    const draw = ([m, x]) => {
      const signal = [...state.signals[i]], [m0, x0] = last ?? [m, x];
      // A fast pen skips components: a straight line fills them.
      for (let k = Math.min(m0, m); k <= Math.max(m0, m); k++) signal[k] = k === m ? x : k === m0 ? signal[k] : round(x0 + ((x - x0) * (k - m0)) / (m - m0));
      last = [m, x];
      component[i] = m;
      change(i, signal);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      event.preventDefault();
      draw(pen(event));
    });
    canvas.addEventListener("pointermove", (event) => { if (last) draw(pen(event)); });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(name, () => { last = null; });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const step = event.shiftKey ? 0.01 : 0.1, m = component[i];
      const to = { ArrowLeft: m - 1, ArrowRight: m + 1, Home: 0, End: 31 }[event.key];
      const by = { ArrowUp: step, ArrowDown: -step }[event.key];
      if (to === undefined && by === undefined) return;
      event.preventDefault();
      if (to !== undefined) { component[i] = Math.min(31, Math.max(0, to)); show(); return; }
      change(i, state.signals[i].map((x, k) => (k === m ? round(clamp(x + by, LARGEST)) : x)));
    });
    return canvas;
  });
  const limits = (signal) => Math.max(LIMIT, Math.ceil(Math.max(...signal.map(Math.abs))));
  const change = (i, signal) => set({ signals: state.signals.map((one, k) => (k === i ? signal : one)) });

  function showSignals(n) {
    const steps = n.gradient.slice(0, 2).map((g) => g.map((x) => -x));
    const rate = learningRate(Math.max(...steps.flat().map(Math.abs)), 1);
    for (const i of [0, 1]) {
      const signal = state.signals[i], high = limits(signal), y = (x) => 115 - (x / high) * 100, x = (m) => 10 + 20 * m;
      const parts = [shape("rect", { class: "here", x: 20 * component[i], y: 0, width: 20, height: 230 }), shape("path", { class: "axis", d: "M0 115H640" }),
        shape("path", { class: "grid", d: `M0 ${y(high)}H640M0 ${y(-high)}H640` })];
      if (i === 1) parts.push(shape("path", { d: "M" + state.signals[0].map((v, m) => `${x(m)} ${y(clamp(v, high * 1.15))}`).join("L"), fill: "none", stroke: COLOURS[0], "stroke-width": 2, "stroke-dasharray": "6 4" }));
      signal.forEach((v, m) => parts.push(shape("path", { d: `M${x(m)} 115V${y(v)}`, stroke: COLOURS[i], "stroke-width": 4 }), MARKS[i](x(m), y(v), 6, { fill: COLOURS[i], stroke: "#1b1f24" })));
      steps[i].forEach((s, m) => parts.push(arrow(x(m), y(signal[m]), x(m), y(signal[m] + rate * s), 10)));
      const label = (text, lx, ly) => Object.assign(shape("text", { x: lx, y: ly }), { textContent: text });
      parts.push(label(["a", "b (dashed: a)"][i], 8, 24), Object.assign(label(`±${high}`, 632, 24), {}));
      parts.at(-1).setAttribute("text-anchor", "end");
      canvases[i].replaceChildren(...parts.filter(Boolean));
      canvases[i].setAttribute("aria-label", ["signal a", "noisy signal b"][i]);
      canvases[i].setAttribute("aria-valuemin", -LARGEST);
      canvases[i].setAttribute("aria-valuemax", LARGEST);
      canvases[i].setAttribute("aria-valuenow", signal[component[i]]);
      canvases[i].setAttribute("aria-valuetext", `component ${component[i] + 1} of 32: ${signal[component[i]].toFixed(2)}`);
      canvases[i].setAttribute("aria-describedby", "hint-signals");
    }
    const line = (signal, dash) => shape("path", { d: "M" + signal.map((v, m) => `${10 + 20 * m} ${65 - (v / LIMIT) * 60}`).join("L"), fill: "none", stroke: COLOURS[dash ? 3 : 2], "stroke-width": 3, "stroke-dasharray": dash ? "9 6" : "none" });
    const text = Object.assign(shape("text", { x: 8, y: 24 }), { textContent: "n₁, n₂" });
    $("signal-2").replaceChildren(shape("path", { class: "axis", d: "M0 65H640" }), line(state.signals[2], false), line(state.signals[3], true), text);
    return [[rate ? `→ one step of gradient descent on a and b, − gradient × ${rateText(rate)}` : "No arrows: the gradient of a and b is 0."]];
  }

  const ACTIONS = {
    noise: ([a, b]) => [a, b.map((x, m) => round(x + 0.3 * gaussian(drawn, 32)[m]))],
    offset: ([a, b]) => [a, b.map((x) => x + 0.5)],
    scale: ([a, b]) => [a, b.map((x) => 1.5 * x)],
    both: ([a, b]) => [a, b].map((signal) => signal.map((x) => 1.5 * x)),
    copy: ([a]) => [a, [...a]],
  };
  for (const button of document.querySelectorAll("[data-do]")) button.onclick = () => {
    drawn += 1;
    const changed = ACTIONS[button.dataset.do](state.signals);
    if (Math.max(...changed.flat().map(Math.abs)) > LARGEST) say(`Not done: a component would exceed ${LARGEST}.`);
    else set({ signals: [...changed, ...state.signals.slice(2)] });
  };

  // --- The tables -------------------------------------------------------------------------------------------------------
  function showTables(n) {
    const [a, p, n1, n2] = names(), every = [a, p, n1, n2];
    const directions = [[0, 1], [1, 0], [0, 2], [2, 0], [0, 3], [3, 0]];
    table("distances", "Anchor → compared", ["", ...directions.map(([i, j]) => `${every[i]} → ${every[j]}`)], byGroup((name) =>
      row(name, directions.map(([i, j]) => cell(n.distances[name][i][j], `${name} ${i} ${j}`)), name === state.distance)));
    table("matrix", `All pairs under ${state.distance}${isAnchored(state.distance) ? ": the anchor is the row" : ""}`, ["", ...every], every.map((one, i) =>
      row(one, every.map((_, j) => cell(n.distances[state.distance][i][j], `pair ${i} ${j}`)))));
    table("losses", `Anchor: ${state.anchor === "query" ? "query i" : "reference j"}; margin ${state.margin}; scale s ${state.scale}`, ["", ...COLUMNS.map((loss) => (loss === "nt_xent" ? "nt_xent, supcon" : loss))], byGroup((name) =>
      row(name, COLUMNS.map((loss) => cell(n.losses[name][loss], `${name} ${loss}`, name === state.distance && loss === (state.loss === "supcon" ? "nt_xent" : state.loss))), name === state.distance)));
    const length = (x) => Math.sqrt(power(x));
    const along = (x) => sum(x) / Math.sqrt(x.length);
    const plane = state.mode === "points";
    table("gradients", `${state.loss === "distance" ? `d(a, ${p}) alone` : state.loss} under ${state.distance}${plane ? ", by component" : ""}`,
      ["", ...(plane ? ["∂/∂x₁", "∂/∂x₂", "∂/∂x₃"] : []), "length", "along (1, …, 1)"], every.map((one, i) => row(one,
        [...(plane ? n.gradient[i].map((g, m) => cell(g, `gradient ${i} ${m}`)) : []), cell(length(n.gradient[i]), `gradient ${i} length`), cell(along(n.gradient[i]), `gradient ${i} mean`)])));
    const f = n.pair;
    const quiet = f.noise <= 1e-15 * f.signal;
    table("facts", `a as signal, ${p} as noisy signal${state.normalize_embeddings ? ", before they are scaled to length 1" : ""}`, ["", "value"], [
      [`Var(a), eq. 7`, f.signal, "signal"], [`Var(${p})`, f.compared, "compared"], [`Var(${p} − a), the noise`, f.noise, "noise"],
      ["SNR = Var(a) / noise, eq. 6", quiet ? Infinity : f.snr, "snr"], ["SNR in decibel", quiet ? Infinity : f.decibel, "decibel"],
      ["correlation ρ, eq. 11", f.correlation, "correlation"], ["1 / √(1 + 1 / SNR), eq. 14", 1 / Math.sqrt(1 + f.noise / f.signal), "formula"],
    ].map(([head, x, key]) => row(head, [cell(x, `fact ${key}`)])));
    table("vectors", plane ? "Components of each embedding" : "Mean, variance and length of each embedding", ["", ...(plane ? ["x₁", "x₂", "x₃"] : []), "mean", "variance", "length"], every.map((one, i) => {
      const x = n.embeddings[i];
      return row(one, [...(plane ? x.map((xm, m) => cell(xm, `x ${i} ${m}`)) : []), cell(mean(x), `x ${i} mean`), cell(power(centre(x)) / x.length, `x ${i} variance`), cell(length(x), `x ${i} length`)]);
    }));
    $("components-note").textContent = plane ? "L of the two Mahalanobis distances is I + (stretch − 1) w wᵀ, with w in the plane at the angle:"
      : `L of the two Mahalanobis distances is I + (${state.stretch} − 1) w wᵀ, with w = (1, …, 1)/√32: 32 × 32 numbers, ${format(n.components[0][0])} on the diagonal and ${format(n.components[0][1])} elsewhere.`;
    $("components").parentElement.hidden = !plane;
    if (plane) table("components", "", ["", "1", "2", "3"], n.components.map((line, i) => row(String(i + 1), line.map((x, j) => cell(x, `L ${i} ${j}`)))));
  }

  const TAKES = { margin: ["contrastive", "triplet", "lifted", "multi_similarity"], scale: ["n_pair", "lifted", "nt_xent", "supcon"] };
  const takes = (key) => TAKES[key].includes(state.loss);
  function snippet() {
    const points = state.mode === "points", mahalanobis = state.distance.endsWith("mahalanobis");
    const x = embeddings(state).map((one) => `    [${one.join(", ")}],`).join("\n");
    const w = points ? `torch.tensor([${stretched(state).join(", ")}], dtype=torch.float64)` : "torch.full((32,), 32**-0.5, dtype=torch.float64)";
    const L = mahalanobis ? `w = ${w}\nL = torch.eye(${points ? 3 : 32}, dtype=torch.float64) + (${state.stretch} - 1) * torch.outer(w, w)\n` : "";
    const options = [`"${state.distance}"`, ...(mahalanobis ? ["components=L"] : []), ...(isAnchored(state.distance) ? [`anchor="${state.anchor}"`] : []), `normalize_embeddings=${state.normalize_embeddings ? "True" : "False"}`];
    const its = ["margin", "scale"].filter((key) => takes(key)).map((key) => `, ${key}=${state[key]}`).join("");
    const value = state.loss === "distance" ? "distance(x)[0, 1]" : `get_loss("${state.loss}", distance${its})(x, labels)`;
    return `import torch

from snrlib.distances import get_distance
${state.loss === "distance" ? "" : "from snrlib.losses import get_loss\n"}
# ${names().join(", ")}
x = torch.tensor([
${x}
], dtype=torch.float64, requires_grad=True)
labels = torch.tensor([0, 0, 1, 1])
${L}distance = get_distance(${options.join(", ")})
loss = ${value}
loss.backward()
print(distance(x))  # query i, ref j${isAnchored(state.distance) ? `; the anchor is the ${state.anchor}` : ""}
print(loss.item())
print(x.grad)
`;
  }

  // --- State and controls -----------------------------------------------------------------------------------------------
  function show() {
    const n = numbers(state), points = state.mode === "points";
    $("points-view").hidden = !points;
    $("signals-view").hidden = points;
    for (const one of document.querySelectorAll("[data-mode]")) one.hidden = one.dataset.mode !== state.mode;
    for (const one of document.querySelectorAll(".second")) one.textContent = names()[1];
    const legend = points ? showPlane(n) : showSignals(n);
    $("legend").replaceChildren(...legend.map((parts) => element("li", {}, ...parts)));
    showTables(n);
    for (const control of document.querySelectorAll("[data-key]")) {
      const value = state[control.dataset.key];
      if (control.type === "checkbox") control.checked = value; else control.value = value;
      if (control.type === "range") control.parentElement.querySelector(".value").textContent = String(value).replace("-", "−");
    }
    for (const radio of document.querySelectorAll('[name="mode"], [name="anchor"]')) radio.checked = state[radio.name] === radio.value;
    $("stretch-name").textContent = points ? "Stretch of L (question 11)" : "Stretch of L along (1, …, 1) (question 11)";
    for (const box of document.querySelectorAll(".formula-box")) box.classList.toggle("chosen", box.dataset.distance === state.distance || box.dataset.loss === state.loss);
    for (const part of document.querySelectorAll("[data-kind]")) part.hidden = (part.dataset.kind === "relative") !== isRelative(state.distance);
    for (const part of document.querySelectorAll("[data-anchored]")) part.hidden = !isAnchored(state.distance);
    for (const button of $("presets").children) button.setAttribute("aria-pressed", button.dataset.lesson === lesson);
    for (const article of document.querySelectorAll("article")) article.hidden = article.dataset.lesson !== lesson;
    const claim = LESSONS[lesson].claim(n, state);
    $("claim").textContent = claim ? claim[1] : "";
    $("claim").dataset.holds = claim ? claim[0] : "";
    $("snippet").value = snippet();
    scrollable();
    const chosen = n.distances[state.distance];
    $("now").textContent = `${state.distance}: a → ${names()[1]} ${format(chosen[0][1])}, ${names()[1]} → a ${format(chosen[1][0])}` + (state.loss === "distance" ? "" : `; ${state.loss} loss ${format(n.loss)}`);
    say(`${names()[0]} → ${names()[1]} is ${format(chosen[0][1])} under ${state.distance}; ${state.loss === "distance" ? "chosen alone" : `the ${state.loss} loss is ${format(n.loss)}`}.`, 700);
  }
  /** A box that scrolls can be reached by keyboard, one that does not need not. */
  const scrollable = () => document.querySelectorAll(".scroll, .formula").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
  });
  addEventListener("resize", scrollable);
  let waiting = 0; // a reader of the screen hears where things stand once they stand
  function say(text, after = 0) {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if ($("status").textContent !== text) $("status").textContent = text; }, after);
  }
  function set(changes) {
    state = { ...state, ...changes };
    show();
  }
  function choose(name) {
    const { set: changes } = LESSONS[name];
    lesson = name;
    component = [0, 0];
    drawn = 0;
    state = { ...structuredClone(START), ...(typeof changes === "function" ? changes(START) : structuredClone(changes)) };
    show();
  }

  $("presets").append(...Object.entries(LESSONS).map(([name, { title }]) => {
    const button = element("button", { type: "button", onclick: () => choose(name) }, title);
    button.dataset.lesson = name;
    return button;
  }));
  for (const control of document.querySelectorAll("[data-key]")) {
    const key = control.dataset.key;
    control.append(...GROUPS.filter(([of]) => of === key).map(([, label, group]) => element("optgroup", { label },
      ...group.map((value) => element("option", { value }, value === "distance" ? "d(a, p) alone" : value)))));
    control.oninput = () => set({ [key]: control.type === "checkbox" ? control.checked : control.type === "range" ? Number(control.value) : control.value });
  }
  for (const radio of document.querySelectorAll('[name="mode"], [name="anchor"]')) radio.onchange = () => set({ [radio.name]: radio.value });
  $("copy").onclick = async () => {
    $("python").open = true;
    $("snippet").select();
    let done = false;
    try { await navigator.clipboard.writeText($("snippet").value); done = true; } catch { done = document.execCommand("copy"); }
    $("copy").textContent = done ? "Copied" : "Press Ctrl+C to copy";
    setTimeout(() => { $("copy").textContent = "Copy as Python"; }, 2000);
  };

  window.playground = { set, choose, state: () => structuredClone(state), numbers: (changes = {}) => numbers({ ...state, ...changes }), lessons: Object.keys(LESSONS) };
  const asked = location.hash.slice(1); // playground.html#asymmetry opens at a question
  choose(Object.hasOwn(LESSONS, asked) ? asked : "start");
})();
