// The pad on which a prediction's curves are drawn: by pointer, over all x that it passes, or point by point with the
// arrow keys; and the guess in the figure that was covered. The data are written by d2l_utils/book/predict.py.
"use strict";
window.predictCurve = (form, data, covers) => {
  form.querySelectorAll(".predict-pad, .predict-series").forEach((part) => part.replaceChildren());  // of a saved page
  const { x, names, texts, values } = data, size = x.length, last = texts.length - 1, middle = last >> 1;
  const BOTTOM = 186, HEIGHT = 162;
  const svg = draw(form.querySelector(".predict-pad"), "svg", { viewBox: "0 0 340 230", role: "group",
    "aria-label": `${data.ylabel} against ${data.xlabel}` });
  Object.assign(svg.dataset, { box: `62 ${BOTTOM - HEIGHT} 256 ${HEIGHT}`, xlim: `${x[0]} ${x[size - 1]}`,
    ylim: `${values[0]} ${values[last]}`, xscale: data.xlog && "log", yscale: data.log && "log" });
  const [toX, toY] = axes(svg);
  const points = data.truth.map(() => null);                 // levels, series by series; null: not drawn yet
  let active = 0, locked = false;

  for (const [value, text] of data.ticks) {
    draw(svg, "path", { d: `M 50 ${toY(value)} H 330` });
    draw(svg, "text", { x: 44, y: toY(value) + 4, "text-anchor": "end" }, text);
  }
  x.forEach((place) => draw(svg, "text", { x: toX(place), y: 206, "text-anchor": "middle" }, place));
  draw(svg, "text", { x: 190, y: 225, "text-anchor": "middle" }, data.xlabel);
  draw(svg, "text", { x: 4, y: 12 }, data.ylabel);

  function curves(figure, name, all) {
    figure.querySelector(`g.${name}`)?.remove();
    const group = draw(figure, "g", { class: name }), [toX, toY] = axes(figure);
    names.forEach((series, s) => {
      const drawn = x.map((place, i) => [toX(place), all[s * size + i]]).filter(([, value]) => value !== undefined);
      if (!drawn.length) return;
      const line = drawn.map(([left, value]) => [left, toY(value)]);
      draw(group, "polyline", { points: line.join(" "), class: `series-${s}`, "data-series": series });
    });
    return group;
  }

  function paint() {
    handles.forEach((handle, i) => {
      const level = points[i] ?? middle, drawn = points[i] !== null;
      set(handle, { cy: toY(values[level]), "aria-valuenow": level, "aria-disabled": locked,
        "aria-valuetext": drawn ? texts[level] : "not drawn yet" });
      handle.classList.toggle("drawn", drawn);
    });
    buttons.forEach((button, s) => button.setAttribute("aria-pressed", s === active));
    svg.querySelector("g.handles").before(curves(svg, "guess", points.map((level) => values[level])));
  }

  const put = (i, level) => { points[i] = Math.max(0, Math.min(last, Math.round(level))); };
  const whole = (s) => !points.slice(s * size, s * size + size).includes(null);

  // A point takes the height at which the pointer passes it; where the pointer is set down, it moves the nearest point.
  let from, at, passed;
  const away = (i) => Math.abs(toX(x[i]) - at.x);
  const nearest = () => x.reduce((best, _, i) => away(i) < away(best) ? i : best, 0);
  const pass = (i, y) => { passed.add(i); put(active * size + i, last * (BOTTOM - y) / HEIGHT); };
  function stroke(event) {
    const before = at;
    at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    if (event.type === "pointerdown") [from, passed] = [{ x: at.x, y: at.y, i: nearest() }, new Set()];
    if (Math.abs(at.x - from.x) < 3) from.y = at.y;
    if (Math.abs(at.x - from.x) < 12 && passed.size < 2) pass(from.i, at.y);
    else {
      pass(from.i, from.y);
      x.forEach((place, i) => {
        const part = (toX(place) - before.x) / (at.x - before.x);
        if (i !== from.i && part > 0 && part <= 1) pass(i, before.y + part * (at.y - before.y));
      });
    }
    paint();
  }

  const group = draw(svg, "g", { class: "handles" });
  const handles = names.flatMap((name, s) => x.map((place) => draw(group, "circle", {
    r: 6, cx: toX(place), class: `series-${s}`, "data-series": name, role: "slider", tabindex: 0,
    "aria-label": `${name}, ${data.xlabel} ${place}`, "aria-valuemin": 0, "aria-valuemax": last })));
  handles.forEach((handle, i) => { handle.onkeydown = (event) => {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
      Home: -last, End: last, " ": 0, Enter: 0 }[event.key];
    if (by === undefined || locked) return;
    event.preventDefault();
    active = Math.floor(i / size);
    put(i, (points[i] ?? middle) + by);
    paint();
  }; });
  const buttons = names.length < 2 ? [] : names.map((name, s) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name,
      className: `series-${s}`, onclick() { active = s; paint(); } });
    button.dataset.series = name;
    return button;
  });
  form.querySelector(".predict-series").append(...buttons);
  svg.onpointerdown = (event) => {
    if (locked) return;
    svg.setPointerCapture(event.pointerId);
    stroke(event);
  };
  svg.onpointermove = (event) => { if (svg.hasPointerCapture(event.pointerId)) stroke(event); };
  svg.onlostpointercapture = () => {             // one stroke a series: the next one follows
    const end = nearest();
    if (!passed.has(end) && away(end) < 12) pass(end, at.y);
    const next = names.findIndex((_, s) => !whole(s));
    if (whole(active) && next >= 0) active = next;
    paint();
  };
  form.onreset = () => { points.fill(null); active = 0; };

  // The guess in the covered figure, in every frame of an explorer.
  const named = document.getElementById(data.target), shown = [named, ...covers].map((element) =>
    element?.closest("svg[data-box]") ?? element?.querySelector("svg[data-box]")).find(Boolean);
  const frame = shown?.closest(".explorer-frame");
  function overlay() {
    const figure = frame ? frame.querySelector("svg[data-box]") : shown;
    if (!figure) return;
    const group = curves(figure, "guess", locked ? points.map((level) => values[level]) : []);
    const [left, top] = figure.dataset.box.split(" ").map(Number);
    const size = figure.viewBox.baseVal.width * 0.032;
    if (group.firstChild) draw(group, "text", { x: left + size, y: top + size, "font-size": size }, "dashed: your guess");
  }
  if (frame) new MutationObserver(overlay).observe(frame, { childList: true });

  return {
    ask: `Draw all points first${names.length > 1 ? ", one line each for " + names.join(" and ") : ""}.`,
    guess: () => !points.includes(null) && [...points],
    show(guess) {
      locked = guess !== undefined;
      if (locked) points.forEach((_, i) => { points[i] = guess ? guess[i] : null; });
      paint();
      curves(svg, "measured", locked ? data.answers : []);
      overlay();
    },
  };

  function draw(parent, name, attributes, text = "") {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    set(node, attributes);
    node.textContent = text;
    return parent.appendChild(node);
  }

  function set(node, attributes) {
    for (const key in attributes) node.setAttribute(key, attributes[key]);
  }

  // Where a value lies in an SVG that carries its axes' box, limits and scales: functions of x and of y.
  function axes({ dataset: { box, xlim, ylim, xscale, yscale } }) {
    const numbers = (text) => text.split(" ").map(Number), [left, top, width, height] = numbers(box);
    const along = (limits, scale, from, to) => {
      const f = scale === "log" ? Math.log : Number, [low, high] = numbers(limits).map(f);
      return (value) => from + (to - from) * Math.min(1, Math.max(0, (f(value) - low) / (high - low)));
    };
    return [along(xlim, xscale, left, left + width), along(ylim, yscale, top + height, top)];
  }
};
