# make setup | demo | pull | test | bench | lint | format: each installs what it needs first; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Small products on many cores wait for each other: every job of the workflow sets its own number of threads.
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo pull test bench lint format

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
		|| { echo "DiP needs Python 3.11 to 3.14; this is `$(PYTHON) --version`. Try: make PYTHON=python3.11 ..." >&2; exit 1; }
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
	OMP_NUM_THREADS=1 pytest tests/unit -m "not slow" -n 2
	OMP_NUM_THREADS=1 pytest tests/unit -m slow -n 2
	pytest tests/workflow -n 2 --dist loadfile
	pytest tests/slurm

# Ratios, each measured in one run; results in build/benchmarks. About an hour on 2 idle cores.
bench: setup
	mkdir -p build/benchmarks
	python benchmarks/speed.py sampling --run dip_xl_16 dit_26x1152 --rounds 2 --steps 5
	python benchmarks/speed.py training --run dip_xl_16 --backbone 768 12 12 --images 4 --rounds 2
	python benchmarks/peers.py --rounds 2
	python benchmarks/training.py saving --output build/benchmarks
	python benchmarks/training.py recompute --output build/benchmarks
	python benchmarks/loading.py
	python benchmarks/evaluation.py --output build/benchmarks/evaluation.json
	python benchmarks/recording.py
	python benchmarks/scaling.py

lint: setup
	ruff check src tests benchmarks workflow/recorded
	ruff format --check src tests benchmarks workflow/recorded
	snakefmt --check Snakefile workflow/rules
	mypy

format: setup
	ruff check --fix src tests benchmarks workflow/recorded
	ruff format src tests benchmarks workflow/recorded
	snakefmt Snakefile workflow/rules
