"""quiz(): an exercise that is answered in the built page too, where its checker has replied to every choice."""

import itertools

import numpy as np

from . import check_text, distinct
from .predict import ask


def replies_of(check, fields, kind):
    """The checker's replies to all choices of `fields`, {field: {label: option}} (a single list has the field ""), the
    last field fastest. ValueError or TypeError where it has none to one, or where the exercise would not be fair."""
    replies, name = [], check.__name__
    for options in itertools.product(*(field.values() for field in fields.values())):
        answer = options[0] if "" in fields else dict(zip(fields, options, strict=True)) if kind is dict else options
        try:
            replies.append(check(answer))
        except Exception as error:
            raise ValueError(f"{name}({answer!r}) failed: {type(error).__name__}: {error}") from error
        check_text(replies[-1], f"{name}({answer!r}) must return a sentence")
    wrong = [reply for reply in replies if not reply.startswith("Right")]
    if len(wrong) == len(replies):
        raise ValueError(f"choices must have a right one, but {name} says 'Right' to none of {fields}")
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
    several = isinstance(choices, dict) and choices and all(isinstance(options, list) for options in choices.values())
    fields = {}
    for field, options in (choices if several else {"": choices}).items():
        labels = map(str, distinct(f"choices[{field!r}]" if several else "choices", options))
        fields[field] = dict(zip(labels, options.values() if isinstance(options, dict) else options, strict=True))
    replies, sizes = replies_of(check, fields, kind), [len(options) for options in fields.values()]
    ask("quiz", check.__name__, question, replies, {field: list(options) for field, options in fields.items()},
        {"Check": lambda guess: replies[np.ravel_multi_index(guess, sizes)]})
