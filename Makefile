# All that a person types here. Every target makes its own set-up, on a bare Debian 12 too (as root, or with sudo).
#   make demo        the lab on this machine: two nodes, NFS homes, a JupyterHub, verified     (about 15 min, later 4)
#   make demo-down   removes the lab; the homes go only with HOMES=1
#   make test        check, unit, molecule, test-kernel and integration                        (about 70 min)
#   make check|unit|molecule|test-kernel|integration     one part of it
#   make test-look, make test-down                       how to look at the lab of a failed molecule run; its removal
#   make benchmark   times of a cold, a warm and a no-change run, of a start, of k8s_objects
#   make benchmark-kernel                                what mount options of the homes cost, on machines made for it
#   make audit       known vulnerabilities of what the site is made of; needs the bundle and databases in the internet
#   make docs|changelog|build                            variables for docs/admin, release notes, collection archive

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv check unit integration molecule test-look test-down test-kernel test times demo demo-down benchmark benchmark-kernel audit docs changelog build

export PATH := $(CURDIR)/.venv/bin:$(PATH)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What one run of make took is kept under the time of its start, its target and the commit; tests/make/times.py shows it. A
# run of some tests only says nothing about a stage.
ifndef JHOK_RUN
export JHOK_RUN := $(shell date +%FT%T) $(firstword $(MAKECMDGOALS) help) $(shell git rev-parse --short HEAD 2>/dev/null || echo none)
endif
TIMES := $(if $(PYTEST_ARGS),,.cache/times.tsv)
# Says at the end which tasks took the time.
PLAYBOOK := ANSIBLE_CALLBACKS_ENABLED=ansible.posix.profile_tasks ansible-playbook $(ARGS)
# In the order of site.yml: they build one site on one lab.
SCENARIOS := default bundle nfs_server node registry kubernetes storage jupyterhub users monitoring homes site culling faults backup
SOURCES := $(wildcard plugins tests images roles molecule docs)

# $(call stage,name,how long it may take,command): says what goes on, runs it, notes how long it took.
define stage
@printf '\n==> %s (%s)\n' '$(1)' '$(2)'; start=$$SECONDS; \
{ $(3); }; status=$$?; [ $$status = 0 ] || failed=' (failed)'; \
python3 tests/make/times.py note '$(TIMES)' "$$JHOK_RUN" $$((SECONDS - start)) '$(1)'"$$failed"; exit $$status
endef

# $(call program,name,packages): installs the packages where the program is missing.
define program
@command -v $(1) >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends $(2); }
endef

help:
	@sed -n 's/^#   //p' Makefile

venv: .venv/dev.stamp

# What the playbooks need.
.venv/run.stamp: requirements.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, as in Debian 12")'
	@python3 -c 'import ensurepip, venv' 2>/dev/null && command -v git ssh >/dev/null || { \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -q --no-install-recommends git openssh-client python3-venv; }
	@[ -x .venv/bin/pip ] || python3 -m venv .venv
	$(call stage,packages of requirements.txt,1 to 3 min,pip install -q --disable-pip-version-check -r requirements.txt)
	@touch $@

# What the tests need besides.
.venv/dev.stamp: .venv/run.stamp requirements-dev.txt
	$(call stage,packages of requirements-dev.txt,1 min,pip install -q --disable-pip-version-check -r requirements-dev.txt)
	@touch $@

check: venv
	$(call stage,yamllint,5 s,yamllint --strict .)
	$(call stage,ruff,1 s,ruff check $(SOURCES) && ruff format --check $(SOURCES))
	$(call stage,mypy,30 s,mypy plugins)
	$(call stage,ansible-lint,1 min,ansible-lint)
	$(call stage,changelog fragments,1 s,antsibull-changelog lint)

unit: venv
	$(call program,openssl,openssl)
	$(call stage,unit,1 min,pytest tests/unit -n 2 $(PYTEST_ARGS))

