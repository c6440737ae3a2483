# Every command a person needs. Each works from a bare clone: the first one makes .venv and installs into it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed
PIP := $(RUN) -m pip --quiet --disable-pip-version-check

# Exact versions; some of them need Python 3.11.5, below which pip picks what pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
CONSTRAIN = $(if $(CONSTRAINTS),$(shell $(PYTHON) -c \
  'import sys; print("-c $(CONSTRAINTS)" if sys.version_info >= (3, 11, 5) else "")' 2>/dev/null))

comma := ,
space := $() $()
# Where types are checked at run time, tests that train or search take twice as long. So `make test`
# checks them in the tests of the blocks, which make few calls, and where each public function is
# called once. The grammar is left out: it makes millions of calls.
UNTYPED := transformer.corpora transformer.corpora.grammar transformer.corpora.phrases
TYPED := $(filter-out $(UNTYPED),$(subst /,.,$(basename $(wildcard transformer/*.py transformer/corpora/*.py)) \
  $(patsubst %/__init__.py,%,$(wildcard transformer/*/__init__.py))))
PYTEST := $(RUN) -m pytest -q -p no:nbval
TYPES := --jaxtyping-packages=$(subst $(space),$(comma),$(strip $(TYPED))),beartype.beartype
# A file is tested in one process, so that its fixtures are made once. Files begin in the order they
# are given: the long ones first, so that no process waits for the other at the end.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
REPOSITORY := tests/test_layout.py tests/test_repository.py
BLOCKS := $(patsubst %,tests/test_%.py,embeddings positional_encoding attention multi_head residual_norm feed_forward \
  encoder decoder model data example alignment torch_layouts lexicon target_vocab muon metrics nothing_changes)
