"""predict() and predict_curve(): the reader commits to a guess before she sees what was measured.

In the built page a form covers what follows, up to the next heading or prediction, until she has (_static/predict.js);
with a kernel ipywidgets ask the same, and answer when a guess is made.
"""

import html
import math
import re
import zlib
from numbers import Real

import ipywidgets as widgets
import numpy as np
from IPython.display import HTML, display
from matplotlib.ticker import LogLocator, MaxNLocator

from . import building, check_text, distinct, fill, to_json


def number(value, unit=""):
    """A number in words: at least three digits, thousands set apart, no exponent."""
    text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def explained(replies, keys):
    """The replies in the order of `keys`, all empty where there are none; ValueError where only some have one."""
    replies = {str(key): reply for key, reply in (replies or dict.fromkeys(keys, "")).items()}
    if set(replies) != set(keys):
        raise ValueError(f"replies must have one for each of {list(keys)!r}, got {list(replies)!r}")
    return [replies[key] for key in keys]


def ask(kind, name, question, data, parts, buttons):
    """Display a question whose answer has `parts`, {name: options as texts}: in the built page the form of the template
    `kind`, with `data` for its script; with a kernel widgets, which at build would bring scripts from elsewhere into
    the page, and `buttons`: {label: what it says, a text or a function of the chosen options' indices}."""
    check_text(question, "question must be a text")
    if building():
        said = to_json(data)
        return display(HTML(fill(kind, kind=kind, name=name, question=question, data=data, parts=parts, json=said,
                                 version=zlib.crc32(said.encode()))))

    def tell(button):
        guess, said = [control.index for control in controls], buttons[button.description]
        reply.value = html.escape(said if isinstance(said, str) else "Choose first." if None in guess else said(guess))

    slider, reply = "texts" in data, widgets.HTML()
    widget = widgets.SelectionSlider if slider else widgets.RadioButtons
    controls = [widget(options=options, index=len(options) // 2 if slider else None, description=part,
                       layout={"width": "32em" if slider else "max-content"}, style={"description_width": "10em"})
                for part, options in parts.items()]
    row = widgets.HBox([widgets.Button(description=text) for text in buttons])
    for button in row.children:
        button.on_click(tell)
    rule = data["rule"] if "rule" in data else ""
    display(widgets.VBox([widgets.HTML(f"<b>{html.escape(question)}</b><br>{rule}"), *controls, row, reply]))


def listed(names, values):
    """The values in words, series by series."""
    size = len(values) // len(names)
    return "; ".join(f"{name} {', '.join(values[i * size:(i + 1) * size])}".strip() for i, name in enumerate(names))


def on_levels(limits, answers, unit, log, within, steps, replies):
    """What page and widgets must know of points {series: values} that are guessed on levels from low to high."""
    low, high = float(limits[0]), float(limits[-1])
    if not (0 if log else -math.inf) < low < high < math.inf:
        raise ValueError(f"the range must be (low, high) with low < high{', low > 0' * log}, got {limits!r}")
    flat = [float(value) for values in answers.values() for value in values]
    if wrong := [value for value in flat if not low <= value <= high]:
        raise ValueError(f"answer must lie in the range from {low:g} to {high:g}, got {wrong[0]!r}")
    steps = len(limits) - 1 if isinstance(limits, range) else round(20 * math.log10(high / low)) if log else steps
    levels = (np.geomspace if log else np.linspace)(low, high, steps + 1)
    values = [float(f"{value:.{2 if log else 6}g}") for value in levels]
    within = (2 if log else (high - low) / 10) if within is None else within
    if not within > (1 if log else 0):
        raise ValueError(f"within must be {'a factor above 1' if log else 'above 0'}, got {within!r}")
    rule = f"a factor of {within:g}" if log else number(within, "points" if unit == "%" else unit)
    said = listed(answers, [number(value, unit) for value in flat])
    return {"texts": [number(value, unit) for value in values], "values": values, "answers": flat,
            "names": list(answers),
            "truth": np.interp(flat, levels, range(steps + 1)).round(3).tolist(),
            "within": round(20 * math.log10(within) if log else within / (high - low) * steps, 3),
            "measured": f"measured: {said}.", "replies": explained(replies, ["low", "right", "high"]),
            "rule": f"Counts as right within {rule}."}


