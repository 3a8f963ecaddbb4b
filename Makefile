# make setup | demo | pull | test | lint | format: each installs what it needs into .venv first; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Small products on many cores wait for each other: every job of the workflow sets its own number of threads.
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo pull test lint format

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "DiP needs Python 3.11 or 3.12; this is `$(PYTHON) --version`. Try: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	dip unlock
	snakemake --profile workflow/profiles/demo
	snakemake --profile workflow/profiles/demo --report results/demo/report.html

pull: setup
	dvc pull
	dip adopt

test: setup
	pytest tests/unit -m "not slow" -n 2
	pytest tests/unit/data tests/unit/launch tests/unit/training -m slow
	pytest tests/workflow -n 2 --dist loadfile
	pytest tests/slurm

lint: setup
	ruff check src tests benchmarks workflow/recorded
	ruff format --check src tests benchmarks workflow/recorded
	snakefmt --check Snakefile workflow/rules
	mypy

format: setup
	ruff check --fix src tests benchmarks workflow/recorded
	ruff format src tests benchmarks workflow/recorded
	snakefmt Snakefile workflow/rules
