# Two commands on a fresh machine with Python >= 3.11, git and make:
#   make demo               two Pods on loopback that talk through two sidecars (ARGS=--keep: until ^C)
#   make test               the whole suite (ARGS="tests/unit -k chunked")
# Others: check (style and types), coverage, bench, soak, lock (versions of the image), clean.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1
.DELETE_ON_ERROR:
.PHONY: demo test check coverage bench soak lock peers bench-peers format clean

demo: $(VENV)/.run
	$(BIN)/ambassador demo $(ARGS)

# Processes instead of threads of one: every worker starts real sidecars, and order is random in each.
test: $(VENV)/.test peers
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not soak" $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.test peers
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not soak" --cov --cov-report=term --cov-report=html $(ARGS)
	$(BIN)/coverage report --include "ambassador/core/*,ambassador/policy/*,ambassador/wire/*" --fail-under 100
	$(BIN)/coverage report --fail-under 92

bench: $(VENV)/.test bench-peers
	$(BIN)/python -m benchmarks.load $(ARGS)

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak --timeout 0 $(ARGS)

# Hashes of every file of every release, for pip's --require-hashes in the image. `--no-emit-*`: the lock names
# releases, not where this machine got them.
COMPILE = $(VENV)/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet "pip-tools==7.6.2"
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --only-build-deps --build-deps-for wheel --output-file requirements-build.lock pyproject.toml

# A stamp is as new as the last installation that succeeded; nothing happens while pyproject.toml is older.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; say which to take: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo "no venv module: on Debian, apt-get install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(VENV)/.run $@

# Peers of the interop tests that are Debian packages. Root installs what is missing; for others the tests say what
# they skip and why. RUNLEVEL=1 keeps the packages from starting their services. Where the package `kubectl` of the
# Kubernetes project is installed, Debian's cannot be: both have the same file.
peers: PACKAGES = curl openssl nginx haproxy prometheus dnsmasq-base etcd-server $(if $(shell command -v kubectl),,kubernetes-client)
bench-peers: PACKAGES = curl nginx haproxy wrk nghttp2-client
peers bench-peers:
	@missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "not root, or no apt-get: tests that need these are skipped unless they are there all the same:$$missing"; \
	fi

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov build dist
