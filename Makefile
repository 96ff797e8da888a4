# Each target makes .venv if it is missing and installs what it needs, at the versions that
# constraints.txt says were tested.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test system lint chaos fuzz zoo compat docs clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py demo

# All of its set-up as well: root of Debian or Ubuntu gets the browser, Node and C that are missing,
# anybody else is told what to install. Two processes share the files; then what is marked `alone`.
test: system $(VENV)/.dev .venv-kfp/.done tests/node/node_modules
	$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadfile --no-loadscope-reorder --durations 20; \
	shared=$$?; $(BIN)/python -m pytest -m alone --durations 20 && exit $$shared

system:
	tests/setup/system $(PYTHON)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint cluster/docker/Dockerfile.full cluster/docker/Dockerfile.slim
	$(BIN)/shellcheck .ci/run tests/setup/onnxruntime-header tests/setup/system

chaos: $(VENV)/.dev
	$(BIN)/python tests/chaos.py --rounds 25

fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz_decoding.py --files 100000
	MUTATED_FILES=2000 $(BIN)/python -m pytest tests/test_hostile_files.py

# Every network at its full size: about an hour; goes on where it stopped.
zoo: $(VENV)/.dev
	$(BIN)/python -m benchmarks.zoo docs/zoo.md

# The main job on python3.10 to python3.13, as far as they are there; about ten minutes each.
# With pyenv: PYENV_VERSION=3.11:3.10:3.12:3.13 make compat
compat: $(VENV)/.demo
	$(BIN)/python tests/compat.py

# The pages in docs/, with references of commands and of the Python API, into build/docs.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@echo "wrote build/docs/index.html"

$(VENV)/.docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[docs]"
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[samples]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $@ $(VENV)/.demo $(VENV)/.docs

# Kubeflow's SDK pins requests, and so has an environment of its own.
.venv-kfp/.done: tests/setup/kfp.txt
	$(PYTHON) -m venv .venv-kfp
	.venv-kfp/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

tests/node/node_modules: tests/node/package.json
	rm -rf $@ # npm leaves out the parts of packages for this platform where it updates them
	npm install --prefix tests/node --ignore-scripts --no-package-lock --no-audit --no-fund --silent
	touch $@

clean:
	rm -rf $(VENV) .venv-kfp tests/node/node_modules .onnxruntime demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
