# `make demo` and `make test` do all set-up on a machine with Python 3.11 or 3.12. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# ruff does not follow the links in str_app: each file is visited once.
SOURCES := str_app models datasets serve tests scripts research examples

.PHONY: help install demo test lint types check format docs dist pages-test service-test triton-test bulk-test package-test docker-test compose-test deploy-test fonts clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed $(VENV)/.compiled  ## .venv with the tested versions; C++ compiled where there is a compiler

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13)' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or 3.12: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.compiled: $(VENV)/.installed models/kernels/__main__.py models/kernels/library.py $(wildcard models/kernels/cpp/*)
	@if command -v $${CXX:-c++} >/dev/null; then $(BIN)/python -m str_app.models.kernels; \
	else echo "no C++ compiler: convolutions and recurrent layers run by torch's operations, 1.65 times slower"; fi
	@touch $@

demo: install  ## read the samples, draw where the network looked, serve and POST them
	$(BIN)/python scripts/demo.py

test: lint types check  ## lint, types and all fast tests

lint: install  ## ruff
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: install  ## mypy
	$(BIN)/mypy
	$(BIN)/mypy research scripts

check: install  ## the fast tests, on two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

format: install  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: install  ## the documentation site, into site/, strict: links and anchors lead somewhere, the notebook runs
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@! grep -rnoE '<(script|img|link|iframe)[^>]*(src|href)="?https?://[^">]*' site --include='*.html' || \
		{ echo "the site loads these from other hosts"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow or not slow" tests/end_to_end/test_notebook.py

dist: install  ## the source archive and the wheel, into dist/
	$(BIN)/pip install --quiet --constraint constraints.txt build
	$(BIN)/python -m build

# Smaller or larger: make service-test FUZZ_INPUTS=1000 LOAD_SECONDS=20 LOAD_CLIENTS=16
FUZZ_INPUTS ?= 20000
LOAD_SECONDS ?= 300
LOAD_CLIENTS ?= 64

service-test: install  ## fuzz, load, faults and the page in Chromium (half an hour, two free cores, loopback; apt-get: chromium chromium-driver npm)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,service-tests]'
	FUZZ_INPUTS=$(FUZZ_INPUTS) LOAD_SECONDS=$(LOAD_SECONDS) LOAD_CLIENTS=$(LOAD_CLIENTS) \
		$(BIN)/python -m pytest -m slow tests/serve -s -o faulthandler_timeout=1800

triton-test: install  ## the GPU's kernels without a GPU: interpreted, then compiled for one (3 minutes)
	$(BIN)/pip install --quiet triton
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/models/gates/test_paths.py -k triton -o faulthandler_timeout=600
	$(BIN)/python -m pytest tests/models/kernels/test_triton_steps.py

# Smaller: make bulk-test BULK_CROPS=2000 BULK_MEMORY_CROPS=20000
BULK_CROPS ?= 20000
BULK_MEMORY_CROPS ?= 200000

bulk-test: install  ## bulk reading killed, damaged, timed, and its memory (an hour; two free cores, 3 GB of /tmp, Linux; brings Ray)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	BULK_CROPS=$(BULK_CROPS) BULK_MEMORY_CROPS=$(BULK_MEMORY_CROPS) \
		$(BIN)/python -m pytest -m slow tests/str_app/bulk tests/str_app/test_cli_synth.py \
		tests/str_app/test_cli_verbs.py tests/str_app/training/test_elastic.py -s -rs -o faulthandler_timeout=7200

package-test: install  ## the wheel beside Hugging Face's datasets, either installed first (2 minutes; needs pip's package index)
	$(BIN)/python -m pytest -m slow tests/end_to_end/test_wheel.py -o faulthandler_timeout=1800

pages-test: install  ## the commands of the how-tos and of the tutorial, all golden readings, the host for Node (10 minutes; npm)
	$(BIN)/python -m pytest -m slow tests/end_to_end --ignore tests/end_to_end/test_wheel.py \
		--ignore tests/end_to_end/test_notebook.py -s -rs -o faulthandler_timeout=1800

docker-test: install  ## build and run both images (needs a Docker engine: DOCKER_HOST or the default socket)
	bash scripts/docker_test.sh

compose-test: install  ## two replicas behind nginx, killed and replaced (needs a Docker engine and what docker-test built)
	bash scripts/compose_test.sh

deploy-test: install  ## nginx before real servers, manifests, unit, alerts (skips what is not installed)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,service-tests]'
	$(BIN)/python -m pytest tests/deploy -s -rs -o faulthandler_timeout=300

fonts:  ## fonts for `str-app synth` (Debian, as root)
	bash scripts/install_fonts.sh

clean:  ## remove the environment and caches, never runs/
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo_output
