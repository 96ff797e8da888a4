# Each target makes .venv if it is missing and installs what it needs, at the versions that
# constraints.txt says were tested.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint chaos fuzz zoo clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py demo

# The report is tested in a browser: apt-get install chromium chromium-driver, as .ci/run does.
test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

chaos: $(VENV)/.dev
	$(BIN)/python tests/chaos.py --rounds 25

fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz_decoding.py --files 100000

# Every network at its full size: about an hour; goes on where it stopped.
zoo: $(VENV)/.dev
	$(BIN)/python -m benchmarks.zoo docs/zoo.md

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[keras,samples]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
