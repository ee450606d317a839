# `make help` lists the targets. All files are created in this folder: .venv, engine/target, .run, dist.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINE := $(wildcard engine/src/*.rs engine/src/*/*.rs engine/src/*/*/*.rs) engine/Cargo.toml engine/Cargo.lock
PREFIX ?= /opt/dnsblock
DIST = dist
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: run
run: build ## run dnsblock in the foreground on port 5300, with the order against Telegram of 2017-07-14
	@exec $(BIN)/python config/walkthrough.py

.PHONY: build
build: $(VENV)/.built ## create the environment and build the engine in release mode

.PHONY: test
test: setup ## run all checks and tests that a change must pass
	@$(MAKE) --no-print-directory check
	cargo test --manifest-path engine/Cargo.toml --locked --quiet --features failpoints
	cargo test --manifest-path engine/fuzz/Cargo.toml --locked --no-default-features --quiet
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup
setup: ## install the requirements of the tests, or print the commands that install them
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is missing: set PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) tests/tools.py

.PHONY: check check-python check-rust
check: check-python check-rust ## style, types and lints, Python and Rust

check-python: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest dnsblock._engine

check-rust: cargo
	cargo fmt --manifest-path engine/Cargo.toml --check
	cargo clippy --manifest-path engine/Cargo.toml --locked --all-targets --quiet -- -D warnings
	cargo clippy --manifest-path engine/Cargo.toml --locked --all-targets --all-features --quiet -- -D warnings
	cargo fmt --manifest-path engine/fuzz/Cargo.toml --check
	cargo clippy --manifest-path engine/fuzz/Cargo.toml --locked --all-targets --no-default-features --quiet -- -D warnings

.PHONY: fuzz
fuzz: fuzzer ## fuzz the packet, response and list parsers: three targets, SECONDS=60 each
	RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir engine/fuzz
	@$(call fuzz,query,700)
	@$(call fuzz,response,3000)
	@$(call fuzz,list,2000)

.PHONY: bench
bench: $(VENV)/.tools ## measure dnsblock, other resolvers and the limit of the machine: NAMES= WORKERS= ROUNDS= ONLY=
	PYTHONPATH=tests $(BIN)/python -m bench $(bench-options)

.PHONY: bench-orders
bench-orders: $(VENV)/.tools ## measure startup and publishes with many orders: ORDERS=9000 ENTRIES=111 PUBLISHES=100 BASE=0
	PYTHONPATH=tests $(BIN)/python -m bench.orders --orders $(or $(ORDERS),9000) --entries $(or $(ENTRIES),111) \
		--publishes $(or $(PUBLISHES),100) --base $(or $(BASE),0)

.PHONY: bench-interfaces
bench-interfaces: $(VENV)/.tools ## measure DNS beside floods of the API, the console, the metrics and the landing page: ROUNDS=5
	PYTHONPATH=tests $(BIN)/python -m bench.interfaces --rounds $(or $(ROUNDS),5)

.PHONY: fleet-tree
fleet-tree: $(VENV)/.tools ## measure an order and its end on a tree of secondaries: LEAVES=20 MIDDLES=4 ROUNDS=20 REPEAT=3
	PYTHONPATH=tests $(BIN)/python -m bench.fleet_tree --leaves $(or $(LEAVES),20) --middles $(or $(MIDDLES),4) \
		--rounds $(or $(ROUNDS),20) --repeat $(or $(REPEAT),3)

# Half of the maximum load, at most MOST queries per second. The responses to RATE queries per second are checked.
RESTARTS = 1000
RATE = 500
MOST = 20000
.PHONY: restarts
restarts: $(VENV)/.tools ## restart RESTARTS=1000 times under half load, and count lost queries
	DNSBLOCK_RESTARTS=$(RESTARTS) DNSBLOCK_RATE=$(RATE) DNSBLOCK_MOST=$(MOST) $(BIN)/python -m pytest -n 0 -s -k half_load \
		tests/conformance/test_restart.py

