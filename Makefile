PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint docs clean install

demo: install  ## install, then run the main job: fit, sample, score, complete, compress, report
	$(BIN)/ancestral quickstart

test: install  ## install, then run the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/build.py

install: $(STAMP)

# torch comes first and alone: the pinned release is a small CPU build, a looser range takes gigabytes.
$(STAMP): pyproject.toml constraints.txt $(wildcard src/ancestral/native/*.c src/ancestral/native/*.h src/ancestral/native/*.inc)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) build site
