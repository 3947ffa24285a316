// A trained net in nine blocks, each in or out. What it then answers was measured, for all 512 sets: it is looked up.
// pictures: [[address, label]]; right: for each mask (bit i: block i + 1 is out) the right answers of each class, of
// `each`; answers: for each mask a text, one digit a picture.
(body, caption, { classes, pictures, each, right, answers }) => {
  const picture = ([address, label]) => `<li><img src="${address}" alt="picture: ${classes[label]}"><span></span></li>`;
  const block = (i) => `<button type="button" value="${i}" aria-label="block ${i + 1}">${i + 1}</button>`;
  const stages = [0, 1, 2].map((s) => `<span role="group" aria-label="stage ${s + 1}">stage ${s + 1}:
    ${[0, 1, 2].map((b) => block(3 * s + b)).join("")}</span>`).join("");
  body.innerHTML = `<div class="toy-controls toy-blocks">${stages}<button type="button" value="all">all in</button></div>
    <div class="toy-sides"><ol class="toy-pictures">${pictures.map(picture).join("")}</ol>
    <table><thead><tr><th>class</th><th>recognised</th></tr></thead><tbody>${classes.map((name) =>
      `<tr><td>${name}</td><td><i></i><b></b></td></tr>`).join("")}</tbody></table></div>`;
  let out = 0;

  function without() {
    const blocks = [...Array(9).keys()].filter((i) => out >> i & 1).map((i) => i + 1), last = blocks.pop();
    if (!last) return "All nine blocks";
    if (blocks.length === 8) return "No block at all";
    return blocks.length ? `Without blocks ${blocks.join(", ")} and ${last}` : `Without block ${last}`;
  }

  function show() {
    for (const button of body.querySelectorAll("button")) {
      if (button.value === "all") button.disabled = !out;
      else button.setAttribute("aria-pressed", !(out >> button.value & 1));
    }
    let good = 0;
    body.querySelectorAll("li").forEach((item, i) => {
      const answer = Number(answers[out][i]), wrong = answer !== pictures[i][1];
      item.className = wrong ? "toy-wrong" : "";
      item.lastChild.textContent = `${wrong ? "✗ " : ""}${classes[answer]}`;
      good += !wrong;
    });
    body.querySelectorAll("tbody tr").forEach((row, c) => {
      const share = `${Math.round(100 * right[out][c] / each)}%`;
      row.querySelector("i").style.width = `calc(0.7 * ${share})`;
      row.querySelector("b").textContent = share.replace("%", "\u00a0%");
    });
    const sum = right[out].reduce((a, b) => a + b), all = each * classes.length;
    caption.textContent = `${without()}: ${(100 * sum / all).toFixed(1)}\u00a0% of ${all.toLocaleString("en")} test
      pictures right, and ${good} of these ${pictures.length}.`.replace(/\s*\n\s*/, " ");
  }

  body.onclick = ({ target: { value } }) => {
    if (!value) return;
    out = value === "all" ? 0 : out ^ 1 << value;
    show();
    if (value === "all") body.querySelector("button").focus();
  };
  show();
}
