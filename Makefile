# Two commands: `make demo` runs the main job, `make test` the tests. Each makes its environment by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo
export SEGPATCH_CAMVID ?= $(abspath ../shared/data/camvid)

.PHONY: demo test test-long coverage lint format docs clean

# The stamp is newer than what it was made from, so that a changed dependency installs again.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/segpatch demo --out $(DEMO_OUT) --overwrite

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two workers of one thread each: the tests' networks are too small for two threads to share.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not long' --numprocesses 2 --dist loadfile

test-long: $(VENV)/.ready
	$(BIN)/python -m pytest -m long

# At least 92 % of the lines of src, and of its branches.
coverage: $(VENV)/.ready
	mkdir -p build
	$(BIN)/python -m pytest -m 'not long' --cov --cov-report=json:build/coverage.json
	$(BIN)/python tests/covered.py build/coverage.json 92

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.ready
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

clean:
	rm -rf $(VENV) runs build dist
