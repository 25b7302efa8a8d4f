# The commands of the book. The work is done by `python -m dprlens` (lib/dprlens/cli.py).
PYTHON ?= python3
PROFILE ?= small
BIN := .venv/bin
# FROM_NOTHING=1: also train the models that come with the package (an hour or so)
export DPRLENS_FROM_NOTHING := $(FROM_NOTHING)
START := $(shell date +%s)
stage = @echo "== $(1) (at $$(( $$(date +%s) - $(START) )) s)"

# pytest on all cores, a process and a thread each
PYTEST := env OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8
LOG := _build/test-book.log
PASSED := _build/units-passed _build/tiny-passed
# some dozens of processes import the same modules: compile them once
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book quick test record nightly rules stability real lint lab serve run bench scale ship clean

# install, run the notebooks of a profile, render, say where to open the book: make book PROFILE=tiny
book: .venv/installed
	@$(BIN)/python -m dprlens book --profile $(PROFILE)

# the developer's loop, under a minute: lint, and the tests that train nothing
quick: lint
	$(call stage,quick tests)
	@$(PYTEST) --dist worksteal -m "not book and not real and not slow"

# lint, unit tests, every notebook at tiny from an empty cache, the book, and the book in a browser; what the book says
# is shown at the end (no shell stands between make and what it starts, so that a signal reaches all of it)
test: lint
	$(call stage,unit tests; beside them all notebooks at tiny from an empty cache and the book in a browser)
	@mkdir -p _build
	@rm -f $(PASSED) $(LOG)
	-@$(MAKE) --no-print-directory -k -j2 START=$(START) $(PASSED)
	@cat $(LOG)
	@ls $(PASSED) >/dev/null
	$(call stage,all passed)

_build/units-passed:
	@$(PYTEST) --dist loadscope -m "not book and not real"
	$(call stage,unit tests passed)
	@touch $@

_build/tiny-passed: export DPRLENS_CACHE := _build/test-cache
_build/tiny-passed:
	@rm -rf _build/test-cache _build/tiny
	@exec $(BIN)/python -m dprlens book --profile tiny >>$(LOG) 2>&1
	@exec $(BIN)/python -m dprlens baseline --profile tiny >>$(LOG) 2>&1
	@echo "== the book in a browser (at $$(( $$(date +%s) - $(START) )) s)" >>$(LOG)
	@exec $(PYTEST) --dist loadgroup -m book >>$(LOG) 2>&1
	@touch $@

# put the tiny book, from an empty cache, on record: what `make test` compares with
record: .venv/installed
	@rm -rf _build/test-cache _build/tiny
	@DPRLENS_CACHE=_build/test-cache $(BIN)/python -m dprlens book --profile tiny
	@DPRLENS_CACHE=_build/test-cache $(BIN)/python -m dprlens baseline --profile tiny --record

# the default book from nothing, its models too, compared with the results on record; some hours
nightly: export DPRLENS_FROM_NOTHING := 1
nightly: .venv/installed
	@rm -rf _build/nightly-cache _build/small
	@DPRLENS_CACHE=_build/nightly-cache $(BIN)/python -m dprlens book --profile small
	@DPRLENS_CACHE=_build/nightly-cache $(BIN)/python -m dprlens baseline --profile small

# how often the rules of claims are wrong where there is nothing, and what they find where there is something
rules: .venv/installed
	@$(BIN)/python -m benchmarks.rules

# every notebook in the real setting, on a small set of files and models in its formats; after `make test` it is quicker
real: .venv/installed-dev
	@DPRLENS_CACHE=_build/test-cache $(BIN)/python -m pytest -m real

# style, the direction of imports, types, the rules for notebooks, versions of steps; .pre-commit-config.yaml has the list, too
lint: .venv/installed-dev
	$(call stage,lint)
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m dprlens check
	@$(BIN)/python -m dprlens steps

# JupyterLab, with the explorer open; it asks nobody for news, updates or extensions
lab: .venv/installed
	@$(BIN)/jupyter lab notebooks/explorer.ipynb --LabApp.news_url=None \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly

# the rendered book at a local address
serve: .venv/installed
	@$(BIN)/python -m dprlens serve --profile $(PROFILE)

# one notebook with other parameters: make run NB=00 ARGS="-p seed 3"
run: .venv/installed
	@$(BIN)/python -m dprlens run $(NB) --profile $(PROFILE) $(ARGS)

# training and encoding beside sentence-transformers, in an environment of its own; probes beside scikit-learn
bench: .venv/installed
	@$(BIN)/python benchmarks/bench.py
	@$(BIN)/python benchmarks/probes.py

# do numbers of Table 1 depend on threads, BLAS kernels, the order of questions, or float noise?
stability: .venv/installed
	@$(BIN)/python benchmarks/stability.py

# encoding and searching 10,000 to 1,000,000 passages: time, memory, disk; an hour or so
scale: .venv/installed
	@$(BIN)/python benchmarks/scale.py --sizes 10000 100000 1000000 --out benchmarks/scale.json

# train the models that come with the package anew, and put them there; an hour or so
ship: .venv/installed
	@DPRLENS_FROM_NOTHING=1 DPRLENS_CACHE=_build/ship-cache $(BIN)/python -m dprlens book
	@DPRLENS_CACHE=_build/ship-cache $(BIN)/python -m dprlens ship

# remove what was built; artifacts/, the cache, stays
clean:
	@rm -rf _build

# the environment, made again when what it is made from changes: make PYTHON=python3.12 book
# (modules are compiled on all cores, but for the packages' own tests; some hold templates that are no Python)
.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(call stage,installing (some minutes the first time))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --no-compile --disable-pip-version-check -r requirements.txt -c constraints.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib || true
	@touch $@

# what tests and lint need besides
.venv/installed-dev: .venv/installed
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e .[dev] -c constraints.txt
	@touch $@
