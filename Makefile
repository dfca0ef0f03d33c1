# unmask: every target works alone in a fresh clone; `make` lists them.
#
# Variables, each optional:
#   PYTHON=...              interpreter that makes .venv; by default the first of python3.11, ... with venv in it
#   UNMASK_TORCH_INDEX=...  extra package index to find PyTorch on. On Linux x86-64 the default index serves a CUDA build of several
#                           gigabytes; an index of CPU builds is preferred to it when one is named here (the version stays pinned)
#   WORKERS=2               test processes, each with one thread

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?=
UNMASK_TORCH_INDEX ?=
WORKERS ?= 2

# Touched when an installation is complete; older than pyproject.toml, or absent, means install.
RUN := .venv/.unmask-run
DEV := .venv/.unmask-dev
DOCS := .venv/.unmask-docs

ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
PYTEST := $(ONE_THREAD) .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

# $(call install,REQUIREMENT): .venv with REQUIREMENT in it, whatever state the last attempt left it in.
#
# .venv/.incomplete exists while packages are being written. Where it is found at the start, the last attempt was killed and the folder
# can't be trusted, so it is made anew; pip's cache keeps that cheap. An error of pip's own leaves an environment that worked before as it was.
define install
@trap 'exit 130' INT TERM
fail() { echo "unmask: $$*" >&2; exit 1; }
usable() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
find_python() {
    for candidate in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3.14 python3 /usr/bin/python3); do
        if usable "$$candidate"; then echo "$$candidate"; return 0; fi
    done
    return 1
}
apt_python() {
    command -v apt-get >/dev/null || fail "needs Python 3.11 or newer with venv; install it, or name it: make setup PYTHON=/path/to/python"
    local as_root=()
    if [ "$$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "needs Python 3.11 or newer with venv; as root: apt-get install python3 python3-venv"
        as_root=(sudo)
    fi
    echo "unmask: no Python 3.11 or newer with venv here; installing python3 and python3-venv with apt-get"
    "$${as_root[@]}" apt-get update -q
    "$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv
}
fresh=no
if [ -e .venv/.incomplete ] || [ ! -e .venv/pyvenv.cfg ] || ! usable .venv/bin/python; then
    fresh=yes
    if ! python="$$(find_python)"; then
        older="$$(python3 -c 'import sys; print(".".join(map(str, sys.version_info[:3])) if sys.version_info < (3, 11) else "")' 2>/dev/null || true)"
        $(if $(PYTHON),fail "PYTHON=$(PYTHON) is no Python 3.11 or newer with venv",:)
        [ -z "$$older" ] || fail "needs Python 3.11 or newer, found only $$older; name another: make setup PYTHON=/path/to/python"
        apt_python
        python="$$(find_python)" || fail "needs Python 3.11 or newer with venv; this system's packages do not have it. Name one: make setup PYTHON=/path/to/python"
    fi
    echo "unmask: making .venv with $$("$$python" --version) ($$python)"
    rm -rf .venv
    mkdir .venv
    touch .venv/.incomplete
    "$$python" -m venv .venv
fi
touch .venv/.incomplete
.venv/bin/python -m pip install --disable-pip-version-check $(if $(UNMASK_TORCH_INDEX),--extra-index-url "$(UNMASK_TORCH_INDEX)") --editable "$(1)" || {
    [ $$fresh = yes ] || rm -f .venv/.incomplete
    fail "the packages could not be installed; pip says why above"
}
rm -f .venv/.incomplete
endef

# What the tests of the hardware need besides Python packages: `program package`, or a file of a package without programs.
HARDWARE := "iverilog iverilog" "sta opensta" "/usr/share/qflow/tech/osu018/osu018_stdcells.lib qflow-tech-osu018" "g++ g++" "make make"

# Tests skip what a missing package keeps from running, so where there is no apt-get, or no right to use it, this only says so.
define install_hardware_tools
@packages=()
for entry in $(HARDWARE); do
    read -r what package <<<"$$entry"
    [ -e "$$what" ] || command -v "$$what" >/dev/null || packages+=("$$package")
done
if [ $${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$$(id -u)" -eq 0 ] || as_root=(sudo -n)
    if command -v apt-get >/dev/null && { [ "$$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
        echo "unmask: the tests of the hardware need $${packages[*]}; installing them with apt-get"
        { "$${as_root[@]}" apt-get update -q &&
            "$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${packages[@]}"; } ||
            echo "unmask: apt-get failed; tests that need $${packages[*]} are skipped" >&2
    else
        echo "unmask: tests that need $${packages[*]} are skipped; on Debian: apt-get install $${packages[*]}" >&2
    fi
fi
endef

.PHONY: FORCE help tools setup demo test test-all lint docs bench clean

help: ## this list
	@echo "make TARGET, each working alone in a fresh clone:"
	sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '  %-12s%s\n' "$$name" "$$what"; done

setup: $(RUN) ## make .venv with the unmask command in it

demo: $(RUN) ## write text on a simulated NPU and check it against PyTorch
	.venv/bin/unmask generate "My fellow citizens," --machine small --check

tools: ## Debian packages that the tests of the hardware need, if they are missing
	$(install_hardware_tools)

test: lint tools ## style, types and the tests that take minutes
	$(PYTEST)

test-all: lint tools ## the slow tests too
	$(PYTEST) -m ""

lint: $(DEV) ## style and types
	.venv/bin/ruff check
	.venv/bin/mypy

docs: $(DOCS) ## write docs/isa.md from the instruction table, and the site build/site
	mkdir -p build
	.venv/bin/unmask isa >build/isa.md
	mv build/isa.md docs/isa.md
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs build/site
	echo "open build/site/index.html"

bench: $(RUN) ## run every script of bench/
	@shopt -s nullglob
	for script in bench/*.py; do
	    echo "== $$script"
	    $(ONE_THREAD) .venv/bin/python "$$script"
	done

clean: ## remove caches and build/, keep .venv
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A killed installation leaves stamps that are newer than pyproject.toml.
$(RUN) $(DEV) $(DOCS): $(if $(wildcard .venv/.incomplete),FORCE)
FORCE:

$(RUN): pyproject.toml
	$(call install,.)
	touch $(RUN)

$(DEV): pyproject.toml
	$(call install,.[dev])
	touch $(RUN) $(DEV) $(DOCS)

$(DOCS): pyproject.toml
	$(call install,.[docs])
	touch $(RUN) $(DOCS)
