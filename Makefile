# `make demo` and `make test` are all that a fresh clone needs. CI runs these same targets through .ci/run.
PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2 # processes of tests, and of fuzzing
MINUTES ?= 1 # of fuzzing, for LSTMs and for files each; SEED and CASES may be given too, and RECORD=1 keeps the counts

BIN := .venv/bin
STAMP := .venv/.installed
SERVICES := .venv/.services
NATIVE := $(wildcard adaptive_lstm/native/*/* adaptive_lstm/native/CMakeLists.txt)
# An editable install keeps a list of the Python files there were. This file is named by a checksum of that list: if it
# is missing, files were added, moved or removed, and the package is installed again.
MODULES := build/modules-$(shell find adaptive_lstm policies -name '*.py' | LC_ALL=C sort | cksum | cut -d ' ' -f 1)

# By environment, because -c would not reach the isolated build; the second name is the one that newer pip reads there.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.PHONY: demo test test-services fuzz lint bench report pages docs runtime-wheel wheels install clean measure
.DEFAULT_GOAL := test

demo: install
	$(BIN)/adaptive-lstm demo

# By file, so that what a file prepares once is prepared once.
test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# What needs Ray, which is large: `make test` skips these tests, and prints why.
test-services: $(SERVICES)
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/ray tests/serve/test_on_ray.py \
	  'tests/docs/test_code_blocks.py::test_python[docs/pages/ray.md]'

# Random cases on every instruction set of this machine. What fails is shrunk, and printed with a command that repeats it.
FUZZ := $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) $(if $(RECORD),--record eval/results)
fuzz: install
	$(BIN)/python -m tests.fuzz lstm --minutes $(MINUTES) --workers $(WORKERS) $(FUZZ)
	$(BIN)/python -m tests.fuzz files --minutes $(MINUTES) --workers $(WORKERS) $(FUZZ)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: install
	$(BIN)/python -m eval.latency

# Every record anew, on this machine and this commit, some hours; goes on where it was stopped. ZOO= names the models.
measure: $(SERVICES)
	$(BIN)/python -m eval.measure $(if $(ZOO),--zoo $(ZOO))
	$(MAKE) pages

# Measures nothing: draws the records in eval/results as build/report.html.
report: install
	$(BIN)/python -m eval.report

# The manual's measurement pages, and README's table (on the screen) and figures.
pages: install
	$(BIN)/python -m eval.report --docs docs/pages/measurements
	$(BIN)/python -m eval.report --readme

# The manual, as build/docs/index.html.
docs: install
	$(BIN)/python -m mkdocs build --strict -f docs/mkdocs.yml

# dist/adaptive_lstm_runtime-*.whl: numpy and safetensors are all that it needs.
runtime-wheel: install
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps -w build/wheel .
	$(BIN)/python .ci/runtime_wheel.py build/wheel/*.whl dist

# The sdist and manylinux_2_28 wheels, of the package and of the runtime, in dist/. The Pythons of PYTHONS must be here with
# their headers; aarch64 needs GCC's cross-compiler, named aarch64-linux-gnu-g++.
DIST ?= dist
PYTHONS ?= 3.10 3.11 3.12
ARCHS ?= x86_64 aarch64
wheels: install
	$(BIN)/python .ci/wheels.py $(DIST) --pythons $(PYTHONS) --archs $(ARCHS)

install: $(STAMP)

# Also compiles the extension, so an edited C++ file is rebuilt here.
$(STAMP): pyproject.toml constraints.txt $(NATIVE) $(MODULES)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -e '.[demo,dev,docs,peers,serve]'
	touch $@

$(SERVICES): $(STAMP)
	$(BIN)/python -m pip install 'ray[data,serve]'
	touch $@

$(MODULES):
	mkdir -p build
	rm -f build/modules-*
	touch $@

clean:
	rm -rf adaptive_lstm_demo.png adaptive_lstm_calibration .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .dmypy.json
	find adaptive_lstm policies tests eval -name __pycache__ -type d -prune -exec rm -rf {} +
