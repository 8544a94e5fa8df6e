# `make demo` and `make test` are all that a fresh clone needs. CI runs these same targets through .ci/run.
PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2 # processes of tests

BIN := .venv/bin
STAMP := .venv/.installed
NATIVE := $(wildcard adaptive_lstm/native/*/* adaptive_lstm/native/CMakeLists.txt)

# By environment, because -c would not reach the isolated build; the second name is the one that newer pip reads there.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.PHONY: demo test lint bench report install clean
.DEFAULT_GOAL := test

demo: install
	$(BIN)/adaptive-lstm demo

# By file, so that what a file prepares once is prepared once.
test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: install
	$(BIN)/python -m eval.latency

# Measures nothing: draws what eval/results holds, as build/report.html.
report: install
	$(BIN)/python -m eval.report

install: $(STAMP)

# Also compiles the extension, so an edited C++ file is rebuilt here.
$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -e '.[demo,dev,peers]'
	touch $@

clean:
	rm -rf adaptive_lstm_demo.png adaptive_lstm_calibration .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find adaptive_lstm policies tests eval -name __pycache__ -type d -prune -exec rm -rf {} +
