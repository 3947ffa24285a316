"""claim(): a chapter's conclusion, in words, that fails the build when it stops holding."""

import html

from IPython.display import display


class Claim:
    """A sentence that was checked; Jupyter shows it with a tick."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return f"\N{CHECK MARK} {self.text}"

    def _repr_html_(self):
        return f'<p class="claim"><span aria-label="checked">\N{CHECK MARK}</span> {html.escape(self.text)}</p>'


def claim(text, holds):
    """Show `text` ticked when `holds` is true. Raises AssertionError(text) when it is false, and TypeError where
    `holds` is not one truth value (a whole array, say, or a function: those would always count as true)."""
    if not isinstance(text, str) or not text.strip():
        raise TypeError(f"text must be a sentence, got {text!r}")
    value = holds.item() if getattr(holds, "ndim", None) == 0 else holds        # np.bool_, a torch bool
    if not isinstance(value, bool):
        raise TypeError(f"holds must be True or False (a bool, or one NumPy or torch bool), got {holds!r}")
    if not value:
        raise AssertionError(text)
    display(Claim(text))
