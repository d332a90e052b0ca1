// Links the maps: one data source has a row for every image, so a selection on one map is a selection on all.
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const labels = unpack(facts.labels, Int32Array);
  const maps = facts.maps.map((map) => ({ ...map, near: unpack(map.near, Int32Array), far: unpack(map.far, Float32Array) }));
  const SHOWN = 60; // thumbnails of a selection
  const $ = (id) => document.getElementById(id);
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const isRight = (m, i) => labels[maps[m].near[i * maps[m].k]] === labels[i];

  function begin(doc) {
    const source = doc.get_model_by_name("images");
    const links = maps.map((_, m) => doc.get_model_by_name(`links${m}`));
    const thumb = (i) => element("img", { src: source.data.thumb[i], alt: "" });
    const select = (rows) => { source.selected.indices = rows; };

    // Colours and marks: [colour, mark] of image i on map m.
    const ofClass = (c) => facts.looks[c % facts.looks.length]; // they repeat
    const splits = facts.split ? [...new Set(facts.split)] : [];
    const verdicts = [["#bd1f01", ["star", "★"]], ["#3f90da", ["circle", "●"]]]; // wrong, right
    const looks = {
      class: (i) => ofClass(labels[i]),
      split: (i) => ofClass(splits.indexOf(facts.split[i])),
      wrong: (i, m) => verdicts[+isRight(m, i)],
    };
    function colour(by) {
      maps.forEach((_, m) => {
        const all = Array.from(labels, (_, i) => looks[by](i, m));
        source.data[`colour${m}`] = all.map(([colour]) => colour);
        source.data[`mark${m}`] = all.map(([, [mark]]) => mark);
      });
      source.change.emit();
      const sign = ([colour, [, mark]]) => Object.assign(element("span", {}, mark), { style: `color: ${colour}; padding: 0`, ariaHidden: "true" });
      const entries = { class: facts.classes.map((name, c) => [name, ofClass(c), (i) => labels[i] === c]),
        split: splits.map((name, s) => [name, ofClass(s), (i) => facts.split[i] === name]),
        wrong: verdicts.map((look, right) => [["the nearest neighbour under the map's distance is of another class", "of the same class"][right], look, null]) }[by];
      $("legend").replaceChildren(...entries.map(([name, look, member]) => member
        ? element("button", { type: "button", onclick: () => select(rowsOf(member)) }, sign(look), ` ${name}`)
        : element("span", {}, sign(look), ` ${name}`)));
    }
    const rowsOf = (member) => Array.from(labels.keys()).filter(member);

    function card(i, verdict, text) {
      const name = facts.classes[labels[i]];
      const button = element("button", { type: "button", className: verdict, onclick: () => select([i]) }, thumb(i), text ?? name);
      button.setAttribute("aria-label", `image ${i}, class ${name}${verdict ? `, ${verdict}` : ""}`);
      return element("li", {}, button);
    }
    const list = (cards) => element("ul", { className: "list" }, ...cards);

    function showOne(i) {
      const group = facts.split ? `, ${facts.split[i]}` : "";
      $("said").replaceChildren(element("div", { id: "chosen" }, thumb(i), element("div", {}, element("b", {}, facts.classes[labels[i]]), `, image ${i}${group}`)));
      $("lists").replaceChildren(...maps.flatMap((map, m) => {
        const cards = [];
        for (let j = i * map.k; j < (i + 1) * map.k; j++) {
          const right = labels[map.near[j]] === labels[i];
          const name = facts.classes[labels[map.near[j]]];
          cards.push(card(map.near[j], right ? "right" : "wrong", `${right ? "✓" : "✗"} ${name} ${map.far[j].toPrecision(3)}`));
        }
        return [element("h2", {}, `${map.title}: nearest under ${map.distance}`), list(cards)];
      }));
    }

    function showMany(rows) {
      const wrong = maps.map((map, m) => `${rows.filter((i) => !isRight(m, i)).length} on ${map.title}`);
      const classes = new Set(rows.map((i) => labels[i])).size;
      $("said").replaceChildren(element("p", {}, `${rows.length} images of ${classes} class${classes > 1 ? "es" : ""} chosen. Retrieved wrongly: ${wrong.join(", ")}.`));
      const more = rows.length > SHOWN ? [element("p", {}, `The first ${SHOWN} of them:`)] : [];
      $("lists").replaceChildren(...more, list(rows.slice(0, SHOWN).map((i) => card(i, ""))));
    }

    function show() {
      const rows = Array.from(source.selected.indices);
      maps.forEach((map, m) => {
        const near = rows.length === 1 ? Array.from(map.near.subarray(rows[0] * map.k, (rows[0] + 1) * map.k)) : [];
        const right = near.map((j) => labels[j] === labels[rows[0]]);
        const [x, y] = [source.data[`x${m}`], source.data[`y${m}`]];
        links[m].data = {
          x0: near.map(() => x[rows[0]]), y0: near.map(() => y[rows[0]]), x1: near.map((j) => x[j]), y1: near.map((j) => y[j]),
          colour: right.map((yes) => verdicts[+yes][0]), dash: right.map((yes) => (yes ? "solid" : "dashed")),
        };
      });
      $("image").value = rows.length === 1 ? rows[0] : "";
      if (rows.length === 1) showOne(rows[0]);
      else if (rows.length) showMany(rows);
      else {
        $("said").replaceChildren(element("p", {}, "No image is chosen."));
        $("lists").replaceChildren();
      }
    }

    // Controls
    const n = labels.length;
    const current = () => source.selected.indices[0] ?? -1;
    $("image").max = n - 1;
    $("classes").append(...[...new Set(facts.classes)].map((name) => element("option", { value: name })));
    if (facts.split) $("colour").append(element("option", { value: "split" }, "split"));
    $("judge").append(...maps.map((map, m) => element("option", { value: m }, map.title)));
    $("colour").onchange = () => colour($("colour").value);
    $("class").onchange = () => {
      const wanted = $("class").value.trim().toLowerCase();
      const exact = facts.classes.some((name) => name.toLowerCase() === wanted);
      const found = facts.classes.map((name) => (exact ? name.toLowerCase() === wanted : name.toLowerCase().includes(wanted)));
      select(wanted ? rowsOf((i) => found[labels[i]]) : []);
    };
    $("image").onchange = () => {
      const i = Number($("image").value);
      if ($("image").value !== "" && Number.isInteger(i) && i >= 0 && i < n) select([i]);
      else show(); // writes the number of the chosen image back
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
    $("controls").onsubmit = (event) => event.preventDefault();
    if (matchMedia("(pointer: coarse)").matches) { // a finger scrolls the page, until it picks the lasso above a map
      for (const m of maps.keys()) doc.get_model_by_name(`map${m}`).toolbar.tools.filter((tool) => tool.type === "LassoSelectTool").forEach((tool) => { tool.active = false; });
    }
    source.selected.connect(source.selected.properties.indices.change, show);
    colour("class");
    show();
    window.inspector = { source, select }; // for the console
  }

  (function wait() {
    const doc = globalThis.Bokeh?.documents.find((one) => one.get_model_by_name("images"));
    if (doc) begin(doc);
    else setTimeout(wait, 20);
  })();
})();
