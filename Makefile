# make demo   bounds and attacks on real digits; writes results/demo/
# make test   the test suite, but for its few long tests
# make test-slow  those that take more than 20 seconds: whole runs and trainings, several processes, long statistics
# make lint   ruff; make format mends what it can
# make types  pyright
# make wheel  the wheel, used outside of the checkout
# make bench  benchmarks (minutes)
# make accelerator  what an accelerator can show, within BUDGET seconds; installs nothing (DEVICE=cpu SIZE=tiny: a trial)
#
# Each target creates the environment it needs in .venv. To choose an interpreter and the place of its environment:
#     make test PYTHON=python3.12 VENV=.venv312
# Python 3.11 gets JAX 0.10, newer ones get the newest JAX: the two sets of versions in constraints.txt.

VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

# The first interpreter that is new enough, and runs (the name alone may be a stub that says "not found").
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
else ifneq ($(wildcard $(BIN)/python),)
# An environment that is there already is not made anew, and must not pass for another interpreter's.
VERSION := import sys; print(sys.version_info[:2])
ifneq ($(shell $(PYTHON) -c '$(VERSION)'),$(shell $(BIN)/python -c '$(VERSION)'))
$(error $(VENV) is not of the version of $(PYTHON): add VENV=another-folder, or `make clean` first)
endif
endif

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow lint types format bench accelerator wheel clean

demo: $(VENV)/.experiments
	$(BIN)/python -m experiments audit --preset demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m slow $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.experiments
	$(BIN)/python -m benchmarks.spine
	$(BIN)/python -m benchmarks.kendall
	$(BIN)/python -m benchmarks.second_order

# On a bare machine, with its own Python: nothing is installed. The environment here is taken where there is one.
BUDGET ?= 1500
OUT ?= accelerator
DATA ?= packed
SIZE ?= full
accelerator:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.accelerator --budget $(BUDGET) --output $(OUT) \
		--data-dir $(DATA) --size $(SIZE) $(if $(DEVICE),--device $(DEVICE))

# Build the wheel and use it outside of the checkout: what is missing from it fails here.
wheel: $(VENV)/.test
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/wheel/site build/wheel/*.whl
	for file in py.typed audit/page.html.j2 audit/words.md.j2 audit/style.css; do \
		test -f build/wheel/site/jaxattr/$$file || { echo "the wheel lacks jaxattr/$$file" >&2; exit 1; }; done
	cd build/wheel && PYTHONSAFEPATH=1 PYTHONPATH=site $(abspath $(BIN))/python -c \
		"import jaxattr as ja; assert 'site' in ja.__file__, ja.__file__; ja.fit, ja.models, ja.data, ja.defenses, ja.checkpoints; [ja.zoo.load(name) for name in ja.zoo.names()] or exit('no weights')"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "jaxattr needs Python 3.11 or newer with venv (on Debian and Ubuntu: apt install python3-venv); none was found. Install one, or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed: there is no such interpreter, or (on Debian and Ubuntu) apt install python3-venv" >&2; exit 1; }

$(VENV)/.experiments $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the '$*' environment into $(VENV) (minutes, once)"
	$(PIP_INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) .cache build dist
