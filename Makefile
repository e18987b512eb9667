# Works with GNU make 3.81 (macOS) and later. Once `make env` has run, nothing but `make lock` needs the network.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK  := build/lock

# Interpreter for `make env`; empty: the first of CANDIDATES that runs and is one of the tested versions.
PYTHON     ?=
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 python3.14
# Folder of `make demo`, options of pytest, options of `make lock`.
OUT        ?= runs/demo
PYTEST     ?=
UPGRADE    ?=

.DEFAULT_GOAL := help
.PHONY: help env demo test lint lock clean
# A recipe that fails or is interrupted must not leave its target behind.
.DELETE_ON_ERROR:

help:
	@echo "make env    create $(VENV) with the exact versions of requirements.txt (PYTHON=... picks the interpreter)"
	@echo "make demo   run the demo sweep into $(OUT) and write its report; continues where it stopped"
	@echo "make test   run all tests, two files at a time (PYTEST='-m \"not slow\" -x' passes options)"
	@echo "make lint   check format, lint and types"
	@echo "make lock   renew requirements.txt after a change of pyproject.toml (UPGRADE=--upgrade: newest versions)"
	@echo "make clean  remove $(VENV), builds and caches; keeps runs/"

env: $(STAMP)
	@:

# Nothing here runs while the stamp is younger than both files. The stamp goes first and comes back last.
$(STAMP): requirements.txt pyproject.toml
	@rm -f $(STAMP)
	@if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
	  python='$(PYTHON)'; \
	  if [ -z "$$python" ]; then \
	    for name in $(CANDIDATES); do \
	      if "$$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' >/dev/null 2>&1; then \
	        python=$$name; break; \
	      fi; \
	    done; \
	  fi; \
	  if [ -z "$$python" ]; then \
	    echo "make env: no Python 3.10 to 3.14 among $(CANDIDATES); install one, or name one: make env PYTHON=..." >&2; \
	    exit 1; \
	  fi; \
	  if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
	    echo "make env: PYTHON=$$python does not run, or is older than Python 3.10" >&2; exit 1; \
	  fi; \
	  rm -rf $(VENV); \
	  if ! "$$python" -m venv $(VENV); then \
	    rm -rf $(VENV); \
	    echo "make env: $$python cannot make virtual environments (on Debian: apt install python3-venv)" >&2; exit 1; \
	  fi; \
	fi
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: env
	@resume=''; if [ -f '$(OUT)/run.json' ]; then resume='--resume'; fi; \
	$(BIN)/dnad-ray sweep demo --out '$(OUT)' $$resume

test: env
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

lint: env
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# uv keeps the pins that still fit. CUDA packages are left out: see the comment that goes on top of the file.
lock: env
	@rm -rf $(LOCK) && mkdir -p $(LOCK) && cp requirements.txt $(LOCK)/requirements.txt
	@$(BIN)/python -m venv $(LOCK)/venv && $(LOCK)/venv/bin/python -m pip install --quiet uv
	@$(LOCK)/venv/bin/uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate \
	  $(UPGRADE) --output-file $(LOCK)/requirements.txt pyproject.toml
	@{ sed '/^[^#]/,$$d' requirements.txt; \
	  grep -v -E '^(nvidia-|cuda-|triton)' $(LOCK)/requirements.txt; } > $(LOCK)/new.txt
	@mv $(LOCK)/new.txt requirements.txt
	@rm -rf $(LOCK)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
