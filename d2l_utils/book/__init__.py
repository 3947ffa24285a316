"""What makes the pages alive and their numbers true."""

import os


def building():
    """Whether this kernel runs for the build of the book (the Sphinx extension sets D2L_BOOK), and not for a reader."""
    return bool(os.environ.get("D2L_BOOK"))
