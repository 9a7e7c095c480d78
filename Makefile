# make demo   `sparsebert halve` on a real model and real sentences, ending in an HTML report
# make test   the tests, against the package as it installs
# Both start from nothing but Python 3.10+ and a C++17 compiler, and are quick to start again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
DEMO_OUT ?= sparsebert-demo
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?= --random minilm
FUZZ_ARGS ?= --seconds 3600 --seed 1
FUZZ_NATIVE_ARGS ?= -max_total_time=3600

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CLIENTS := build/clients
NATIVE_FUZZER := build/native-fuzzer
WHEELS := build/wheels
SITE := build/site
SOURCES := pyproject.toml constraints.txt CMakeLists.txt requirements/build.txt \
	$(shell find src -type f -not -name '*.pyc' -not -name '.*' 2>/dev/null)
CXX_SOURCES = $(shell find src benchmarks tests -name '*.cpp' -o -name '*.h' -o -name '*.inl')

.PHONY: help demo test test-thorough test-arm test-clients fuzz fuzz-native check bench docs clean

help:
	@echo "make demo    halve a real model; ends with a report"
	@echo "make test    run the tests against the installed package (TEST_ARGS='-k name' for some)"
	@echo "make test-thorough  the same with what takes long: native tests, sanitizers, ... (what CI runs)"
	@echo "make test-arm  run the native tests on Arm CPUs emulated by QEMU"
	@echo "make test-clients  run the official clients of other servers against ours"
	@echo "make fuzz    read mutated files for an hour (FUZZ_ARGS='--seconds 60 --seed 2')"
	@echo "make fuzz-native  call the C++ engine for an hour, as libFuzzer chooses (needs cmake and clang)"
	@echo "make check   formatting, lint and types, Python and C++"
	@echo "make docs    build the documentation into $(SITE)"
	@echo "make bench   latency beside torch (BENCH_ARGS='--random bert-base --rounds 20')"
	@echo "make clean   remove the virtual environment, builds and caches"
	@echo
	@echo "Needs Python 3.10+ (another one: make demo PYTHON=python3.12) and a C++17 compiler."

demo: $(VENV)/.ready-demo
	@echo "==> Running the demo: it ends with a report in $(DEMO_OUT)"
	@$(BIN)/sparsebert demo --out $(DEMO_OUT) --force $(DEMO_ARGS)

bench: $(VENV)/.ready-demo
	@echo "==> Measuring latency: leave the machine alone meanwhile"
	@$(BIN)/sparsebert bench $(BENCH_ARGS)

# The tests build no second wheel: they are told where this one is. A worker for each core, a file at a
# time, for the fixtures of a file cost much; in one process: TEST_ARGS='-n 0'.
test: $(VENV)/.ready-dev
	@echo "==> Running the tests"
	@SPARSEBERT_WHEEL="$$(echo $(WHEELS)/*.whl)" $(BIN)/python -m pytest -n auto --dist loadfile $(TEST_ARGS)

# With the native tests and their sanitizers, several processes and fuzzed requests as well.
test-thorough: export SPARSEBERT_TEST_THOROUGH := 1
test-thorough: test

# Needs a cross-compiler and QEMU, and says so.
test-arm:
	@scripts/test-arm

# The clients have an environment of their own: what they ask for is theirs to say, and needs no torch.
test-clients: $(CLIENTS)/.ready
	@echo "==> Running the official clients against sparsebert serve"
	@$(CLIENTS)/bin/python -m pytest -W ignore tests/clients $(TEST_ARGS)

# Whatever is found is kept below build/fuzz, and its number repeats it: FUZZ_ARGS='--seed 1 --case 7'.
fuzz: $(VENV)/.ready-dev
	@echo "==> Reading mutated models, data and records"
	@mkdir -p build/fuzz
	@$(BIN)/python tests/fuzz/mutate_files.py --keep build/fuzz $(FUZZ_ARGS)

# What it finds is a file beside the program, which repeats it: build/native-fuzzer/native_fuzzer FILE.
fuzz-native:
	@echo "==> Building the native tests for libFuzzer"
	@cmake -S . -B $(NATIVE_FUZZER) -DSPARSEBERT_MODULE=OFF -DSPARSEBERT_FUZZER=ON \
		-DSPARSEBERT_SANITIZE=address -DCMAKE_CXX_COMPILER=clang++ >/dev/null
	@cmake --build $(NATIVE_FUZZER) --parallel >/dev/null
	@mkdir -p $(NATIVE_FUZZER)/corpus
	@$(NATIVE_FUZZER)/native_fuzzer -max_len=64 -len_control=0 -artifact_prefix=$(NATIVE_FUZZER)/ \
		$(FUZZ_NATIVE_ARGS) $(NATIVE_FUZZER)/corpus

check: $(VENV)/.ready-dev
	@echo "==> Checking the style: ruff format, ruff check, mypy, clang-format"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

docs: $(VENV)/.ready-docs
	@echo "==> Building the documentation"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)
	@echo "    $(SITE)/index.html; with a search: python3 -m http.server --directory $(SITE)"

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@echo "==> Looking at the system"
	@scripts/check-system $(PYTHON)
	@echo "==> Making a virtual environment in $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# One wheel for all: what is tested and shown is what installs.
$(WHEELS)/.built: $(VENV)/.made $(SOURCES)
	@echo "==> Building sparsebert and its C++ engine"
	@rm -rf $(WHEELS)
	@$(PIP) install --quiet --no-compile --no-deps --require-hashes -r requirements/build.txt
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(WHEELS) .
	@touch $@

# The wheel itself, always rebuilt (its version does not change with each edit). Byte code is made at the first
# import, of what is imported: for all of it pip would take a minute.
define install-wheel
	@$(1) -m pip --disable-pip-version-check install --quiet --no-compile --no-deps --force-reinstall $(WHEELS)/*.whl
endef

# What requirements/$(1).txt locks, each file by its hash; `scripts/lock` writes it.
define install-locked
	@$(2) -m pip --disable-pip-version-check install --quiet --no-compile --no-deps --no-build-isolation \
		--require-hashes -r requirements/$(1).txt
endef

# As a user has it: the newest of what the extra's ranges allow. Only torch's version is in constraints.txt.
$(VENV)/.ready-demo: $(WHEELS)/.built
	@echo "==> Installing sparsebert with what the demo needs (the first time: some minutes, mostly torch)"
	$(call install-wheel,$(BIN)/python)
	@$(PIP) install --no-compile --constraint constraints.txt "$$(echo $(WHEELS)/*.whl)[demo]"
	@touch $@

$(VENV)/.ready-dev: $(WHEELS)/.built requirements/dev.txt
	@echo "==> Installing sparsebert with what the tests need (the first time: some minutes, mostly torch)"
	$(call install-locked,dev,$(BIN)/python)
	@$(PIP) install --quiet --no-compile --constraint constraints.txt torch
	$(call install-wheel,$(BIN)/python)
	@touch $@

$(CLIENTS)/.ready: $(WHEELS)/.built requirements/clients.txt
	@echo "==> Installing sparsebert beside the official clients, in $(CLIENTS)"
	@$(PYTHON) -m venv $(CLIENTS)
	$(call install-locked,clients,$(CLIENTS)/bin/python)
	$(call install-wheel,$(CLIENTS)/bin/python)
	@touch $@

$(VENV)/.ready-docs: $(WHEELS)/.built requirements/docs.txt
	@echo "==> Installing sparsebert with what the documentation needs"
	$(call install-locked,docs,$(BIN)/python)
	$(call install-wheel,$(BIN)/python)
	@touch $@
