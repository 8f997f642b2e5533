PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONPATH := $(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The longest first: with two jobs the others run beside it.
ENVIRONMENTS := ray trainers benchmarl
TESTS_trainers := d3rlpy minari mo_gymnasium pettingzoo tianshou torchrl trackers
TESTS_benchmarl := benchmarl
TESTS_ray := ray rllib

.PHONY: demo test test-slow $(ENVIRONMENTS:%=test-%) test-ecosystem check publish-check lint bench docs format

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/docs-ready: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Environments for the tests of tests/ecosystem: what a list asks for, and nothing else, since some ask for an older Gymnasium
# than they run with, in front of the libraries of $(VENV).
.venv-%/ready: $(VENV)/ready tests/ecosystem/%.txt
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-deps --requirement tests/ecosystem/$*.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo .venv-$*/lib/python*/site-packages)/libraries.pth
	touch $@

demo: $(VENV)/ready
	$(BIN)/python -m training.train --scenario serverless --allocator ppo-residual --total-steps 500000 --seed 0 --out runs/demo/my-ppo
	$(BIN)/python -m training.compare --scenario serverless --policies static round-robin adaptive receding-horizon runs/demo/my-ppo training/pretrained/ppo-residual-serverless --episodes 100 --seed 10000 --out runs/demo/serverless
	$(BIN)/python -m training.compare --scenario paper --policies static round-robin adaptive training/pretrained/ppo-paper --episodes 1 --seed 10000 --out runs/demo/paper
	@echo
	@echo "Figures:      runs/demo/serverless/comparison.png and runs/demo/paper/comparison.png"
	@echo "TensorBoard:  $(BIN)/tensorboard --logdir runs/demo/serverless/tensorboard    then open http://localhost:6006"

# Everything essential; `make check` runs the exhaustive cases too. Two processes share the cores, a file each, so that torch
# gets one thread in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(VENV)/ready
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/ready
	$(PYTEST) -m slow

# What other libraries make of the package, each in an environment that suits it; those whose versions agree with all of
# constraints.txt are tested by `make check`. With `--jobs 2 --output-sync=target`, as CI runs it, two at a time.
test-ecosystem: $(ENVIRONMENTS:%=test-%)

# A test that waits for five minutes ends all, and says where it waits; one that is skipped, as its library is absent, fails.
$(ENVIRONMENTS:%=test-%): test-%: .venv-%/ready
	.venv-$*/bin/python -m pytest --no-skips --override-ini faulthandler_timeout=300 --override-ini faulthandler_exit_on_timeout=true $(TESTS_$*:%=tests/ecosystem/test_%.py)

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pyright --project .ci/oldest_python.json

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
