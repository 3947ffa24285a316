// Predictions and quizzes: what follows a prediction is covered until a guess is made, and the guess stays beside it.
// The markup is written by d2l_utils/book/predict.py and quiz.py. Guesses are kept in localStorage and nowhere else.
"use strict";
{
const linked = new Set();                      // explorers that a link into their state has uncovered
const visit = {};                              // the guesses of this visit, for browsers that refuse to store
const page = document.documentElement.classList;
page.add("predicting");                        // until all is covered, predict.css hides what follows a prediction

document.addEventListener("DOMContentLoaded", () => {
  try {
    document.querySelectorAll(".needs-script").forEach((sentence) => sentence.remove());
    document.querySelectorAll("form.quiz").forEach(startQuiz);
    const all = [...document.querySelectorAll("form.predict")].map(startPrediction);
    if (all.length) startPage(all);
  } finally {
    page.remove("predicting");
  }
});

function startPage(all) {
  document.querySelector(".predict-tally")?.remove();           // of a page that was saved as it stood
  const box = document.createElement("div");
  box.className = "predict-tally";
  box.innerHTML = '<p role="status"></p><button type="button">Start over</button>';
  all[0].form.closest("article, main, body").append(box);

  function tally() {
    const count = (test) => all.filter(test).length;
    const guessed = count((one) => one.guess), shown = count((one) => one.guess === null);
    const open = all.length - guessed - shown, ranged = guessed && all.some((one) => one.ranged);
    box.firstChild.textContent = [
      guessed && `You were right in ${count((one) => one.right)} of ${guessed}.`,
      shown && `Shown without a guess: ${shown}.`,
      open && `Still to be guessed on this page: ${open}.`,
      ranged && "A number or a curve is right within the range given with its question.",
    ].filter(Boolean).join(" ");
  }

  function follow() {                          // "#curves?depth=56" is a state of the explorer "curves"
    const [name, query] = location.hash.slice(1).split("?");
    if (query) linked.add(name);
    all.forEach((one) => one.update());
    tally();
  }

  box.lastChild.onclick = () => {
    linked.clear();
    if (location.hash.includes("?")) history.replaceState(history.state, "", "#");
    for (const { form, key } of all) {
      save(key, null);
      form.reset();
    }
    follow();
    all[0].form.querySelector("input, button").focus();
  };
  document.addEventListener("guessed", tally);
  window.addEventListener("hashchange", follow);
  follow();
}

function load(key) {
  if (key in visit) return visit[key];
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function save(key, state) {
  visit[key] = state;
  try { localStorage.setItem(key, JSON.stringify(state)); } catch { /* for this visit only */ }
}

// All outputs and what else stands on the page up to the next heading or prediction; of the code, what makes a claim.
function following(form) {
  const found = [];
  for (let node = form; ;) {
    while (!node.nextElementSibling) {
      node = node.parentElement;
      if (node.matches("section, article, main, body")) return found;
    }
    node = node.nextElementSibling;
    if (node.matches("section, h1, h2, h3, h4, h5, h6, .predict") || node.querySelector(".predict")) return found;
    const code = node.querySelector(".cell_input");
    if (code?.textContent.includes("d2l.claim(")) found.push(code);
    if (node.matches(".cell")) found.push(...node.querySelectorAll(".cell_output > *"));
    else if (!node.matches(".cell_input, script, style")) found.push(node);
  }
}

// "1 figure, 2 claims and 3 paragraphs"
function inWords(elements) {
  const count = {};
  for (const element of elements) {
    const has = (selector) => element.matches(selector) || element.querySelector(selector);
    const kinds = { pre: "output", "figure, svg, img, table": "figure", ".claim": "claim", "*": "paragraph" };
    const kind = kinds[Object.keys(kinds).find(has)];
    count[kind] = (count[kind] || 0) + 1;
  }
  const parts = Object.entries(count).map(([kind, n]) => `${n} ${kind}${n > 1 ? "s" : ""}`);
  return parts.join(", ").replace(/, ([^,]*)$/, " and $1");
}

function startPrediction(form) {
  const script = form.querySelector("script"), { version } = script.dataset, data = JSON.parse(script.textContent);
  const reply = form.querySelector(".predict-reply"), covers = following(form);
  const control = (data.x ? window.predictCurve : data.texts ? slider : choice)(form, data, covers);
  const one = { form, key: `${location.pathname}#${form.id}`, ranged: Boolean(data.texts), update };
  covers.forEach((element, i) => { element.id ||= `${form.id}-covers-${i + 1}`; });
  form.dataset.covers = covers.map((element) => element.id).join(" ");
  reply.id = `${form.id}-reply`;

  function update() {
    const state = load(one.key);
    one.guess = state?.version === version ? state.guess : undefined;         // null: shown without a guess
    const open = one.guess === undefined;
    form.querySelector("fieldset").disabled = !open;
    for (const element of covers) {
      const figures = [...element.querySelectorAll("figure:is(.explorer, .trainer)")];
      element.inert = open && !figures.some(({ id }) => linked.has(encodeURIComponent(id)));
      element.classList.toggle("covered", element.inert);
    }
    const still = covers.filter((element) => element.inert);
    const what = still.length ? `Covered until you have guessed: ${inWords(still.filter((element) => !element.matches(".cell_input")))}.` : "";
    form.querySelector(".predict-covers").textContent = what;
    control.show(one.guess);
    [one.right, reply.textContent] = open ? [false, ""] : judged(data, one.guess);
    form.classList.toggle("right", one.right);
  }

  function commit(guess) {
    save(one.key, { version, guess });
    update();
    const caption = covers.map((element) => element.querySelector("figcaption")).find(Boolean) || reply;
    caption.tabIndex = -1;
    if (caption !== reply) caption.setAttribute("aria-describedby", reply.id);
    caption.focus({ preventScroll: true });
    form.dispatchEvent(new Event("guessed", { bubbles: true }));
  }

  form.onsubmit = () => {
    const guess = control.guess();
    if (guess) commit(guess);
    else reply.textContent = control.ask;
    return false;
  };
  form.querySelector(".predict-show").onclick = () => commit(null);
  return one;
}

// A guess is a list: the index of the option, or the level of each point.
function choice(form, data) {
  const inputs = [...form.querySelectorAll("input")];
  return {
    guess: () => [inputs.findIndex((input) => input.checked)],
    show: (guess) => inputs.forEach((input, i) => {
      if (guess) input.checked = guess[0] === i;
      input.parentElement.classList.toggle("measured", guess !== undefined && i === data.answer);
    }),
  };
}

// Is a guess right, and what is said to it: for levels as judged() in predict.py says it.
function judged(data, guess) {
  if (!guess) return [false, `M${data.measured.slice(1)}`];
  if (!data.texts) return [guess[0] === data.answer, data.replies[guess[0]]];
  const off = guess.map((level, i) => level - data.truth[i]);
  const mean = (f) => off.reduce((sum, x) => sum + f(x), 0) / off.length;
  const right = mean(Math.abs) <= data.within, reply = data.replies[right ? 1 : mean(Number) < 0 ? 0 : 2];
  const size = guess.length / data.names.length, said = data.names.map((name, i) =>
    `${name} ${guess.slice(i * size, (i + 1) * size).map((level) => data.texts[level]).join(", ")}`.trim());
  return [right, `${right ? "Right. " : ""}You said ${said.join("; ")}; ${data.measured} ${reply}`];
}

function slider(form, data) {
  const group = form.querySelector(".predict-slider"), [input, output] = group.children;
  let touched = false;
  form.onreset = () => { touched = false; };
  input.oninput = () => { touched = true; tell(); };
  function tell() {
    output.textContent = data.texts[input.value];
    input.setAttribute("aria-valuetext", output.textContent);
  }
  return {
    ask: "Move the slider first.",
    guess: () => touched && [Number(input.value)],
    show(guess) {
      if (guess) input.value = guess[0];
      tell();
      if (guess === null) output.textContent = "";
      group.style.setProperty("--measured", data.truth[0] / input.max);
      group.classList.toggle("measured", guess !== undefined);
    },
  };
}

function startQuiz(form) {
  const replies = JSON.parse(form.querySelector("script").textContent), output = form.querySelector("output");
  const groups = [...form.querySelectorAll(".choices")].map((group) => [...group.querySelectorAll("input")]);
  form.querySelector("fieldset").disabled = false;
  form.onchange = () => { output.textContent = ""; form.classList.remove("right"); };
  form.onsubmit = () => {
    const chosen = (inputs) => inputs.findIndex((input) => input.checked);         // the last group is fastest
    output.textContent = replies[groups.reduce((sum, inputs) => sum * inputs.length + chosen(inputs), 0)];
    form.classList.toggle("right", output.textContent.startsWith("Right"));
    return false;
  };
}
}
