# The front door. Every target sets up what it needs on first use; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo verilog sim synth density explore attention-cost kv-area alloc eval test test-full fuzz mutation lint clean setup-gen setup-all
.ONESHELL:
SHELL := /bin/sh
.SHELLFLAGS := -ec

# An interpreter of the version that was tried, if there is one; else whatever python3 is, to be refused by name.
ifndef PYTHON
PYTHON := $(or $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
endif
# What a user sets for other work stays out: assertions, encodings, pytest's and torch's settings. (What the children of
# a command see is cleared in shell/processes.py.)
export PYTHONUTF8 := 1
unexport PYTHONOPTIMIZE PYTHONWARNINGS PYTHONIOENCODING PYTHONINSPECT PYTHONSTARTUP PYTHONDEVMODE
unexport PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD TORCH_LOGS TORCH_SHOW_CPP_STACKTRACES PYTORCH_JIT

PRESET ?=
LIBERTY ?=
JOBS ?= 2
N ?=
TOP ?=
ARGS ?=

RUN := .venv/bin/python
OPTIONS = $(if $(PRESET),--preset "$(PRESET)")
PYTEST = $(RUN) -m pytest -n $(JOBS) --dist worksteal --junitxml=build/sim/junit.xml $(ARGS)

define HELP
make demo      generated Verilog runs real LLM tensors; build/demo/report.json and a table
make verilog   Verilog and a JSON sidecar for every top of a preset, in build/verilog/
make synth     area, gate equivalents and delay of every block; build/synth/report.json
make density   throughput per gate of the pre-aligned PEs, edges included, beside peers; build/density/report.json
make explore   digit sets, lanes, widths, registers, accumulators of the pre-aligned tile; build/density/exploration.json
make kv-area   the KV engine beside engines with arithmetic in every lane; build/synth/kv.json
make attention-cost  gate-cycles of attention from codes against dequantizing; build/attention/report.json
make alloc     widths for every channel of a KV cache from the loss: a plan; build/alloc/plan.safetensors, report.json
make eval      what KV caches keep of a model's quality per stored bit, on several texts; build/eval/report.json
make sim       every cocotb test in Verilator; JUnit XML in build/sim/
make test      lint, unit tests and simulations: what CI runs
make test-full everything, the largest builds too: nightly
make fuzz      the core under a random host and malformed packets, N scenarios; build/fuzz/report.json
make mutation  N small defects per netlist of a block (TOP), and which its tests notice; build/signoff/mutation.json
make lint      ruff and import-linter
make clean     remove build/

Variables:
  PRESET=name    configuration (verilog, synth); default: the generator's
  LIBERTY=path   standard cell library for synth (density, explore: libraries); several separated by spaces; none: generic gates
  PYTHON=path    interpreter for the virtual environment: CPython 3.11; 3.12 and 3.13 for verilog and synth
  JOBS=n         processes (sim, test, fuzz); default 2
  N=n            scenarios (fuzz), default 300; mutants (mutation), default 200
  TOP=name       block (mutation); default: all
  ARGS=...       further arguments of the command: ARGS="-k pe --seed random" (sim, test), any option (others)

Each target creates the virtual environment .venv on first use; verilog and synth need neither torch nor a
simulator and leave them out. pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf) say where
packages come from.
endef
export HELP

help:
	@printf '%s\n' "$$HELP"

setup-gen setup-all:
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on PATH: install CPython 3.11 or set PYTHON=" >&2; exit 1; }
	$(PYTHON) .ci/environment.py $(@:setup-%=%)

demo: setup-all
	@$(RUN) -m hosts.demo $(ARGS)

verilog: setup-gen
	@$(RUN) -m gen verilog $(OPTIONS) $(ARGS)

synth: setup-gen
	@$(RUN) -m gen synth $(OPTIONS) $(if $(LIBERTY),--liberty "$(LIBERTY)") $(ARGS)

kv-area: setup-gen
	@$(RUN) -m studies kv-area $(if $(LIBERTY),--liberty "$(LIBERTY)") $(ARGS)

density: setup-gen
	@$(RUN) -m studies density $(if $(LIBERTY),--liberty "$(LIBERTY)") $(ARGS)

explore: setup-gen
	@$(RUN) -m studies explore $(if $(LIBERTY),--liberty "$(LIBERTY)") $(ARGS)

attention-cost: setup-gen
	@$(RUN) -m studies attention-cost $(if $(LIBERTY),--liberty "$(LIBERTY)") $(ARGS)

alloc: setup-all
	@$(RUN) -m gen alloc $(ARGS)

eval: setup-all
	@$(RUN) -m studies eval $(ARGS)

sim: setup-all
	@rm -rf build/sim/junit build/sim/junit.xml
	$(PYTEST) -m sim

test: lint
	@rm -rf build/sim/junit build/sim/junit.xml
	$(PYTEST)

test-full: lint
	@rm -rf build/sim/junit build/sim/junit.xml
	$(PYTEST) --full

fuzz: setup-all
	@$(RUN) -m verif.core.fuzz --count $(or $(N),300) --jobs $(JOBS) $(ARGS)

mutation: setup-all
	@$(RUN) -m verif.mutation $(if $(TOP),--top "$(TOP)") --count $(or $(N),200) --jobs $(JOBS) $(ARGS)

lint: setup-all
	@$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	.venv/bin/lint-imports

clean:
	rm -rf build
