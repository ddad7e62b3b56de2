# blkproof: from an empty Debian machine to a verdict.
#   make run     set everything up, then prove the scenario `basic` four times
#   make test    set everything up, then run the whole test suite, live tests too
#   make check   lint and type check only
#   make test-images   a verdict on every other image, too
#   make clean   forget the virtual environment (images and snapshots stay in the cache)

.PHONY: run test test-images check setup image clean
.DEFAULT_GOAL := run

PYTHON := .venv/bin/python
BLKPROOF := .venv/bin/blkproof
RUNS ?= runs/$(shell date +%Y%m%dT%H%M%S)

# bt2, babeltrace2's bindings, exists for the system's Python only: hence --system-site-packages.
HOST_PACKAGES := ca-certificates debian-archive-keyring patch python3 python3-bt2 python3-venv qemu-system-x86 xz-utils
TEST_PACKAGES := vagrant
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# $(call need,PACKAGES): install those that are missing, and touch nothing when none is.
define need
	@missing=$$(for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "==> installing Debian packages:" $$missing; \
		$(SUDO) apt-get update -q && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
endef

run: image
	$(BLKPROOF) run basic --set persistent=on,off --set indirect=on,off --out $(RUNS)

test: image .venv/.dev
	$(call need,$(TEST_PACKAGES))
	@$(BLKPROOF) image build debian13 --relock-if-stale
	@$(MAKE) --no-print-directory check
	$(PYTHON) -m pytest

test-images: image .venv/.dev
	$(PYTHON) -m pytest -m images

check: .venv/.dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy images harness traces analysis cli

image: setup
	@$(BLKPROOF) image build --relock-if-stale

setup: .venv/.ready

.venv/.ready: pyproject.toml Makefile
	$(call need,$(HOST_PACKAGES))
	@echo "==> making the virtual environment"
	@test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages .venv
	$(PYTHON) -m pip install --progress-bar off -e .
	@touch $@

.venv/.dev: .venv/.ready
	@echo "==> adding what the tests need"
	$(PYTHON) -m pip install --progress-bar off -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv
