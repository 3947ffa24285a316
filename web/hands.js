// The stored residual-20 in the reader's hands: brings each <figure class="hands">, with hands.html in it, to life. It
// loads nothing before its button is pressed. trainer.js, which comes first, has the module (net.c), which computes
// eight pictures at once: seven test pictures and, last, the reader's own.
"use strict";

(() => {
const {MODULE, bring, bytes, inflate, load, percent} = netTools;
const SIZE = 28, PIXELS = SIZE ** 2, LANES = 8, OWN = 7, INK = 220;
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function floats(planes) {  // float16, all upper bytes first: move the bits to float32's places, then mend the exponent
  const count = planes.length / 2, bits = new Uint32Array(count);
  bits.forEach((_, i) => { bits[i] = (planes[i] & 128) << 24 | (planes[i] & 127) << 21 | planes[count + i] << 13; });
  return new Float32Array(bits.buffer).map((value) => value * 2 ** 112);
}

async function loadNet() {
  await load("residual20.js");
  const values = floats(await inflate(residual20.weights));
  const net = (await WebAssembly.instantiate(bytes(MODULE))).instance.exports;
  if (!net.build(20, 16, LANES, 1, LANES, SIZE)) throw new Error("not enough memory");
  const view = (Kind, at, count) => new Kind(net.memory.buffer, at, count), count = net.parameter_count();
  view(Float32Array, net.parameters_at(), count).set(values.subarray(0, count));
  view(Float32Array, net.statistics_at(), values.length - count).set(values.subarray(count));
  const pictures = view(Uint8Array, net.pictures_at(), LANES * PIXELS);
  pictures.fill(0).set(await inflate(residual20.pixels));

  function ask(branches, shortcut) {  // the logits, ten for each picture
    branches.forEach((on, block) => net.scale_block(block, on, shortcut));
    net.take(0, 1);
    net.forward(0);
    return view(Float32Array, net.logits_at(), 10 * LANES);
  }

  // What a block gives, as [row][column][channel][picture].
  const map = (block, size) => view(Float32Array, net.map_at(2 * block + 2), 16 * SIZE * size * LANES);
  return {pictures, ask, map};
}

function paint(canvas, grey) {
  const image = new ImageData(canvas.width, canvas.height), pixels = new Uint32Array(image.data.buffer);
  pixels.forEach((_, i) => { pixels[i] = 0xff000000 | 0x10101 * Math.min(255, Math.trunc(grey(i))); });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function start(figure, {pictures, ask, map}) {
  const all = (selector) => [...figure.querySelectorAll(selector)];
  const [factor, status] = all("output"), [, clear, whole] = all("button"), [slider] = all("[type=range]");
  const [drawing, ...thumbnails] = all("canvas"), tiles = thumbnails.splice(LANES), items = all("li");
  const radios = all("[type=radio]"), boxes = all("[type=checkbox]"), verdicts = all("label b");
  const words = (selector) => all(selector).map((element) => element.textContent.trim());
  const classes = words("li"), names = words(".hands-pictures label"), blocks = words(".hands-blocks label");
  const picked = () => radios.findIndex((radio) => radio.checked);
  let pen = [SIZE / 2, SIZE / 2], waiting, telling;

  function show() {
    waiting = undefined;
    const lane = picked(), logits = ask(boxes.map((box) => box.checked), slider.value);
    const rows = names.map((_, i) => logits.subarray(10 * i, 10 * i + 10));
    const answers = rows.map((row) => row.indexOf(Math.max(...row)));
    const powers = Array.from(rows[lane], (logit) => Math.exp(logit - rows[lane][answers[lane]]));
    const shares = powers.map((power) => power / powers.reduce((sum, each) => sum + each));
    const undrawn = !pictures.subarray(OWN * PIXELS).some(Boolean), mute = undrawn && lane === OWN;
    items.forEach((item, i) => {
      const share = mute ? "" : percent(shares[i]);
      item.lastChild.textContent = share;
      item.style.setProperty("--share", share);
    });
    verdicts.forEach((verdict, i) => {
      const answer = classes[answers[i]];
      verdict.textContent = answer === names[i] ? "right" : i === OWN && undrawn ? "" : `→ ${answer}`;
      verdict.classList.toggle("hands-wrong", i !== OWN && answer !== names[i]);
    });
    paint(drawing, (i) => pictures[lane * PIXELS + i]);
    thumbnails.forEach((canvas, i) => paint(canvas, (j) => pictures[i * PIXELS + j]));
    tiles.forEach((canvas, block) => paint(canvas, tile(block, canvas, lane)));
    factor.textContent = slider.value;
    figure.dataset.answer = mute ? "" : classes[answers[lane]];
    clearTimeout(telling);
    telling = setTimeout(() => {  // once the reader's hand rests
      const off = blocks.filter((_, i) => !boxes[i].checked).join(", ");
      status.textContent = mute ? "Draw something." : `${classes[answers[lane]]}, ${percent(shares[answers[lane]])} (${
        off ? `without ${off}` : "all blocks"}, shortcuts × ${slider.value})`;
    }, 300);
  }

  function tile(block, {width, height}, lane) {  // four rows of channels
    const size = height / 4, across = width / size, values = map(block, size);
    return (i) => {
      const x = i % width, y = Math.floor(i / width), pixel = y % size * size + x % size;
      const channel = Math.floor(y / size) * across + Math.floor(x / size);
      return 255 * Math.sqrt(values[(pixel * 4 * across + channel) * LANES + lane] / largest[block]);
    };
  }

  function change() { waiting ??= requestAnimationFrame(show); }

  function own() {  // her picture begins as the one that she draws on
    if (picked() !== OWN) pictures.copyWithin(OWN * PIXELS, picked() * PIXELS, (picked() + 1) * PIXELS);
    radios[OWN].checked = true;
    change();
  }

  function draw(to) {
    own();
    const [dx, dy] = [to[0] - pen[0], to[1] - pen[1]];
    for (let i = 0; i < PIXELS; i++) {
      const x = i % SIZE + 0.5 - pen[0], y = Math.floor(i / SIZE) + 0.5 - pen[1], at = OWN * PIXELS + i;
      const along = Math.max(0, Math.min(1, (x * dx + y * dy) / (dx * dx + dy * dy || 1)));
      pictures[at] = Math.max(pictures[at], INK * Math.min(1, 2 - Math.hypot(x - along * dx, y - along * dy)));
    }
    pen = to;
  }

  const place = (event) => [event.offsetX, event.offsetY].map((at) => at * SIZE / drawing.clientWidth);
  drawing.onpointerdown = (event) => { draw(pen = place(event)); };
  drawing.onpointermove = (event) => { if (event.buttons) draw(place(event)); };
  drawing.onkeydown = (event) => {
    const move = ARROWS[event.key];
    if (!move) return;
    event.preventDefault();
    draw(pen.map((at, i) => Math.min(SIZE - 1, Math.max(1, at + move[i]))));
  };
  clear.onclick = () => { own(); pictures.fill(0, OWN * PIXELS); };
  whole.onclick = () => {
    for (const box of boxes) box.checked = true;
    slider.value = 1;
    change();
  };
  figure.oninput = change;
  ask(boxes.map(() => 1), 1);
  const largest = tiles.map(({height}, block) => map(block, height / 4).reduce((a, b) => Math.max(a, b)));
  for (const part of all("form, figcaption")) part.hidden = false;
  show();
}

function offer(figure) {
  const button = figure.querySelector("button"), status = figure.querySelector(".hands-status");
  figure.querySelector("p").hidden = true;
  button.hidden = false;
  button.onclick = async () => {
    button.disabled = true;
    status.textContent = "Loading.";
    try {
      start(figure, await loadNet());
      button.remove();
    } catch (error) {
      status.textContent = `It cannot be loaded: ${error.message}.`;
      button.disabled = false;
    }
  };
}

bring("hands", offer);
})();
