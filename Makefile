# Everything a newcomer needs: `make demo` and `make test`. All paths are relative, so that a
# checkout may stand in a folder with spaces in its name.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
MINUTES ?= 30
SEED ?= 0
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-oldest test-newest soak examples clusters acceptance bench docs clean install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,privacy,llm,federated]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m surefoot.cli run all --size quick

test: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS)

# The declared versions, wheels only, beside the pinned torch; TESTS=FOLDER runs a part of the suite. Not
# trackio, which no transformers below 5 installs beside: with it nobody would see that 4.56 was not tested.
test-oldest: .venv-oldest/.installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n $(JOBS) $(TESTS)

test-newest: .venv-newest/.installed
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q -n $(JOBS) $(TESTS)

.venv-%/.installed: pyproject.toml constraints.txt $(STAMP)
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	grep '^torch==' constraints.txt > .venv-$*/torch.txt
	.venv-$*/bin/python -m pip install --quiet --no-deps -r .venv-$*/torch.txt
	echo $(if $(filter oldest,$*),"trackio; python_version < '3'") > .venv-$*/without.txt
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python -c .venv-$*/torch.txt --overrides .venv-$*/without.txt \
	  --only-binary :all: --prerelease if-necessary --no-binary surefoot --resolution $(if $(filter oldest,$*),lowest-direct,highest) -e '.[dev,privacy,llm,federated]'
	$(if $(filter oldest,$*),.venv-oldest/bin/python tests/versions.py --raised .venv-oldest)
	touch $@

# Kills, flipped bits, bad calls and liars, bounded in time; its table is the one of docs/reliability.md.
soak: $(STAMP)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED)

examples: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m acceptance tests/test_examples.py

# What a day's change may break, on a real Ray of two workers; the default suite has Dask and loky.
clusters: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m acceptance tests/test_clusters.py -k "same_bits and ray"

acceptance: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m acceptance

bench: $(STAMP)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -p no:xdist benchmarks

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv .venv-oldest .venv-newest .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks build dist site
