# Two commands for everybody: `make demo` and `make test`. Both install what is missing first, and can be run again.
.PHONY: help setup demo check test test-deep test-machines test-faults lock down clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' Makefile | expand -t 24

setup: ## install what is missing: Debian packages, .venv with privnet and pyinfra
	@sh setup/setup.sh

demo: ## boot three hosts on this machine, lay two private networks over them, audit them
	@sh setup/demo.sh

check: ## ruff, mypy and all tests that need no hosts
	@sh setup/test.sh check $(ARGS)

test: ## make check, and each promise and feature on real hosts of this machine; ARGS="tests/lab -x": these tests alone (as root)
	@sh setup/test.sh $(if $(ARGS),some $(ARGS),test)

test-deep: ## all other tests on real hosts: every attack, drift and fault, machines (as root)
	@sh setup/test.sh deep $(ARGS)

test-machines: ## Debian 12 and 13 in QEMU, on kernels of their own: a quarter of an hour without KVM (as root)
	@sh setup/test.sh machines $(ARGS)

test-faults: ## strike a run at every place, in every way: days; EACH=command: at one place of each command; JOBS=4: in so many labs at once; PART=1/24: at every 24th (as root)
	@PART=$(PART) JOBS=$(JOBS) EACH=$(EACH) sh setup/faults.sh $(ARGS)

lock: ## pin the newest versions of all Python packages in requirements.lock
	@sh setup/lock.sh

down: ## remove the demo's hosts; the lab of another fleet is left alone
	@[ ! -x .venv/bin/privnet ] || .venv/bin/privnet lab down inventory/lab

clean: down ## the same, and .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
