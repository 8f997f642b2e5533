PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONPATH := $(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-ray check publish-check lint bench docs format

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/docs-ready: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Ray asks for another Gymnasium, and so for an environment of its own.
RAY := .venv-ray
$(RAY)/ready: pyproject.toml constraints.txt constraints-ray.txt
	$(PYTHON) -m venv $(RAY)
	grep -v '^gymnasium==' constraints.txt | cat - constraints-ray.txt > $(RAY)/constraints.txt
	$(RAY)/bin/python -m pip install --quiet --constraint $(RAY)/constraints.txt torch --editable '.[ray]' pytest pytest-benchmark
	touch $@

demo: $(VENV)/ready
	$(BIN)/python -m training.train --scenario serverless --allocator ppo-residual --total-steps 500000 --seed 0 --out runs/demo/my-ppo
	$(BIN)/python -m training.compare --scenario serverless --policies static round-robin adaptive receding-horizon runs/demo/my-ppo training/pretrained/ppo-residual-serverless --episodes 100 --seed 10000 --out runs/demo/serverless
	$(BIN)/python -m training.compare --scenario paper --policies static round-robin adaptive training/pretrained/ppo-paper --episodes 1 --seed 10000 --out runs/demo/paper
	@echo
	@echo "Figures:      runs/demo/serverless/comparison.png and runs/demo/paper/comparison.png"
	@echo "TensorBoard:  $(BIN)/tensorboard --logdir runs/demo/serverless/tensorboard    then open http://localhost:6006"

# Everything essential; `make check` runs the exhaustive cases too. Two processes share the cores, a file each.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(VENV)/ready
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/ready
	$(PYTEST) -m slow

test-ray: $(RAY)/ready
	$(RAY)/bin/python -m pytest tests/ecosystem/test_ray.py tests/ecosystem/test_rllib.py

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

check: lint publish-check test test-slow

# Figures, tables and numbers of README and docs are those of the committed results; nothing is trained.
publish-check: $(VENV)/ready
	$(BIN)/python -m training.publish --check

bench: $(VENV)/ready
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-quiet

docs: $(VENV)/docs-ready
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	@echo "Pages: docs/_build/html/index.html"

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