# The last chapters take longest, so they come first.
NBVAL = $(RUN) -m pytest -q --nbval --nbval-current-env $(shell ls -r notebooks/*.ipynb) \
  --nbval-sanitize-with notebooks/nbval_sanitize.cfg
TRAIN := $(RUN) -c "from transformer.cpu import process; from transformer.recipes import trained_translator; \
  process.tune_allocator(); trained_translator()"
SOURCES = $(wildcard transformer tests figures benchmarks notebooks book)

# The form that exists of each pair in pyproject.toml: the notebook, else the module.
PAIRS := $(shell sed -n 's|^ *"notebooks//\(.*\)/ipynb,transformer//\(.*\)/py:percent".*|notebooks/\1.ipynb,transformer/\2.py|p' pyproject.toml)
PAIRED = $(foreach pair,$(PAIRS),$(firstword $(wildcard $(subst $(comma), ,$(pair)))))

NAME := mine

.PHONY: help course lab start test translator quick blocks lint types sync notebooks figures pages links book book-tests \
  review test-notebooks learners test-everywhere coverage wheel release-check mutants constraints bench \
  curves precision quality processes large clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1   \2/p' $(firstword $(MAKEFILE_LIST))

# Python compiles what it imports; compiling all packages at once would take a minute.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  || { echo "Python 3.10 or newer is needed, and \"$(PYTHON)\" is not; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Making .venv …"
	@rm -f $@
	@log=$$($(PYTHON) -m venv .venv 2>&1) \
	  || { echo "$$log" >&2; echo "$(PYTHON) could not make .venv: install its venv module (Debian, Ubuntu: python3-venv) and run make again." >&2; exit 1; }
	@echo "Installing PyTorch, Jupyter and the package (about a minute) …"
	@$(PIP) install --no-compile $(CONSTRAIN) -e ".[course,dev]"
	@touch $@

course: $(INSTALLED) ## run every chapter in order, train the translator, translate (10 to 15 minutes)
	@$(RUN) notebooks/course.py

OWN := $(if $(filter command,$(origin NAME)),$(NAME)/)

lab: $(INSTALLED) ## the course in JupyterLab, or your own folder (make lab NAME=mine; options: ARGS="--port 8899")
	@JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter" $(RUN) -m jupyterlab \
	  --LabApp.default_url=/lab/tree/$(OWN)notebooks/00_introduction.ipynb $(ARGS)

start: $(INSTALLED) ## a folder of your own with the exercises, or bring it up to date (make start NAME=mine)
	@$(RUN) -m transformer course start $(NAME)

# The tests train a translator of their own, once for each clone.
test translator quick blocks test-notebooks learners test-everywhere coverage book book-tests: export TRANSFORMER_CACHE = $(CURDIR)/.cache/transformer
# Chapter 13 downloads 300 MB where it may.
course test blocks test-notebooks learners test-everywhere book book-tests: export HF_HUB_OFFLINE = 1
# Two at a time: the translator is trained on one core, and the checks take the other.
test: $(INSTALLED) ## everything that must hold: lint, types, pairs, unit tests, notebooks (about 20 minutes)
	@$(MAKE) -j 2 translator lint types blocks
	@echo "Running the notebooks, comparing their outputs, and testing the package …"
	@OMP_NUM_THREADS=1 $(NBVAL) tests $(patsubst %,--ignore=%,$(REPOSITORY) $(BLOCKS)) $(TWO)

translator: $(INSTALLED)
	@echo "Training the translator that tests and chapters use (3 or 4 minutes; kept in .cache) …"
	@mkdir -p .cache
	@OMP_NUM_THREADS=1 $(TRAIN) > .cache/training.log 2>&1 || { cat .cache/training.log >&2; exit 1; }

quick: $(INSTALLED) ## the unit tests that neither train nor run notebooks (two minutes)
	@OMP_NUM_THREADS=1 $(PYTEST) tests $(TWO) -m quick

blocks: $(INSTALLED) ## the tests of the repository, and of the blocks with types at run time (part of make test)
	@echo "Checking the repository and the blocks: pairs in sync, lengths, environment, shapes …"
	@OMP_NUM_THREADS=1 $(PYTEST) $(TYPES) $(REPOSITORY) $(BLOCKS) $(TWO)

test-notebooks: $(INSTALLED) ## run every notebook and compare its outputs
	@echo "Running the notebooks and comparing their outputs …"
	@OMP_NUM_THREADS=1 $(NBVAL) $(TWO)

# Without types at run time, as readers have the package: the classes of their folder are others.
LEARNERS := tests/test_learners.py tests/test_course_notebooks.py tests/test_course_diagnosis.py \
  tests/test_course_failures.py

learners: $(INSTALLED) ## what the course promises a learner, over all chapters (half an hour)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q $(LEARNERS) -m slow --timeout=3600 -rP --durations=20

# Without these two, a kernel that has vector instructions and threads is all that was ever tested.
CAPABILITIES ?= default avx2 avx512
THREADS ?= 1 2

test-everywhere: $(INSTALLED) ## the tests that take minutes, then all of them on every kind of CPU, in random order (an hour)
	@echo "Nearly two hundred kills, ten thousand damaged files …"
	@$(RUN) -m pytest -q tests -m slow --timeout=3600
	@failed=""; for capability in $(CAPABILITIES); do for threads in $(THREADS); do \
	  export ATEN_CPU_CAPABILITY=$$capability OMP_NUM_THREADS=$$threads; \
	  echo "ATEN_CPU_CAPABILITY=$$capability, $$threads threads, random order …"; \
	  $(PYTEST) $(TYPES) -o addopts="--strict-markers -m 'not slow'" tests $(REPOSITORY:%=--ignore=%) $(TWO) || failed="$$failed, tests on $$capability with $$threads"; \
	  $(NBVAL) $(TWO) || failed="$$failed, notebooks on $$capability with $$threads"; \
	done; done; \
	[[ -z $$failed ]] || { echo "Failed: $${failed#, } threads." >&2; exit 1; }

coverage: $(INSTALLED) ## lines and branches of the package that the tests reach, and whether they are enough
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests --cov --cov-report=term-missing:skip-covered $(TWO)

# The new environment reads the dependencies of .venv, but neither its packages' hooks nor this folder:
# what it imports as `transformer` is the wheel.
WHEEL := .cache/wheel

wheel: $(INSTALLED) ## build the package, install it into an empty environment, and try it there
	@$(PIP) install "build>=1.2" "twine>=6.1"
	@rm -rf dist $(WHEEL)
	@echo "Building …"
	@$(RUN) -m build --outdir dist >/dev/null
	@$(RUN) -m twine check --strict dist/*
	@diff <(find transformer -name '*.py' -o -name '*.sha256' -o -name py.typed -o -name '*.json' -o -name '*.safetensors' \
	    -o -name '*.toml' -o -path 'transformer/explorer/page/*' | sort) \
	  <($(RUN) -m zipfile -l dist/*.whl | sed -n 's|^\(transformer/[^ ]*\).*|\1|p' | sort) \
	  || { echo "The wheel (>) does not hold the package (<)." >&2; exit 1; }
	@$(RUN) tests/distributions.py dist
	@echo "Trying the wheel …"
	@$(RUN) -m venv $(WHEEL)
	@ls -d $(CURDIR)/.venv/lib/python*/site-packages > $$(echo $(WHEEL)/lib/python*/site-packages)/dependencies.pth
	@$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl
	@$(WHEEL)/bin/python -I -c 'import transformer; print(transformer.__version__, transformer.__file__)' \
	  | grep -F "$(WHEEL)"
	@cd $(WHEEL) && bin/transformer-course --help >/dev/null && bin/transformer-course translate --help

release-check: $(INSTALLED) ## whether the version, the changelog and the address are ready (make release-check TAG=v0.1.0)
	@$(RUN) tests/release.py $(TAG)

review: $(INSTALLED) ## what reviewers of courses and of software ask, and where it is met
	@$(RUN) tests/review.py

# Both compare with peers, which get an environment of their own; Multi30k is downloaded, or read from $MULTI30K.
DEVICE ?= cpu
PEERS := .venv/.peers

$(PEERS): benchmarks/requirements.txt $(INSTALLED)
	@echo "Installing the peers …"
	@$(PIP) install -r $<
	@touch $@

bench: $(PEERS) ## speed and memory beside other libraries, into benchmarks/ and the README (half an hour; DEVICE=cuda)
	@$(RUN) -m benchmarks --device $(DEVICE)
	@$(RUN) -m benchmarks.newcomer
	@$(RUN) -m benchmarks.draw

curves: $(PEERS) ## time and memory against length, batch, width and depth, into benchmarks/
	@$(RUN) -m benchmarks.curves
	@$(RUN) -m benchmarks.draw

precision: $(PEERS) ## BLEU by precision, in training and in translating, into benchmarks/ (half an hour)
	@$(RUN) -m benchmarks.precision
	@$(RUN) -m benchmarks.draw

RECIPE ?= multi30k-en-de
SEEDS ?= 1 2 3

quality: $(INSTALLED) ## BLEU of a recipe over seeds, into benchmarks/ and the README (two hours; RECIPE=… SEEDS=…)
	@$(RUN) -m benchmarks.quality --recipe $(RECIPE) --seed $(SEEDS) --table
processes: $(INSTALLED) ## one process with two threads or two with one, also beside a busy loop (ten minutes)
	@$(RUN) -m benchmarks.processes

large: $(INSTALLED) ## five million pairs: time until training starts, and memory (half an hour)
	@$(RUN) -m benchmarks.large_corpus

# Sphinx and its theme; npm brings MathJax, and the runtime of the page in which the model runs.
SPHINX := .venv/.sphinx

$(SPHINX): book/requirements.txt $(INSTALLED)
	@echo "Installing Sphinx …"
	@$(PIP) install -r $<
	@touch $@

book: $(SPHINX) ## the web book, into book/_build/html (a minute; needs npm; ARGS=--without-live trains no translator)
	@$(RUN) -m book $(ARGS)

book-tests: $(SPHINX) ## build the book and look at every page of it in a browser (ten minutes; needs npm and Chromium)
	@$(PIP) install "playwright>=1.50"
	@OMP_NUM_THREADS=1 $(PYTEST) $(TYPES) -m slow tests/test_book.py tests/test_book_browser.py

mutants: $(INSTALLED) ## change the library line by line, and list the changes that no test notices (half an hour)
	@$(PIP) install "mutmut>=3.8"
	@rm -rf .cache/mutants && mkdir -p .cache/mutants
	@cp -r transformer tests notebooks pyproject.toml .cache/mutants
	@cd .cache/mutants && OMP_NUM_THREADS=1 $(CURDIR)/$(RUN) -m mutmut run --max-children 2
	@cd .cache/mutants && $(CURDIR)/$(RUN) -m mutmut results

lint: $(INSTALLED) ## ruff: mistakes and format (part of make test)
	@echo "Linting …"
	@$(RUN) -m ruff check --quiet --output-format=concise $(SOURCES)
	@$(RUN) -m ruff format --check --quiet $(SOURCES) \
	  || { echo "Some files are not formatted: $(RUN) -m ruff format <file>, then make sync." >&2; exit 1; }

types: $(INSTALLED) ## pyright: types (part of make test)
	@echo "Checking types …"
	@$(RUN) -m pyright

sync: $(INSTALLED) ## make notebooks and modules equal again; the newer form of each pair wins
	@$(RUN) -m jupytext --sync --quiet $(PAIRED)

notebooks: sync ## run every notebook and keep its outputs (maintainers)
	@$(RUN) notebooks/course.py --write

figures: $(INSTALLED) ## draw every figure again
	@$(RUN) figures/draw.py

pages: $(INSTALLED) ## write the tables that pages and chapters take from data
	@$(RUN) notebooks/pages.py

links: $(INSTALLED) ## write each chapter's links to Colab and Binder (make links ADDRESS=https://github.com/…)
	@$(RUN) notebooks/links.py $(ADDRESS:%=--address %)

constraints: $(INSTALLED) ## write the versions that .venv has into constraints.txt (maintainers)
	@{ sed -n '/^#/p' constraints.txt; $(RUN) -m pip freeze --all --exclude pip --exclude-editable \
	  | sed 's/+[a-z0-9]*$$//' | LC_ALL=C sort -f; } > .cache/constraints.txt
	@mv .cache/constraints.txt constraints.txt

clean: ## remove .venv, caches and the translator trained by the tests
	@rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis build dist book/_build *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