def judged(data, guess):
    """The reply to a guess, the index of an option or the level of each point. _static/predict.js says the same."""
    if "texts" not in data:
        return data["replies"][guess[0]]
    off = np.subtract(guess, data["truth"])
    side = 1 if np.abs(off).mean() <= data["within"] else 0 if off.mean() < 0 else 2
    said = listed(data["names"], [data["texts"][level] for level in guess])
    return f"{'Right. ' * (side == 1)}You said {said}; {data['measured']} {data['replies'][side]}"


def ask_guess(question, name, data, parts):
    """A prediction: `ask` with its two buttons."""
    ask("predict", name or "-".join(["predict", *re.findall(r"\w+", str(question).lower())[:8]]), question, data, parts,
        {"Commit": lambda guess: judged(data, guess), "Just show me": f"M{data['measured'][1:]}"})


def predict(question, options, answer, *, replies=None, unit="", log=False, within=None, steps=100, name=None):
    """Ask for a guess. `options` is a list, or a dict {option: reply}, and `answer` one of them or its index. Or
    `options` is a range (low, high) for a slider (`log`: in even factors), `answer` what was measured, right `within`
    so many units (log: such a factor), and `replies` is {"low", "right", "high": reply}. `name` is the form's id.
    Raises ValueError for what cannot be asked."""
    if isinstance(options, (tuple, range)) and all(isinstance(limit, Real) for limit in options):
        data = on_levels(options, {"": [answer]}, unit, log, within, steps, replies)
        return ask_guess(question, name, data, {"": data["texts"]})
    labels, replies = [*map(str, distinct("options", options))], options if isinstance(options, dict) else replies
    right = labels.index(str(answer)) if str(answer) in labels else answer
    if isinstance(right, bool) or right not in range(len(labels)):
        raise ValueError(f"answer must be one of {labels!r} or its index, got {answer!r}")
    said, measured = explained(replies, labels), f"measured: “{labels[right].rstrip('.')}”."
    data = {"answer": right, "measured": f"{measured} {said[right]}", "replies": [
        f"{'Right. ' * (i == right)}You said “{label.rstrip('.')}”; {measured} {said[i]}"
        for i, label in enumerate(labels)]}
    ask_guess(question, name, data, {"": labels})


def predict_curve(question, x, limits, answer, *, unit="", log=False, xlog=False, xlabel="x", ylabel="y", within=None,
                  replies=None, target=None, name=None):
    """Ask for a curve over the positions `x`, drawn between `limits` (low, high): `answer` is what was measured there,
    a list or {series: list}; right is a guess within so many units of it on average (`log`: within such a factor).
    The guess is also drawn into the first figure that was covered, or into the one whose id is `target`."""
    answers = answer if isinstance(answer, dict) else {ylabel: answer}
    if len(x) < 2 or list(x) != sorted(set(x)) or (xlog and x[0] <= 0):
        raise ValueError(f"x must be at least two rising positions{', above zero' * xlog}, got {list(x)!r}")
    if wrong := {series: len(values) for series, values in answers.items() if len(values) != len(x)}:
        raise ValueError(f"answer must have {len(x)} values a series, one for each x, got {wrong}")
    data = on_levels(limits, answers, unit, log, within, 100, replies)
    low, high = limits[0], limits[-1]
    locator = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)) if log else MaxNLocator(5, steps=[1, 2, 5, 10])
    data["ticks"] = [[tick, number(tick, unit)] for tick in locator.tick_values(low, high) if low <= tick <= high]
    data |= {"x": np.asarray(x).tolist(), "log": log, "xlog": xlog, "xlabel": xlabel, "ylabel": ylabel,
             "target": target, "rule": data["rule"][:-1] + " on average."}
    ask_guess(question, name, data, {f"{series}, {xlabel} {place}": data["texts"] for series in answers for place in x})
