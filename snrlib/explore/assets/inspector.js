// Links the maps: what is chosen, hidden or coloured on one is so on all; the address holds the view.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($("facts").textContent);
  const KINDS = { u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array }; // little-endian, as all machines with browsers
  const stored = (id) => { // an array of numbers, of which the page has the bytes as text
    const bytes = atob($(id).textContent), made = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) made[i] = bytes.charCodeAt(i);
    return new KINDS[$(id).dataset.kind](made.buffer);
  };
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const SHOWN = 60; // of a selection, and entries of a legend that has more
  const LEGEND = 300;
  const LONGEST = 4000; // letters of a selection in the address
  const labels = stored("labels"), n = labels.length;
  const rowsOf = (member) => Array.from(labels.keys()).filter(member);
  const number = (value) => (Number.isInteger(value) ? String(value) : Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "none");
  const named = (name) => name || "(no name)";

  // --- Neighbours, unpacked when they are first needed
  const lazily = (make) => { let made; return () => (made ??= make()); };
  const maps = facts.maps.map((map, m) => ({ ...map, near: lazily(() => stored(`near${m}`)), far: lazily(() => stored(`far${m}`)) }));
  const isRight = (m, i) => labels[maps[m].near()[i * maps[m].k]] === labels[i];

  // --- Pictures: one text of them all, and where each ends
  const pictures = facts.pictures && { text: $("pictures").textContent, ends: stored("ends") };
  const source = (i) => {
    const text = pictures ? pictures.text.slice(i ? pictures.ends[i - 1] : 0, pictures.ends[i]) : "";
    return text && `data:image/webp;base64,${text}`;
  };
  const thumb = (i) => (source(i) ? [element("img", { src: source(i), alt: "" })] : []);
  const kept = new Map();
  const picture = (i) => {
    if (!kept.has(i)) {
      if (kept.size > 600) kept.clear();
      kept.set(i, source(i) && element("img", { onload: () => views.forEach((view) => view.pictured && view.draw()), src: source(i) }));
    }
    return kept.get(i);
  };

  // --- What is coloured by: each has codes of its groups or numbers, and a palette
  const columns = facts.columns.map((column, c) => ({ ...column, values: lazily(() => stored(`column${c}`)) }));
  const valueOf = (column, i) => (column.words ? column.words[column.values()[i]] : number(column.values()[i]));
  const lookOf = (g) => facts.looks[g % facts.looks.length]; // they repeat
  const palette = facts.looks.map(([colour, mark]) => [colour, mark]);
  const GREY = "#8a929c";
  const grouped = (names, codes) => {
    const looks = new Uint8Array(n), counts = new Uint32Array(names.length);
    for (let i = 0; i < n; i++) { looks[i] = codes[i] % palette.length; counts[codes[i]]++; }
    return { groups: { names, codes, counts }, look: () => ({ palette, codes: looks }) };
  };
  const scaled = (values) => {
    const sorted = values.filter(Number.isFinite).sort();
    const end = (q) => sorted[Math.round(q * (sorted.length - 1))] ?? 0;
    const [low, high] = [end(0.01), end(0.99)], steps = facts.scale.length;
    const codes = Uint8Array.from(values, (value) => (Number.isFinite(value) ? Math.min(steps - 1, Math.max(0, Math.floor(((value - low) / (high - low || 1)) * steps))) : steps));
    const made = { palette: [...facts.scale, GREY].map((colour) => [colour, "circle"]), codes };
    return { bar: { low, high, cut: sorted.length && (sorted[0] < low || sorted.at(-1) > high), none: n - sorted.length }, look: () => made };
  };
  const verdicts = [["#bd1f01", "star", "★"], ["#3f90da", "circle", "●"]]; // wrong, right
  const byVerdict = () => ({
    verdicts: true,
    look: maps.map((_, m) => lazily(() => ({ palette: verdicts, codes: Uint8Array.from({ length: n }, (_, i) => +isRight(m, i)) }))),
  });
  const colours = { class: lazily(() => grouped(facts.classes, labels)), wrong: lazily(byVerdict) };
  columns.forEach((column, c) => {
    if (column.colour) colours[`column${c}`] = lazily(() => (column.words ? grouped(column.words, column.values()) : scaled(column.values())));
  });

  // --- What all maps share
  const shared = {
    n, shown: new Uint8Array(n).fill(1), lit: null, chosen: [], hovered: -1, hidden: new Set(), spotlight: -1, named: new Set(),
    groups: null, pictures: Boolean(pictures), picture, tool: "lasso",
    fills: () => wide.matches && window.top === window, // the page does not scroll, so that a wheel is free to zoom
    onChoose: (rows, add = false) => select(add ? [...new Set([...shared.chosen, ...rows])] : rows),
    onHover: point,
    onView: () => remember(),
  };
  const wide = matchMedia("(min-width: 900px)");
  const views = facts.maps.map((_, m) => {
    const points = stored(`points${m}`), half = points.length / 2;
    return new DotMap(document.querySelectorAll(".stage")[m], points.subarray(0, half), points.subarray(half), shared);
  });
  let standing = maps.map((_, m) => m), large = 0;

  function paper() { // the colours of the page, also when it turns dark or is printed
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "ink", "right", "wrong"]) shared[name] = style.getPropertyValue(`--${name}`).trim();
    shared.rgb = [1, 3, 5].map((at) => parseInt(shared.paper.slice(at, at + 2), 16));
  }
  const draw = () => views.forEach((view) => view.draw());
  const drawOver = () => views.forEach((view) => view.paintOver());

  // --- Which maps stand: in as many columns as make them largest, or one large and the others beside it
  function stand(wanted) {
    standing = wanted.length ? wanted : maps.map((_, m) => m);
    if (!standing.includes(large)) large = Math.min(...standing);
    document.querySelectorAll("#standing button").forEach((button, m) => button.setAttribute("aria-pressed", standing.includes(m)));
    arrange();
    remember();
  }
  function grow(m, section) { // a small map becomes the large one; that one, or one among equals, stands alone; after that all stand again
    const small = $("maps").classList.contains("uneven") && !section.classList.contains("large");
    large = m;
    stand(small ? standing : standing.length === 1 ? maps.map((_, one) => one) : [m]);
  }
  function arrange() {
    $("maps").style.setProperty("--standing", standing.length);
    const { clientWidth, clientHeight } = $("maps"), others = standing.length - 1;
    const side = (columns, rows) => Math.min(clientWidth / columns, clientHeight / rows - 75);
    const grid = (columns) => side(columns, Math.ceil(standing.length / columns));
    const best = standing.map((_, k) => k + 1).reduce((a, b) => (grid(b) > grid(a) ? b : a), 1);
    const uneven = wide.matches && others > 1 && side(3, others) > 0.75 * grid(best) && side(1.5, 1) > 1.4 * grid(best);
    $("maps").classList.toggle("uneven", uneven);
    $("maps").style.setProperty("--others", others);
    $("maps").style.setProperty("--columns", wide.matches ? best : Math.min(standing.length, Math.max(1, Math.floor(clientWidth / 320))));
    document.querySelectorAll("#maps > section").forEach((section, m) => {
      section.hidden = !standing.includes(m);
      section.classList.toggle("large", uneven && m === large);
      const alone = standing.length === 1 && maps.length > 1;
      const what = alone ? "all maps" : uneven && m !== large ? "make this map the large one" : "this map alone";
      Object.assign(section.querySelector("[data-do=alone]"), { textContent: alone ? "▦" : "⤢", title: what, ariaLabel: `${what}: ${maps[m].title}`, hidden: maps.length === 1 });
    });
    views.forEach((view) => view.resize());
  }

  // --- Colour and legend
  function colour(by) {
    $("colour").value = by;
    $("keyed").textContent = `Legend: ${$("colour").selectedOptions[0].textContent}`;
    const found = colours[by]();
    Object.assign(shared, { groups: found.groups ?? null, hidden: new Set(), spotlight: -1 });
    views.forEach((view, m) => { view.look = Array.isArray(found.look) ? found.look[m]() : found.look(); });
    legend(found);
    hide([]);
  }
  function legend({ groups, bar, verdicts: judged }) {
    const sign = ([colour, , mark]) => Object.assign(element("span", { ariaHidden: "true" }, mark), { style: `color: ${colour}` });
    $("legend").classList.toggle("many", Boolean(groups));
    $("all").hidden = !groups;
    if (judged) {
      $("legend").replaceChildren(...["The nearest neighbour under the map's distance is of another class", "of the same class"].map((text, right) => element("span", {}, sign(verdicts[right]), ` ${text}`)));
    } else if (bar) {
      const ramp = Object.assign(element("div", { id: "ramp", role: "img", ariaLabel: "dark is low, light is high" }), { style: `background: linear-gradient(to right, ${facts.scale.join(",")})` });
      const ends = element("div", { id: "ends-of-ramp" }, element("span", {}, `${bar.cut ? "≤ " : ""}${number(bar.low)}`), element("span", {}, `${bar.cut ? "≥ " : ""}${number(bar.high)}`));
      $("legend").replaceChildren(ramp, ends, ...(bar.none ? [element("span", {}, sign([GREY, "", "●"]), ` no number: ${bar.none}`)] : []));
    } else {
      const order = groups.names.map((_, g) => g);
      if (order.length > LEGEND) order.sort((a, b) => groups.counts[b] - groups.counts[a]);
      const entries = order.slice(0, LEGEND).map((g) => {
        const button = element("button", { type: "button", title: `${named(groups.names[g])}: ${groups.counts[g]}` }, sign(lookOf(g)), ` ${named(groups.names[g])}`);
        button.dataset.group = g;
        button.onclick = (event) => (event.shiftKey ? isolate(g) : hide(shared.hidden.has(g) ? [...shared.hidden].filter((h) => h !== g) : [...shared.hidden, g]));
        button.ondblclick = () => isolate(g);
        button.onpointerenter = (event) => { if (event.pointerType === "mouse") spotlight(g); };
        button.onpointerleave = () => spotlight(-1);
        return button;
      });
      $("legend").replaceChildren(...entries, ...(order.length > LEGEND ? [element("span", {}, `and ${order.length - LEGEND} smaller ones`)] : []));
    }
  }
  function hide(groups) {
    shared.hidden = new Set(groups);
    const codes = shared.groups?.codes;
    for (let i = 0; i < n; i++) shared.shown[i] = codes && shared.hidden.has(codes[i]) ? 0 : 1;
    document.querySelectorAll("#legend [data-group]").forEach((button) => button.setAttribute("aria-pressed", !shared.hidden.has(Number(button.dataset.group))));
    $("all").disabled = !shared.hidden.size;
    draw();
    remember();
  }
  function isolate(g) {
    const others = shared.groups.names.map((_, h) => h).filter((h) => h !== g);
    hide(others.length === shared.hidden.size && !shared.hidden.has(g) ? [] : others);
  }
  let resting; // the pointer crosses many entries on its way
  function spotlight(g) {
    clearTimeout(resting);
    resting = setTimeout(() => { shared.spotlight = g; light(); }, g < 0 ? 0 : 120);
  }
  function light() { // a group that is pointed at, else what is chosen
    const { spotlight: g, groups, chosen } = shared;
    if (g < 0 && !chosen.length) shared.lit = null;
    else if (g >= 0) shared.lit = Uint8Array.from(groups.codes, (code) => +(code === g));
    else { shared.lit = new Uint8Array(n); for (const i of chosen) shared.lit[i] = 1; }
    draw();
  }

  // --- Under the pointer
  function point(view, i, event) {
    const before = shared.hovered;
    shared.hovered = i;
    if (i !== before) drawOver();
    const tip = $("tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    if (i !== before || tip.dataset.map !== String(views.indexOf(view))) {
      const m = views.indexOf(view), { near, far, k, distance } = maps[m];
      tip.dataset.map = m;
      tip.replaceChildren(...thumb(i), element("b", {}, named(facts.classes[labels[i]])), element("div", {}, `${isRight(m, i) ? "✓" : "✗"} nearest under ${distance}: ${named(facts.classes[labels[near()[i * k]]])}, ${far()[i * k].toFixed(4)}`),
        ...columns.map((column) => element("div", {}, `${column.name}: ${valueOf(column, i)}`)));
    }
    const { offsetWidth, offsetHeight } = tip;
    tip.style.left = `${Math.max(4, event.clientX + 16 + offsetWidth > innerWidth ? event.clientX - offsetWidth - 12 : event.clientX + 16)}px`;
    tip.style.top = `${Math.max(4, Math.min(innerHeight - offsetHeight - 4, event.clientY + 12))}px`;
  }

  // --- What is chosen
  function select(rows) {
    shared.chosen = Array.from(new Set(rows)).filter((i) => Number.isInteger(i) && i >= 0 && i < n).sort((a, b) => a - b);
    const [i] = shared.chosen, one = shared.chosen.length === 1;
    views.forEach((view, m) => {
      const { near, k } = maps[m];
      view.links = one ? Array.from(near().subarray(i * k, (i + 1) * k), (to) => ({ from: i, to, right: labels[to] === labels[i] })) : [];
    });
    shared.named = new Set(shared.groups && shared.chosen.length <= SHOWN ? shared.chosen.map((j) => shared.groups.codes[j]) : []);
    light();
    $("image").value = one ? i : "";
    if (one) showOne(i);
    else if (shared.chosen.length) showMany(shared.chosen);
    else {
      $("said").replaceChildren(element("p", {}, `No ${facts.one} is chosen.`));
      $("lists").replaceChildren();
    }
    $("panel").scrollTop = 0;
    remember();
  }
  function card(i, verdict, text) {
    const name = named(facts.classes[labels[i]]);
    const button = element("button", { type: "button", className: verdict, onclick: () => select([i]) }, ...thumb(i), element("span", {}, text ?? name));
    button.onpointerenter = () => { shared.hovered = i; drawOver(); };
    button.onpointerleave = () => { shared.hovered = -1; drawOver(); };
    button.setAttribute("aria-label", `${facts.one} ${i}, class ${name}${verdict ? `, ${verdict}` : ""}`);
    return element("li", {}, button);
  }
  const list = (cards) => element("ul", { className: "list" }, ...cards);
  function showOne(i) {
    const more = columns.length ? [element("div", {}, columns.map((column) => `${column.name}: ${valueOf(column, i)}`).join(" · "))] : [];
    $("said").replaceChildren(element("div", { id: "chosen" }, ...thumb(i), element("div", {}, element("b", {}, named(facts.classes[labels[i]])), `, ${facts.one} ${i}`, ...more)));
    $("lists").replaceChildren(...maps.flatMap((map, m) => {
      const cards = [];
      for (let j = i * map.k; j < (i + 1) * map.k; j++) {
        const to = map.near()[j], right = labels[to] === labels[i];
        cards.push(card(to, right ? "right" : "wrong", `${right ? "✓" : "✗"} ${named(facts.classes[labels[to]])}\n${map.far()[j].toPrecision(3)}`));
      }
      return [element("h2", {}, map.title === map.distance ? `Nearest under ${map.title}` : `${map.title}: nearest under ${map.distance}`), list(cards)];
    }));
  }
  function showMany(rows) {
    const wrong = maps.map((map, m) => `${rows.filter((i) => !isRight(m, i)).length} on ${map.title}`);
    const classes = new Set(rows.map((i) => labels[i])).size;
    $("said").replaceChildren(element("p", {}, `${rows.length} ${facts.many} of ${classes} class${classes > 1 ? "es" : ""} chosen. Retrieved wrongly: ${wrong.join(", ")}.`));
    const more = rows.length > SHOWN ? [element("p", {}, `The first ${SHOWN} of them:`)] : [];
    $("lists").replaceChildren(...more, list(rows.slice(0, SHOWN).map((i) => card(i, ""))));
  }

  // --- The address, such as #maps=0,2&colour=column1&chosen=3,10-12&view0=1.5,2,8
  const packed = (rows) => { // of a sorted list: 3,10-12
    const parts = [];
    for (let k = 0; k < rows.length; k++) {
      const first = rows[k];
      while (rows[k + 1] === rows[k] + 1) k++;
      parts.push(rows[k] > first ? `${first}-${rows[k]}` : first);
    }
    return parts.join();
  };
  const unpacked = (text, most) => (text ?? "").split(",").flatMap((part) => {
    const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    const from = Number(first), to = Math.min(Number(last ?? first), most - 1);
    return from <= to ? Array.from({ length: to - from + 1 }, (_, k) => from + k) : [];
  });
  function address() {
    const found = new URLSearchParams();
    if (standing.length < maps.length) found.set("maps", packed([...standing].sort((a, b) => a - b)));
    if (large !== Math.min(...standing)) found.set("large", large);
    if ($("colour").value !== "class") found.set("colour", $("colour").value);
    if (shared.hidden.size) found.set("hidden", packed([...shared.hidden].sort((a, b) => a - b)));
    const chosen = packed(shared.chosen);
    if (chosen && chosen.length <= LONGEST) found.set("chosen", chosen);
    $("unshared").hidden = chosen.length <= LONGEST;
    views.forEach((view, m) => { if (view.view.zoom !== 1 || view.view.at.some((at, k) => at !== view.box.middle[k])) found.set(`view${m}`, [...view.view.at, view.view.zoom].map((value) => Number(value.toPrecision(6))).join()); });
    return decodeURIComponent(found.toString());
  }
  let later, reading = false;
  function remember() {
    clearTimeout(later);
    if (!reading && location.protocol !== "about:") later = setTimeout(() => history.replaceState(null, "", `#${address()}`), 200); // a notebook's frame has no address
  }
  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    reading = true;
    colour(Object.hasOwn(colours, asked.get("colour") ?? "") ? asked.get("colour") : "class");
    hide(unpacked(asked.get("hidden"), shared.groups?.names.length ?? 0));
    views.forEach((view, m) => {
      const [x, y, zoom] = (asked.get(`view${m}`) ?? "").split(",").map(Number);
      if ([x, y, zoom].every(Number.isFinite) && zoom > 0) view.view = { at: [x, y], zoom: Math.min(2000, Math.max(0.5, zoom)) };
      else view.home();
    });
    large = unpacked(asked.get("large"), maps.length)[0] ?? -1;
    stand(unpacked(asked.get("maps"), maps.length));
    select(unpacked(asked.get("chosen"), n));
    reading = false;
  }

  // --- Controls
  const high = matchMedia("(min-height: 700px)"); // a frame of a notebook is often lower
  const open = () => { $("tools").open = wide.matches && high.matches; };
  open();
  for (const one of [wide, high]) one.addEventListener("change", open);
  const current = () => shared.chosen[0] ?? -1;
  $("image").max = n - 1;
  if (facts.classes.length <= 2000) $("classes").append(...[...new Set(facts.classes)].map((name) => element("option", { value: name })));
  columns.forEach((column, c) => { if (column.colour) $("colour").append(element("option", { value: `column${c}` }, column.name)); });
  $("judge").append(...maps.map((map, m) => element("option", { value: m }, map.title)));
  $("standing").hidden = maps.length === 1;
  $("standing").append(...maps.map((map, m) => element("button", { type: "button", onclick: () => stand(standing.includes(m) && standing.length > 1 ? standing.filter((one) => one !== m) : [...standing, m].sort()) }, map.title)));
  document.querySelectorAll("#maps > section").forEach((section, m) => section.querySelectorAll("[data-do]").forEach((button) => {
    button.onclick = { in: () => views[m].zoom(1.5), out: () => views[m].zoom(1 / 1.5), whole: () => { views[m].home(); views[m].changed(); }, alone: () => grow(m, section) }[button.dataset.do];
  }));
  $("colour").onchange = () => { colour($("colour").value); select(shared.chosen); };
  $("class").onchange = () => {
    const wanted = $("class").value.trim().toLowerCase();
    const exact = facts.classes.some((name) => name.toLowerCase() === wanted);
    const found = facts.classes.map((name) => (exact ? name.toLowerCase() === wanted : name.toLowerCase().includes(wanted)));
    select(wanted ? rowsOf((i) => found[labels[i]]) : []);
  };
  $("image").onchange = () => {
    const i = Number($("image").value);
    select($("image").value !== "" && Number.isInteger(i) && i >= 0 && i < n ? [i] : shared.chosen); // writes its number back
  };
  $("before").onclick = () => select([(Math.max(current(), 0) + n - 1) % n]);
  $("after").onclick = () => select([(current() + 1) % n]);
  $("error").onclick = () => {
    const m = Number($("judge").value);
    for (let step = 1; step <= n; step++) {
      const i = (current() + step + n) % n;
      if (!isRight(m, i)) return select([i]);
    }
    return select([]);
  };
  $("none").onclick = () => select([]);
  $("all").onclick = () => hide([]);
  $("controls").onsubmit = (event) => event.preventDefault();
  $("drag").onchange = () => {
    shared.tool = $("drag").value;
    document.body.dataset.tool = shared.tool; // a finger scrolls the page only where nothing else is asked of it
  };
  if (matchMedia("(pointer: coarse)").matches) {
    $("drag").prepend(element("option", { value: "scroll" }, "scrolls the page"));
    $("drag").value = "scroll";
  }
  $("drag").onchange();
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    point(null, -1);
    select([]);
  });
  const repaint = (mode) => {
    shared.printed = mode;
    document.documentElement.classList.toggle("printed", mode);
    paper();
    arrange();
    views.forEach((view) => view.paint()); // at once: what waits for a frame comes after the print
  };
  window.addEventListener("beforeprint", () => repaint(true));
  window.addEventListener("afterprint", () => repaint(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paper(); draw(); });
  window.addEventListener("hashchange", read);
  new ResizeObserver(arrange).observe($("maps"));

  paper();
  read();
  requestAnimationFrame(() => setTimeout(() => performance.mark("drawn"))); // the frame with the dots has been shown
  window.inspector = { // for the console
    select, views, shared,
    place: (m, i) => { const box = views[m].stage.getBoundingClientRect(), [x, y] = views[m].toScreen(i); return [box.left + x, box.top + y]; },
  };
})();
