# `make quickstart` trains and tests a net, `make test` runs every check, `make exercise` writes the Keras exercise. All
# first install what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test coverage test-slow test-floors torture fuzz exercise pictures keras

quickstart: $(INSTALLED)
	$(BIN)/pet-cifar fit --config configs/digits_residual.yaml --test

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	# Where the environment keeps Python from it, every process that a test starts would compile the package anew.
	$(BIN)/python -m compileall -q pet_cifar
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not real_data and not torture and not slow" $(PYTEST_FLAGS)

# This measures how much of the package the tests reach, which makes them a third slower.
coverage:
	$(MAKE) test PYTEST_FLAGS="--cov=pet_cifar --cov-report=term:skip-covered --cov-fail-under=95"

# These tests take minutes each: two torchruns, nets that two processes divide.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# This makes the Keras exercise again, as exercise.html: `make exercise MODE=full DATA=DIR WEIGHTS=FILE`.
MODE ?= quick
exercise: $(INSTALLED)
	$(BIN)/pet-cifar exercise --mode $(MODE) $(if $(DATA),--data.root $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS))

# This makes the pictures of TensorBoard in docs/ anew, from two runs on digits. It needs Chromium.
pictures: $(INSTALLED)
	PET_CIFAR_SCREENSHOTS=docs PET_CIFAR_BOARD_EPOCHS=15 $(BIN)/python -m pytest -q tests/end_to_end/test_board.py \
		-k "light and (feature_maps or custom_scalars or confusion_matrix)"

# This kills runs, fills disks and hands in hostile files, and writes what was lost into docs/survival.md: all of it, or,
# with MINUTES=2, what begins within two minutes, which leaves the page as it is.
torture: $(INSTALLED)
	$(BIN)/python -W ignore -m tests.torture $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(ONLY),--only $(ONLY))

# This fuzzes the readers of strangers' files one after the other: `make fuzz RUNS=1000000`, or one with TARGET=decode.
RUNS ?= 10000
TARGET ?= decode manifest unpickle archive yaml
fuzz: $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[fuzz]'
	for target in $(TARGET); do nice $(BIN)/python -W ignore tests/torture/fuzz.py $$target -runs=$(RUNS) || exit 1; done

# This runs the tests on the lowest versions that setup.cfg admits.
test-floors:
	$(MAKE) VENV=.venv-floors UV_FLAGS="--resolution lowest-direct" .venv-floors/.installed
	.venv-floors/bin/python -m pytest -n 2 --dist worksteal -m "not real_data and not torture and not slow"

# benchmarks/keras_baseline.py runs in this environment. The versions are the newest pair that was measured.
keras: .venv-keras/.installed

.venv-keras/.installed:
	$(PYTHON) -m venv .venv-keras
	.venv-keras/bin/python -m pip install --quiet uv
	.venv-keras/bin/uv pip install --quiet --compile-bytecode --python .venv-keras/bin/python \
		keras==3.15.0 tensorflow==2.21.0 pillow scikit-learn
	@touch $@

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	# The bytecode is compiled now, because some environments keep Python from doing it later, and then every start takes
	# 10 s more.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(UV_FLAGS) --editable '.[test]'
	@touch $@