# The tests run etcd, kube-apiserver and kubeadm out of the images that the bundle is built with, and daemons of Debian's,
# which they start themselves: a service that comes with a package is not left running.
integration: venv
	@missing=; [ -x /usr/sbin/nft ] || missing=nftables; \
	[ -x /usr/sbin/squid ] || missing="$$missing squid"; \
	for program in docker-registry openssl chromium restic zstd; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -q --no-install-recommends $$missing || exit; \
	  [ ! -d /run/systemd/system ] || for unit in docker-registry squid; do \
	    case "$$missing" in *$$unit*) $(SUDO) systemctl disable --now $$unit;; esac; done; }
	$(call stage,bundle,10 s; the first time 12 min to build Kubernetes and the images,$(PLAYBOOK) --inventory molecule/inventory/hosts.yml \
	  site.yml --tags bundle)
	$(call stage,integration,8 min,pytest tests/integration -n 2 --dist loadfile $(PYTEST_ARGS))

# Molecule notes which labs it made under the name of the checkout's last folder: two clones share the note. Here it has
# its own, and none to begin with, so that the lab is always asked for.
export MOLECULE_EPHEMERAL_DIRECTORY := $(CURDIR)/.cache/molecule
# What a failed run left is removed first. The lab of this one is left when it fails, to be looked at.
molecule: venv
	$(call program,chromium,chromium fonts-wqy-microhei)
	@rm -rf $(MOLECULE_EPHEMERAL_DIRECTORY)
	@! command -v podman >/dev/null || $(MAKE) --no-print-directory test-down
	$(call stage,molecule,48 min; the first time 60,molecule --base-config molecule/shared/base.yml test --destroy never \
	  $(SCENARIOS:%=--scenario-name %) || { $(MAKE) --no-print-directory test-look; false; })
	@$(MAKE) --no-print-directory test-down

TEST_LAB := ansible-playbook --inventory molecule/inventory/hosts.yml
test-look: .venv/run.stamp
	@ANSIBLE_CALLBACK_RESULT_FORMAT=json $(TEST_LAB) molecule/shared/look.yml  # YAML would break the lines

test-down: .venv/run.stamp
	$(call stage,lab of the tests down,15 s,$(TEST_LAB) playbooks/lab_down.yml --extra-vars lab_remove_homes=true)

# Machines with a kernel of their own, and a molecule without the lab of the others.
test-kernel: venv
	$(call stage,kernel,6 min,molecule test --scenario-name nfs_kernel)

# Which part comes when, how long each may take, and what is tried again: see tests/make/run.py. It may take TEST_MINUTES.
test: venv
	@python tests/make/run.py $(if $(TEST_MINUTES),--minutes $(TEST_MINUTES)); status=$$?; \
	$(MAKE) --no-print-directory times; exit $$status

demo: .venv/run.stamp
	$(call stage,lab,1 min; the first time 4 min to make the node image,$(PLAYBOOK) playbooks/lab_up.yml)
	$(call stage,site,3 min; the first time 12 min to build Kubernetes and the images,$(PLAYBOOK) site.yml --skip-tags summary)
	$(call stage,verify,1 min,$(PLAYBOOK) playbooks/verify.yml)
	@$(MAKE) --no-print-directory times
	@ansible-playbook playbooks/access.yml

demo-down: .venv/run.stamp
	$(call stage,lab down,15 s,$(PLAYBOOK) playbooks/lab_down.yml $(if $(HOMES),-e lab_remove_homes=true))

benchmark: .venv/run.stamp
	$(call stage,benchmark,15 min,$(PLAYBOOK) playbooks/benchmark.yml)

# The figures of each round are left in .cache/nfs_kernel/benchmark.json.
benchmark-kernel: KERNEL := --scenario-name nfs_kernel
benchmark-kernel: venv
	$(call stage,mount options,20 min,(molecule converge $(KERNEL) && molecule side-effect $(KERNEL); \
	  status=$$?; molecule destroy $(KERNEL) && exit $$status))

# Where a database is not reached tests/audit/audit.py ends with status 3.
audit: venv
	$(call stage,govulncheck,10 s; the first time 2 min to build it,$(PLAYBOOK) playbooks/audit.yml)
	@python tests/audit/audit.py

docs: .venv/run.stamp
	@python docs/generate.py

changelog: venv
	@antsibull-changelog release

build: .venv/run.stamp
	@ansible-galaxy collection build --force

times:
	@printf '\n'; python3 tests/make/times.py show '$(TIMES)' "$$JHOK_RUN"