KILLS = 1000
.PHONY: kills
kills: $(VENV)/.tools ## kill the daemon KILLS=1000 times while it writes, and look for lost orders
	DNSBLOCK_KILLS=$(KILLS) $(BIN)/python -m pytest -n 0 -s tests/conformance/test_ledger_faults.py

.PHONY: conformance
conformance: $(VENV)/.tools ## write docs/conformance.md from the tests
	$(BIN)/python tests/conformance/table.py

.PHONY: openapi
openapi: $(VENV)/.tools ## write docs/openapi.json and the table in docs/api.md from the models of the API
	$(BIN)/python tests/openapi.py

# Sphinx reads the whole repository, so that links between its files work. A warning is an error.
sphinx = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs/generator --builder $(1) . $(2) && \
	rm -rf $(2)/.doctrees $(2)/.buildinfo
SITE = $(DIST)/docs
MAN = $(DIST)/man
COMPLETION = $(DIST)/completion

.PHONY: docs
docs: $(VENV)/.tools ## build the documentation site into dist/docs/: open index.html there
	@rm -rf $(SITE)
	$(call sphinx,html,$(SITE))

.PHONY: man
man: $(VENV)/.tools ## build the man pages dnsblock(8) and dnsblock.yaml(5) into dist/man/
	@rm -rf $(MAN)
	$(call sphinx,man,$(MAN))

.PHONY: completion
completion: $(VENV)/.built ## write the completion scripts of bash, zsh and fish into dist/completion/
	@mkdir -p $(COMPLETION)
	_DNSBLOCK_COMPLETE=bash_source $(BIN)/dnsblock > $(COMPLETION)/dnsblock
	_DNSBLOCK_COMPLETE=zsh_source $(BIN)/dnsblock > $(COMPLETION)/_dnsblock
	_DNSBLOCK_COMPLETE=fish_source $(BIN)/dnsblock > $(COMPLETION)/dnsblock.fish

.PHONY: wheel
wheel: toolchain ## build the wheel into dist/
	@rm -f $(DIST)/dnsblock-*.whl
	$(PYTHON) -m venv $(DIST)/.build
	$(DIST)/.build/bin/pip install --quiet 'maturin>=1.14,<2'
	$(DIST)/.build/bin/maturin build --release --locked --out $(DIST)

# The package is for Debian's Python of this release, whatever PYTHON is. WHEEL: a wheel that exists already.
SYSTEM_PYTHON = /usr/bin/python3
WHEEL =
.PHONY: deb
# The date in the package, and in the version of what is not released: that of the commit, so that builds are equal.
deb: export SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),$(shell date +%s))
deb: debian-tools man completion $(if $(WHEEL),,wheel) ## build a Debian package of this Debian release into dist/
	@rm -rf $(DIST)/deb $(DIST)/dnsblock_*.deb
	$(SYSTEM_PYTHON) -m venv $(DIST)/deb/env
	$(DIST)/deb/env/bin/python config/debian/prepare.py $(DIST)/deb/dnsblock $(or $(WHEEL),$(DIST)/dnsblock-*.whl) $(DIST)
	cd $(DIST)/deb/dnsblock && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >../build.log 2>&1 || \
		{ tail -20 ../build.log >&2; exit 1; }
	mv $(DIST)/deb/dnsblock_*.deb $(DIST)

.PHONY: offline
offline: wheel ## build the wheel and download all dependencies to dist/, for an installation without Internet access
	$(DIST)/.build/bin/pip download --quiet --only-binary :all: --dest $(DIST) $(DIST)/dnsblock-*.whl

.PHONY: install
install: ## install the wheel in dist/, and man pages and completion if built, at PREFIX; OFFLINE=1 uses only dist/
	@$(PYTHON) -c "$$refuse_private_python" $(PREFIX)
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/pip install --quiet --force-reinstall $(if $(OFFLINE),--no-index --find-links $(DIST)) $(DIST)/dnsblock-*.whl
	@$(call put,man/man8,$(MAN)/dnsblock.8)
	@$(call put,man/man5,$(MAN)/dnsblock.yaml.5)
	@$(call put,bash-completion/completions,$(COMPLETION)/dnsblock)
	@$(call put,zsh/site-functions,$(COMPLETION)/_dnsblock)
	@$(call put,fish/vendor_completions.d,$(COMPLETION)/dnsblock.fish)

