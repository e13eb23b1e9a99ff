# make demo      install, fetch a small real encoder, train three tasks on the bundled corpus, write a page about it
# make test      install with development tools, run the tests
# make test-all  the same and the tests that take minutes
# make coverage  the tests, and which lines they run: half as much time again
# make check     lint, types, import floors
# make docs      run the code that the pages show; the pages of docs/ as a site in site/, warnings are errors
# make parity    the tests against PyTorch's implementations and the real encoder
# make hand-in   the course's prediction files by the best recipes, trained here: DATA=path/to/cs224n; SIZE=base takes
#                the encoder of the paper's size
# make bench     our step and epoch beside PyTorch's: DATA=path/to/cs224n for the real files, PCGRAD=path/to/Pytorch-PCGrad
# make weights-base  an encoder of the paper's size, all-mpnet-base-v2: 410 MB to download
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported, and keeps that for later processes: all modules at once would take a
# third of the installation.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile
MODEL := weights/minilm/model.safetensors
MODEL_BASE := weights/mpnet/model.safetensors

.PHONY: demo test test-all coverage check docs parity hand-in bench weights weights-base clean

demo: $(VENV)/installed $(MODEL)
	$(BIN)/mtbert train configs/demo.toml --overwrite
	$(BIN)/mtbert report runs/demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m ""

coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks --disable-error-code arg-type --disable-error-code assignment --disable-error-code dict-item \
		--disable-error-code index --disable-error-code misc --disable-error-code union-attr --no-warn-unused-ignores
	$(BIN)/lint-imports

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "page and not slow" tests/docs
	@echo "site: site/index.html, which can be opened as a file; or: $(BIN)/python -m http.server -d site"

parity: $(VENV)/installed-parity $(MODEL)
	$(BIN)/python -m pytest -n 2 --dist worksteal -rs tests/parity

DATA ?= examples/data
SIZE ?= small
ifeq ($(SIZE),base)
HAND_IN ?= mpnet_best mpnet_cfimdb
HAND_IN_MODEL := $(MODEL_BASE)
else ifeq ($(SIZE),small)
HAND_IN ?= minilm_best minilm_cfimdb
HAND_IN_MODEL := $(MODEL)
else
$(error SIZE=$(SIZE): it is small or base)
endif
hand-in: $(VENV)/installed $(HAND_IN_MODEL)
	for name in $(HAND_IN); do \
		$(BIN)/mtbert train configs/$$name.toml --data-dir $(DATA) --resume && $(BIN)/mtbert submission runs/$$name || exit; \
	done

PCGRAD ?= .
bench: $(VENV)/installed-parity $(MODEL)
	PYTHONPATH=$(PCGRAD) $(BIN)/python benchmarks/step.py --out benchmarks/results/step.json
	PYTHONPATH=$(PCGRAD) $(BIN)/python benchmarks/epoch.py --data-dir $(DATA) --out benchmarks/results/epoch.json

weights: $(MODEL)

$(MODEL): | $(VENV)/installed
	$(BIN)/python examples/fetch_encoder.py minilm weights/minilm

weights-base: $(MODEL_BASE)

$(MODEL_BASE): | $(VENV)/installed
	$(BIN)/python examples/fetch_encoder.py mpnet weights/mpnet

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[report]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e '.[dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed-dev
	$(INSTALL) -e '.[docs]'
	touch $@

$(VENV)/installed-parity: $(VENV)/installed-dev
	$(INSTALL) torch==2.13.0   # first and alone, so that nothing else picks a build with CUDA
	$(INSTALL) -e '.[dev,parity]'
	$(INSTALL) --no-deps smart-pytorch==0.0.4   # it would bring type stubs that hide NumPy's own
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
