# Each target is one command on a machine with Python 3.11 or newer and make: it sets up .venv by itself.

PYTHON ?= python3
VENV   ?= .venv
EXTRAS := batch,dev,notebook,postgres,rabbit,s3,samples,xrootd
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test test-slow check bench api-bench scaling-bench chaos rabbit-proof image-proof kubernetes-proof slurm-proof condor-proof hosts-proof clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    simulated collisions -> service -> tensor -> W mass, in a few minutes"
	@echo "make test    everything that CI runs"
	@echo "make test-slow  the long tests that CI does not run: benchmarks, more seeds, the W job through a real Slurm"
	@echo "make check   style, types and the direction of imports only"
	@echo "make bench   throughput against peers on this machine: benchmarks/latest.json and .png"
	@echo "make api-bench  what the API can take, against its goals: benchmarks/api.json"
	@echo "make scaling-bench  two workers against one, start and drain of a worker: benchmarks/scaling.json"
	@echo "make chaos   100 random kills of a service that works: chaos.json and .png, some 15 minutes"
	@echo "make rabbit-proof  let rabbit-fit fit an export, and compare: rabbit-proof/proof.json, some half hour, 10 GB"
	@echo "make image-proof  build the image with podman and run it locked in, some 10 minutes; root"
	@echo "make kubernetes-proof PROGRAMS=folder  the chart on a real Kubernetes: kubernetes-proof/*/proof.json, some half hour; root"
	@echo "make slurm-proof  the W job through a real Slurm, whose jobs are cancelled, scaled and taken over; root, some minutes"
	@echo "make condor-proof  the W job through a real HTCondor pool in a Debian 13 of its own: condor-proof.json; root, some 20 minutes; BINWORKS_CONDOR_ROOT=folder keeps the Debian"
	@echo "make hosts-proof  links between hosts (network namespaces) are cut in mid job: some minutes; root"
	@echo "make clean   remove all that these made, .venv and demo/ included"

demo: $(STAMP)
	@$(BIN)/binworks demo --out demo

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# those that kill processes and look at the clock run alone
test: check
	$(BIN)/python -m pytest -m "not slow and not faults" --numprocesses logical --dist loadfile
	$(BIN)/python -m pytest -m "not slow and faults"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

api-bench: $(STAMP)
	$(BIN)/python benchmarks/api.py --json

scaling-bench: $(STAMP)
	$(BIN)/python benchmarks/scaling.py --json

chaos: $(STAMP)
	$(BIN)/python tests/chaos/run.py --kills 100 --seed 1 --out chaos.json
	$(BIN)/python tests/chaos/run.py --kills 20 --seed 2 --real --out chaos-w.json

rabbit-proof: $(STAMP)
	$(BIN)/python tests/rabbit/prove.py --out rabbit-proof

image-proof: $(STAMP)
	$(BIN)/python tests/kubernetes/image.py --out image-proof

kubernetes-proof: $(STAMP)
	$(BIN)/python tests/kubernetes/prove.py --out kubernetes-proof $(if $(PROGRAMS),--programs $(PROGRAMS))

condor-proof: $(STAMP)
	$(BIN)/python tests/condor/prove.py

hosts-proof: $(STAMP)
	$(BIN)/python -m pytest -s tests/hosts/cuts.py

slurm-proof: $(STAMP)
	$(BIN)/python -m pytest -rs -m slow tests/test_service_slurm.py

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("binworks needs Python 3.11 or newer, $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"
	@touch $@

clean:
	rm -rf $(VENV) demo rabbit-proof image-proof kubernetes-proof benchmarks/api.json benchmarks/scaling.json benchmarks/latest.* chaos*.json chaos*.png condor-proof.json build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
