// Two weights: a click drops a ball on the surface, and it descends as the chapter's path() does, step by step.
(body, caption, data) => {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const weight = (name, value) => `<label>${name} <input type="range" min="-2" max="2" step="0.05" value="${value}">
    <output></output></label>`;

  // Contours at losses 0, 0.1, 0.5, 1, 2, 4, 8: the product is 1 plus or minus the root, for both kinds of net.
  const xs = Array.from({ length: 61 }, (_, i) => 0.05 * 80 ** (i / 60));             // from 0.05 to 4, in even factors
  const contour = (root, side) => `<polyline class="${root ? "" : "toy-solved"}" points="${xs.map((x) =>
    [side * x, -side * (1 + root) / x]).join(" ")}"/>`;
  const contours = [-2.83, -2, -1.41, -0.71, -0.32, 0, 0.32, 0.71, 1, 1.41, 2, 2.83].map((root) =>
    contour(root, 1) + contour(root, -1));
  const ticks = [-2, -1, 1, 2].map((n) => `<text x="${n}" y="0.2" text-anchor="middle">${n}</text>
    <text x="0.07" y="${0.06 - n}">${n}</text>`);
  body.innerHTML = `<div class="toy-controls">${weight("w₁", 0.1)}${weight("w₂", 0.2)}
    <button type="button">Drop a ball</button><button type="button" aria-pressed="false">Move the origin</button></div>
    <svg viewBox="-2.3 -2.3 4.6 4.6" role="img"><g class="toy-surface"><path d="M -4 0 H 4 M 0 -4 V 4"/>${contours.join("")}
    </g><path class="toy-axes" d="M -2.3 0 H 2.3 M 0 -2.3 V 2.3"/>${ticks.join("")}<polyline class="toy-path"/>
    <circle class="toy-ball" r="0.08"/></svg>`;
  const svg = body.querySelector("svg"), line = svg.querySelector(".toy-path"), ball = svg.querySelector("circle");
  const inputs = [...body.querySelectorAll("input")], [drop, move] = body.querySelectorAll("button");
  let origin = 0, start = null, timer = 0;

  function path() {
    const points = [start];
    for (let i = 0; i < data.steps; i++) {
      const [a, b] = points[i].map((w) => origin + w), slope = 2 * (a * b - 1);
      points.push([points[i][0] - data.lr * slope * b, points[i][1] - data.lr * slope * a]);
    }
    return points;
  }

  function roll() {
    cancelAnimationFrame(timer);
    const points = path(), last = points[data.steps], product = (origin + last[0]) * (origin + last[1]);
    const loss = (product - 1) ** 2, kind = origin ? "with shortcuts" : "plain";
    (function step(i) {
      line.setAttribute("points", points.slice(0, i + 1).map(([x, y]) => [x, -y]).join(" "));
      ball.setAttribute("cx", points[i][0]);
      ball.setAttribute("cy", -points[i][1]);
      if (i < data.steps) timer = requestAnimationFrame(() => step(i + 1));
    })(still ? data.steps : 0);
    const end = loss < 0.01 ? `it arrives: the product is ${product.toFixed(2)}` : loss < 100
      ? `it has not arrived: the product is ${product.toFixed(2)}, the loss ${loss.toFixed(2)}` : "it has flown off";
    const from = start.map((w) => w.toFixed(2)).join(", ");
    caption.textContent = `From (${from}), ${kind}: after ${data.steps} steps ${end}.`;
  }

  function show() {
    inputs.forEach((input) => { input.nextElementSibling.textContent = Number(input.value).toFixed(2); });
    svg.setAttribute("aria-label", `Loss of two layers, ${origin ? "with shortcuts" : "plain"}, over their weights`);
    svg.setAttribute("class", origin ? "toy-moved" : "");
    move.setAttribute("aria-pressed", origin === 1);
  }

  function letGo() {
    start = inputs.map((input) => Number(input.value));
    roll();
  }

  body.oninput = show;
  drop.onclick = letGo;
  svg.onclick = (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    [inputs[0].value, inputs[1].value] = [x, -y];
    show();
    letGo();
  };
  move.onclick = () => {
    origin = 1 - origin;
    show();
    if (start) roll();
  };
  show();
}
