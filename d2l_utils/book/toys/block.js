// A block from pieces: what it is called, which shapes go through it, what it costs, and whether it runs at all.
(body, caption) => {
  const PIECES = { c: "3x3", k: "1x1", n: "norm", r: "ReLU", "+": "+" };
  const SHORTCUTS = { identity: "identity", zeros: "zeros", bare: "1x1", projection: "1x1, norm" };
  const SHAPES = { same: "64 → 64", half: "64 → 128, stride 2" };
  const OTHER = "Trains, and is a different net";
  const NAMES = {
    "cnrcn+r": "The original block (v1), He et al. 2015",
    "nrcnrc+": "The pre-activation block (v2), He et al. 2016",
    "knrcnrkn+r": "The bottleneck of ResNet-50, with the stride in its 3x3 (v1.5)",
    "nrknrcnrk+": "The pre-activation bottleneck, He et al. 2016",
    "cnrcnr+": `${OTHER}: behind a ReLU the branch can only add`,
    "cnrc+nr": `${OTHER}: the norm rescales the shortcut too`,
    "rcnrcn+": `${OTHER}: ReLU-only pre-activation`,
    "cnrcn+": `${OTHER}: no ReLU after the sum`,
    "crc+r": `${OTHER}: the original without norm`,
  };
  const button = ([key, text]) => `<button type="button" value="${key}">${text}</button>`;
  const group = (name, options) => `<span role="group" aria-label="${name}">${name}:
    ${Object.entries(options).map(button).join("")}</span>`;
  body.innerHTML = `<div class="toy-controls">${group("add", { ...PIECES, undo: "undo" })}
    ${group("shortcut", SHORTCUTS)}${group("block", SHAPES)}</div><ol class="toy-block"></ol>`;
  let block = "", shortcut = "identity", change = "same";

  // The shape after each piece, the costs, and what the sum raises.
  function trace() {
    const [out, stride] = change === "half" ? [128, 2] : [64, 1], shapes = [];
    const first = block.search(/[ck]/), strided = block.includes("c") ? block.indexOf("c") : first;
    let channels = 64, side = 56, inner = false, parameters = 0, adds = 0, error = "";
    function conv(size, from, to, places) {
      parameters += size * size * from * to;
      adds += size * size * from * to * places * places;
    }
    [...block].forEach((piece, i) => {
      if (piece === "n") parameters += 2 * channels;
      if ("ck".includes(piece)) {
        if (piece === "k") inner = i === first;            // a quarter of the channels from here on, or no longer
        if (i === strided) side /= stride;
        conv(piece === "c" ? 3 : 1, channels, inner ? out / 4 : out, side);
        channels = inner ? out / 4 : out;
      }
      shapes.push(`${channels}x${side}x${side}`);
      if (piece !== "+") return;
      const [to, places] = shortcut === "identity" ? [64, 56] : [out, 56 / stride], other = `${to}x${places}x${places}`;
      if (/bare|proj/.test(shortcut)) conv(1, 64, to, places);
      if (shortcut === "projection") parameters += 2 * to;
      if (other !== shapes[i]) error = `Raises at the sum: ${shapes[i]} and ${other} cannot be added.`;
    });
    const costs = ` ${parameters.toLocaleString("en")} parameters, ${(adds / 1e6).toFixed(1)} M multiply-adds.`;
    return { shapes, error, costs };
  }

  function name() {
    const sum = block.indexOf("+"), known = NAMES[block], pre = block.endsWith("+"), same = change === "same";
    if (!block) return "Nothing yet. A first 1x1 goes down to a quarter of the channels, a later one comes back up";
    if (block === "cnrcnr") return "The plain block";
    if (sum < 0) return "Without + the shortcut leads nowhere: a plain stack";
    if (!/[ck]/.test(block.slice(0, sum))) return `${OTHER}: nothing has been learned before the sum`;
    if (!known || known.startsWith(OTHER) || shortcut === "identity") return known || OTHER;
    if (shortcut === "zeros") return same ? known : `${known}, option A`;
    if (pre === (shortcut === "bare")) return `${known}, option ${same ? "C" : "B"}`;
    return `${OTHER}: the published projection has ${pre ? "no" : "a"} norm`;
  }

  function show() {
    const { shapes, error, costs } = trace();
    body.querySelector("ol").innerHTML = shapes.map((shape, i) =>
      `<li>${PIECES[block[i]]}<small>${shape}</small></li>`).join("");
    for (const button of body.querySelectorAll("button")) {
      const { value } = button;
      if (value in PIECES) button.disabled = block.length > 9 || (value === "+" && block.includes("+"));
      else if (value === "undo") button.disabled = !block;
      else button.setAttribute("aria-pressed", value === shortcut || value === change);
    }
    caption.textContent = error || `${name()}.${block && costs}`;
  }

  body.onclick = ({ target: { value } }) => {
    if (value in PIECES) block += value;
    else if (value in SHORTCUTS) shortcut = value;
    else if (value in SHAPES) change = value;
    else if (value === "undo") block = block.slice(0, -1);
    show();
  };
  show();
}
