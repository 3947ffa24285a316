"""quiz(): an exercise that is answered in the built page too, where its checker has replied to every choice."""

import html
import itertools

import ipywidgets as widgets
from IPython.display import HTML, display

from . import building
from .predict import embedded, legend_of, radios, texts


def fields_of(choices):
    """{field: {label: option}} of a quiz's choices; a single list has the field ""."""
    if isinstance(choices, dict) and choices and all(isinstance(options, list) for options in choices.values()):
        return {field: dict(zip(texts(f"choices[{field!r}]", options, 2), options, strict=True))
                for field, options in choices.items()}
    answers = choices.values() if isinstance(choices, dict) else choices
    return {"": dict(zip(texts("choices", choices, 2), answers, strict=True))}


def replied(check, answer):
    """The checker's reply; ValueError or TypeError that names the call where it has none."""
    try:
        reply = check(answer)
    except Exception as error:
        raise ValueError(f"{check.__name__}({answer!r}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(reply, str) or not reply.strip():
        raise TypeError(f"{check.__name__}({answer!r}) must return a sentence, got {reply!r}")
    return reply


def replies_of(check, fields, kind):
    """{labels, one a field: reply}, the last field fastest; ValueError where the exercise would not be fair."""
    replies = {}
    for labels in itertools.product(*fields.values()):
        parts = {field: fields[field][label] for field, label in zip(fields, labels, strict=True)}
        answer = parts[""] if "" in fields else parts if kind is dict else tuple(parts.values())
        replies[labels] = replied(check, answer)
    wrong = [reply for reply in replies.values() if not reply.startswith("Right")]
    if len(wrong) == len(replies):
        raise ValueError(f"choices must have a right one, but {check.__name__} says 'Right' to none: {list(replies)}")
    if "" in fields and len(set(wrong)) < len(wrong):
        raise ValueError(f"choices must each have a reply of their own where they are wrong, got {wrong!r}")
    return replies


def quiz(check, choices, question="Your answer", kind=tuple):
    """An exercise: `check(answer)` returns a sentence, "Right..." to a right answer alone. `choices` is a list of
    answers, a dict {label: answer} or, for answers of several parts, {field: list of options}: then the answer is a
    tuple of options, or {field: option} with `kind=dict`. One must be right, and in a single list each wrong one has
    a reply of its own; ValueError otherwise, which fails the build."""
    if not getattr(check, "__name__", "").isidentifier():
        raise ValueError(f"check must be a function with a name (the form's id), got {check!r}")
    fields = fields_of(choices)
    replies, legend = replies_of(check, fields, kind), legend_of(question)
    if building():
        groups = "".join(f"<fieldset><legend>{html.escape(field)}</legend>{radios(field, options)}</fieldset>" if field
                         else radios("answer", options) for field, options in fields.items())
        return display(HTML(
            f'<form class="quiz" id="{html.escape(check.__name__)}" autocomplete="off"><fieldset disabled>'
            f'<legend>{legend}</legend>{groups}<p><button type="submit">Check</button></p></fieldset>'
            '<p class="needs-script">Answering here needs JavaScript; in Jupyter and Colab the code answers.</p>'
            f'<output></output>{embedded(list(replies.values()))}</form>'))
    said, button = widgets.HTML(), widgets.Button(description="Check")
    controls = [widgets.RadioButtons(options=list(options), value=None, description=field,
                                     layout={"width": "max-content"}) for field, options in fields.items()]

    def tell(_):
        said.value = html.escape(replies.get(tuple(control.value for control in controls), "Choose first."))

    button.on_click(tell)
    display(widgets.VBox([widgets.HTML(f"<b>{legend}</b>"), *controls, button, said]))
