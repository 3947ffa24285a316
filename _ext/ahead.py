"""Sphinx extension: execute the book's notebooks a few at a time before the pages are read, where myst-nb would take
one after the other. They go into myst-nb's cache under the same keys, so that reading a page finds them there.

D2L_JOBS says how many at a time (one without it: then nothing happens here).
"""

import os
from concurrent.futures import ThreadPoolExecutor

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from sphinx.errors import ExtensionError
from sphinx.util import logging


def is_cached(cache, book):
    """Whether the cache has this notebook's outputs."""
    try:
        return bool(cache.match_cache_notebook(book))
    except KeyError:
        return False


def execute(app, env, docnames):
    """Execute the notebooks among the pages to be read that are not in the cache; fail with all that failed."""
    jobs, config = int(os.environ.get("D2L_JOBS", "1")), app.config
    if jobs < 2 or config.nb_execution_mode != "cache":
        return
    cache = get_cache(config.nb_execution_cache_path)
    paths = [env.doc2path(name) for name in docnames if env.doc2path(name).endswith(".ipynb")]
    books = {path: nbformat.read(path, as_version=4) for path in paths}
    books = {path: book for path, book in books.items() if not is_cached(cache, book)}

    def run(path):
        return single_nb_execution(books[path], os.path.dirname(path), config.nb_execution_timeout, allow_errors=False)

    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for path, result in zip(books, pool.map(run, books), strict=True):
            logging.getLogger(__name__).info(f"{path}: executed in {result.time:.1f} s")
            if result.err:
                failed.append(f"{path}: {result.err}")
            else:
                bundle = CacheBundleIn(result.nb, path, data={"execution_seconds": result.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    if failed:
        raise ExtensionError("\n".join(["notebooks that fail:", *failed]))


def setup(app):
    """Connect the above."""
    app.connect("env-before-read-docs", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
