# `make demo` and `make test` work on a fresh clone: each first makes .venv and installs what it needs, once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

# Idle threads sleep instead of spinning, so that two processes on two cores do not slow each other down.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help install demo test check format bench

help:
	@echo "make demo     one small round of the data engine on photos and scenes, without a network"
	@echo "make test     run all tests (-m slow for the full published shapes is left to .ci/run)"
	@echo "make check    style and types"
	@echo "make format   rewrite the code in the project's style, and the tree in the README"
	@echo "make bench    speed and memory against transformers, about half an hour; benchmarks/RESULTS.md has ours"
	@echo "make install  make .venv with everything above"

install: .venv/.test

demo: .venv/.demo
	@echo "One small round of the data engine: images are labelled, learnt from, labelled again, and audited."
	@$(BIN)/python recipes/demo.py --out demo

test: .venv/.test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

check: .venv/.test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: .venv/.test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/python recipes/readme_tree.py

bench: .venv/.test
	@set -e; for script in vision decode_step caption eight_tasks many_images memory threads; do \
		$(BIN)/python benchmarks/speed/$$script.py --out speed.jsonl; done
	@$(BIN)/python benchmarks/cold_start.py

$(BIN)/python:
	@echo "Making .venv."
	@$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch and what the demo needs into .venv (minutes, the first time)."
	@$(PIP) torch
	@$(PIP) -e '.[demo]'
	@touch $@

# timm is a reference in tests. What it asks for, torchvision, is not needed there and breaks without its own torch.
.venv/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch and what the tests need into .venv (minutes, the first time)."
	@$(PIP) torch
	@$(PIP) -e '.[test]'
	@$(PIP) --no-deps timm
	@touch .venv/.demo $@
