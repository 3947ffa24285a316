// Two layer tables side by side: which is the first wrong row? nets: [{title, rows: [[layer, right, net's]], reply}].
(body, caption, { nets }) => {
  const asked = caption.textContent, found = nets.map(() => false);
  let shown = 0;

  const html = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt()};`);
  const button = (attributes, text) => `<button type="button" ${attributes}>${html(text)}</button>`;

  const title = (i) => nets[i].title + (found[i] ? " ✓" : "");
  const tab = () => body.querySelector(`[data-net="${shown}"]`);

  function show() {
    const tabs = nets.map((_, i) => button(`data-net="${i}" aria-pressed="${i === shown}"`, title(i))).join("");
    const rows = nets[shown].rows.map(([layer, right, mine], i) =>
      `<tr><td>${html(layer)}</td><td>${html(right)}</td><td>${button(`value="${i}"`, mine)}</td></tr>`).join("");
    body.innerHTML = `<div class="toy-controls">${tabs}</div><table><thead><tr><th>layer</th><th>as it should be</th>
      <th>this net</th></tr></thead><tbody>${rows}</tbody></table>${button('value="-1"', "Every row is right")}`;
  }

  function answer(chosen) {
    const { rows, reply } = nets[shown], wrong = rows.findIndex((row) => row[1] !== row[2]);
    found[shown] ||= chosen === wrong;
    tab().textContent = title(shown);
    if (chosen === wrong) return `Right. ${reply}`;
    if (chosen < 0) return "No: one of them is not.";
    return rows[chosen][1] === rows[chosen][2] ? "No: this row is as it should be."
      : "No: this row is wrong, but an earlier one was wrong first.";
  }

  body.onclick = (event) => {
    const target = event.target.closest("button");
    if (target?.dataset.net) {
      shown = Number(target.dataset.net);
      show();
      tab().focus();
      caption.textContent = asked;
    } else if (target) {
      body.querySelector("[value][aria-pressed]")?.removeAttribute("aria-pressed");
      target.setAttribute("aria-pressed", true);
      caption.textContent = answer(Number(target.value));
    }
  };
  show();
}
