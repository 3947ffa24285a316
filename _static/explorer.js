// Brings every explorer of the page to life: controls pick a frame, the URL's fragment remembers the last one moved.
// The markup is written by d2l_utils/book/explorer.py: one frame is in the page, the others are JSON. The page is the only
// state: its controls say which frame is shown, and the one it came with is kept in it, so that it may be saved as it stands.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const explorers = [...document.querySelectorAll("figure.explorer")].map(startExplorer);

  // "#curves?depth=56&shortcut=identity" -> the explorer "curves" shows that choice.
  function restore() {
    const [name, query] = location.hash.slice(1).split("?");
    const explorer = explorers.find(({ figure }) => encodeURIComponent(figure.id) === name);
    if (!explorer || !query) return;
    explorer.choose(new URLSearchParams(query));
    explorer.figure.scrollIntoView();
  }

  restore();
  window.addEventListener("hashchange", restore);
});

function startExplorer(figure) {
  const picture = figure.querySelector(".explorer-frame");
  const caption = figure.querySelector("figcaption > span");
  const axes = [...figure.querySelectorAll(".explorer-axis")].map((group) => startAxis(group, move));
  const index = () => axes.reduce((sum, axis) => sum * axis.options.length + axis.index, 0);  // the last axis is fastest
  const frames = JSON.parse(figure.querySelector("script").textContent);
  const kept = figure.querySelector(".explorer-first");
  const first = kept ? JSON.parse(kept.textContent) : [index(), picture.innerHTML, caption.textContent];
  frames.splice(first[0], 0, first.slice(1));
  const pictures = { [index()]: [...picture.children] };         // by index, parsed when they are first shown

  function show() {
    if (!figure.querySelector(".explorer-first")) keep(figure, first);
    const here = index();
    if (!pictures[here]) {
      const template = document.createElement("template");
      template.innerHTML = frames[here][0];
      pictures[here] = [...template.content.children];
    }
    picture.replaceChildren(...pictures[here]);
    caption.textContent = frames[here][1];
    figure.dispatchEvent(new Event("explorer-frame", { bubbles: true }));     // for what is drawn on a picture
  }

  function move() {
    show();
    const choice = new URLSearchParams(axes.map((axis) => [axis.name, axis.options[axis.index]]));
    remember(`#${encodeURIComponent(figure.id)}?${choice}`);
  }

  // Options that the query does not name, or names wrongly, stay as they are.
  function choose(query) {
    for (const axis of axes) {
      const index = axis.options.indexOf(query.get(axis.name));
      if (index >= 0) axis.set(index);
    }
    show();
  }

  return { figure, choose };
}

// [index, picture, caption] of the frame that the page came with, as JSON at the figure's end.
function keep(figure, first) {
  figure.append(Object.assign(document.createElement("script"), { type: "application/json", className: "explorer-first",
    textContent: JSON.stringify(first).replaceAll("</", "<\\/") }));
}

// One slider or group of buttons: { name, options, index, set(index) }; `moved` is called when the reader moves it.
function startAxis(group, moved) {
  const slider = group.querySelector("input");
  const buttons = [...group.querySelectorAll("button")];
  const axis = {
    name: group.dataset.axis,
    options: slider ? JSON.parse(slider.dataset.options) : buttons.map((button) => button.textContent),
    index: slider ? Number(slider.getAttribute("value"))
      : buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true"),
    set(index) {
      axis.index = index;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index));
      if (!slider) return;
      slider.value = index;
      slider.setAttribute("value", index);
      slider.setAttribute("aria-valuetext", axis.options[index]);
      group.querySelector("output").textContent = axis.options[index];
    },
  };
  if (slider) slider.oninput = () => { axis.set(Number(slider.value)); moved(); };
  buttons.forEach((button, i) => { button.onclick = () => { axis.set(i); moved(); }; });
  axis.set(axis.index);
  return axis;
}

// Browsers refuse to change the URL too often (Safari: 100 times in 30 s): then try again with the latest state.
let waiting = null;
function remember(fragment) {
  clearTimeout(waiting);
  try {
    history.replaceState(history.state, "", fragment);
  } catch {
    waiting = setTimeout(remember, 1000, fragment);
  }
}
