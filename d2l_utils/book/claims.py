"""claim(): a chapter's conclusion, in words, that fails the build when it stops holding."""

from IPython.display import display

from . import Words, check_text, fill, unbroken


def claim(text, holds):
    """Show `text` ticked when `holds` is true. Raises AssertionError(text) when it is false, and TypeError where
    `holds` is not one truth value (a whole array, say, or a function: those would always count as true)."""
    check_text(text, "text must be a sentence")
    value = holds.item() if getattr(holds, "ndim", None) == 0 else holds        # np.bool_, a torch bool
    if not isinstance(value, bool):
        raise TypeError(f"holds must be True or False (a bool, or one NumPy or torch bool), got {holds!r}")
    if not value:
        raise AssertionError(text)
    display(Words(fill("claim", text=unbroken(text))))
