# `make` lists the targets. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
READY := .venv/.ready
COLAB := .venv/colab/.ready
WEB := .venv/web/.ready
# Two notebooks or test files side by side, with one thread each: a second thread would mostly wait for the first.
JOBS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1
BUILD := $(ONE_THREAD) D2L_JOBS=$(JOBS) $(BIN)/jupyter-book build . -W -n --keep-going
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest --durations 10
SIDE_BY_SIDE := -n $(JOBS) --dist loadscope
SLOW := back_matter build book browser packaging page predict toy web

.DEFAULT_GOAL := help
.PHONY: help setup book serve check test lint notebooks experiments bench address web clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## make .venv with everything in requirements.txt (PYTHON=python3.12 make setup: with that Python)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	    sys.exit(v < (3, 10) and "Python 3.10 or newer is needed, but $(PYTHON) is %d.%d. Try: PYTHON=python3.12 make book" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e .
	@touch $(READY)

$(COLAB): $(READY) tests/colab.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade --target .venv/colab -r tests/colab.txt
	@touch $(COLAB)

$(WEB): $(READY) tests/web.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade --target .venv/web -r tests/web.txt
	@touch $(WEB)

book: $(READY)  ## execute the notebooks and build the book into _build/html
	rm -rf _build/html _build/.doctrees
	$(BUILD)
	@test -f _build/html/index.html || { echo "The build left no _build/html/index.html." >&2; exit 1; }
	@echo "The book is built. Open _build/html/index.html, or run \`make serve\` to read it at http://localhost:$(PORT)."

serve:  ## serve the built book at http://localhost:8000 (PORT=8080 make serve: there)
	@test -f _build/html/index.html || { echo "There is no book yet: run \`make book\` first." >&2; exit 1; }
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

check: lint  ## check what is quick to check: style, the chapters' form, unit tests (3 minutes; twenty times a day)
	$(PYTEST) $(SIDE_BY_SIDE) tests $(SLOW:%=--ignore tests/test_%.py) -k "not smoke_corner"

test: lint $(COLAB) $(WEB)  ## check everything: the above, a clean book build, notebooks, site, browser, wheel (20 minutes)
	rm -rf _build
	$(MAKE) book
	$(PYTEST) $(SIDE_BY_SIDE) tests chapters --nbval --nbval-cell-timeout 120

lint: $(READY)  ## check the code's style, in files and notebooks, and the chapters' form (seconds)
	$(BIN)/ruff check .
	$(BIN)/python tools/chapter_rules.py

notebooks: $(READY)  ## bring chapters/*.ipynb into the form that is committed (no outputs, no timestamps)
	$(BIN)/python tools/notebooks.py

experiments: $(READY)  ## run every recorded experiment that is not finished (hours; a killed run goes on)
	for script in $(filter-out %/common.py experiments/_%,$(wildcard experiments/*.py)); do $(BIN)/python "$$script" || exit 1; done

bench: $(READY)  ## time what has a time limit, on the built book
	@test -f _build/html/index.html || { echo "There is no book yet: run \`make book\` first." >&2; exit 1; }
	$(PYTEST) tests -m bench -s -v

address: $(READY)  ## write the repository's address everywhere: make address URL=https://github.com/me/residual-networks
	$(BIN)/python tools/address.py "$(URL)"

web: $(WEB)  ## compile web/net.c into web/trainer.js, write pictures and weights (after a change of net.c or the net)
	$(BIN)/python web/build.py

clean:  ## remove what was built; .venv and results stay
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
