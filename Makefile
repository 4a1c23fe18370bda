# The verbs of a developer's day. Each sets up its own virtual environment; a second run finds it ready.
#   make demo        the main job on generated data         make check    style, types, floors
#   make test        the test suite                         make clean    remove what the verbs made
#   make test-slow   the long checks as well            make soak     the device under load, hours
#   make viewer      the 3D viewer of the device's page, by npm
#   make container    the device's image with podman, buildah or docker; without one the same steps in build/container
#   make docs        the documentation as a site, in site/; broken links are errors
#   make evidence    docs/evidence-tables.md from the results that are there
# Another interpreter: make PYTHON=python3.12 test. Options of the demo: make demo ARGS="--minutes 0.5".

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
RUNTIME := $(VENV)/.installed-runtime
DEVELOPMENT := $(VENV)/.installed-development
DOCUMENTATION := $(VENV)/.installed-documentation

.PHONY: help demo test test-slow check soak viewer container docs evidence clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(RUNTIME)
	$(BIN)/focalis demo -o demo $(ARGS)

# Many tests wait for processes and sockets: half as many workers again as there are cores keep the cores busy. Without
# compiled modules each of the hundreds of processes that they start would compile Focalis anew. A worker that dies ends
# the run, and its test is named; pytest-xdist would replace it and then wait for ever.
unexport PYTHONDONTWRITEBYTECODE
test: $(DEVELOPMENT)
	$(BIN)/python -m pytest --numprocesses $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) * 3 // 2)') --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

test-slow: $(DEVELOPMENT)
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/lint-imports

# Results are kept in benchmarks/results/soak; one that is there is not made again. The long PET series comes from FOCALIS_DATA.
soak: $(DEVELOPMENT)
	$(BIN)/python benchmarks/soak.py --studies 500 --senders 8 --fail 0.2
	$(BIN)/python benchmarks/soak_fuzz.py
	test ! -d "$(FOCALIS_DATA)/dicom_qin_headneck_pet" || $(BIN)/python benchmarks/soak.py --fail 0 --series "$(FOCALIS_DATA)/dicom_qin_headneck_pet/image"

# NiiVue, bundled for the device's page; without it the page draws its slices itself. Needs npm and its registry.
viewer:
	cd viewer && npm ci --no-audit --no-fund && npm run build

# Debian's base image comes from a registry; ARGS="--build-arg DEBIAN=..." names another one.
ENGINE := $(firstword $(foreach engine,podman buildah docker,$(if $(shell command -v $(engine)),$(engine))))
container:
ifeq ($(ENGINE),)
	rm -rf build/container
	for step in dependencies wheel code check; do sh container/install.sh $$step build/container || exit 1; done
else
	$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) --tag focalis $(ARGS) .
endif

docs: $(DOCUMENTATION)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Trains nothing; benchmarks/evidence.py makes the results.
evidence: $(RUNTIME)
	$(BIN)/python benchmarks/evidence_page.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/comparison.py page
	$(BIN)/python benchmarks/lesions.py --page
	$(BIN)/python benchmarks/second_look.py table
	$(BIN)/python benchmarks/small_lesions.py table
	$(BIN)/python benchmarks/patch_sizes.py table
	$(BIN)/python benchmarks/whole_scans.py table

clean:
	rm -rf viewer/node_modules $(VENV) build dist demo site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The constraint on torch lets pip take a CPU build of that release wherever pip knows one (see README.md).
$(RUNTIME): pyproject.toml constraints.txt
	@echo "Setting up $(VENV); the first time takes a few minutes"
	@$(PYTHON) -c 'import sys; sys.exit("Focalis needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) torch --editable .
	@touch $@

# Of MONAI Label only its client is tested against; its dependencies would double the environment.
$(DEVELOPMENT): $(RUNTIME) examples/focalis-example/pyproject.toml
	@$(PIP_INSTALL) --editable '.[test,check]' --editable examples/focalis-example
	@rm -rf $(VENV)/share/monailabel
	@$(PIP_INSTALL) --no-deps --target $(VENV)/share/monailabel monailabel==0.8.5
	@touch $@

$(DOCUMENTATION): $(RUNTIME)
	@$(PIP_INSTALL) --editable '.[docs]'
	@touch $@
