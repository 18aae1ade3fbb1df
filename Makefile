# The three things a newcomer types: make demo, make test, make check.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check clean
.DELETE_ON_ERROR:

demo: .venv/runtime
	$(BIN)/python docs/demo.py

test: .venv/dev
	$(BIN)/python -m pytest

check: .venv/dev build/types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=build/types $(BIN)/mypy --config-file pyproject.toml -p vqcodec
	MYPYPATH=build/types $(BIN)/mypy --config-file pyproject.toml tests/typing_cases.py
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	ls -l dist
	$(BIN)/python -m pytest

.venv/runtime: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/runtime
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The folders under their import name, for mypy and editors.
build/types: Makefile codec
	rm -rf $@
	mkdir -p $@/vqcodec
	ln -s $(CURDIR)/codec/* $(CURDIR)/cli $(CURDIR)/pretrained $@/vqcodec/
	rm -f $@/vqcodec/__pycache__

clean:
	rm -rf .venv build dist demo *.egg-info