# Copies a file to a folder below PREFIX/share, if it was built.
put = if [ -f $(2) ]; then install -D -m 0644 -t $(PREFIX)/share/$(1) $(2); fi

.PHONY: clean
clean: ## remove all created files
	rm -rf $(VENV) .run .run.lock dist engine/target engine/fuzz/target engine/fuzz/artifacts engine/fuzz/coverage dnsblock/_engine*.so
	rm -rf tests/bench/build

# ------- Build -------

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.88 or newer, see https://rustup.rs" >&2; exit 1; }

.PHONY: toolchain
toolchain: cargo
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt-get install gcc" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is missing: set PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }

.PHONY: debian-tools
debian-tools:
	@command -v dh >/dev/null || { echo "debhelper is missing: apt-get install debhelper" >&2; exit 1; }
	@$(SYSTEM_PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Debian's Python with venv is missing: apt-get install python3-venv" >&2; exit 1; }

# An environment uses the Python that created it. If that is in somebody's home folder, the service user cannot execute
# it, and the service would not start. An environment in the same home folder is for that user only.
define refuse_private_python
import os, pathlib, sys
def closed(path):
    path = pathlib.Path(os.path.realpath(path))
    return next((p for p in (path, *path.parents) if p.exists() and not p.stat().st_mode & 0o001), None)
private = closed(sys.executable) or closed(sys.base_prefix)
if private and not closed(sys.argv[1]):
    sys.exit(f'{os.path.realpath(sys.executable)} cannot be executed by other users ({private} is closed to them), so the '
             'service user could not run dnsblock.\nTake a Python of the system: make install PYTHON=/usr/bin/python3')
endef
export refuse_private_python

.PHONY: fuzzer
fuzzer: cargo
	@command -v c++ >/dev/null || { echo "a C++ compiler is missing: apt-get install g++" >&2; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || \
		{ echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }

# Runs a target with inputs up to a size in bytes. The sanitizer flags are unstable; RUSTC_BOOTSTRAP makes the stable
# compiler accept them. New inputs go to engine/fuzz/target/found, not to the corpus.
SECONDS = 60
# The random seed; 0: a different one for each run. CI uses a fixed seed, so that a change causes what it finds.
SEED = 0
fuzz = mkdir -p engine/fuzz/target/found/$(1) && log=engine/fuzz/target/found/$(1).log && \
	echo "fuzzing $(1) for $(SECONDS) seconds" && \
	{ RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir engine/fuzz $(1) engine/fuzz/target/found/$(1) engine/fuzz/corpus/$(1) \
		-- -max_total_time=$(SECONDS) -max_len=$(2) -seed=$(SEED) 2>$$log || { cat $$log >&2; exit 1; }; } && \
	grep -E 'DONE|^Done' $$log

# The options of `make bench`, from the variables that are set. SECONDS has another default here.
bench: SECONDS = 4
lower = $(shell echo $(1) | tr A-Z a-z)
bench-options = $(foreach v,NAMES WORKERS ROUNDS SECONDS ONLY SERVERS PATIENCE PUBLISHES QUIET,$(if $($(v)),--$(call lower,$(v))=$($(v)))) \
	$(if $(LIMITED),--limited)

$(VENV)/.built: $(ENGINE) pyproject.toml constraints.txt | toolchain
	@echo "Building dnsblock; the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'maturin>=1.14,<2'
	$(BIN)/maturin develop --release --locked --quiet
	@touch $@

$(VENV)/.tools: $(VENV)/.built tests/requirements.txt docs/generator/requirements.txt
	$(BIN)/pip install --quiet -r tests/requirements.txt -r docs/generator/requirements.txt
	@touch $@
