# The commands of this repository; "make" alone lists them.
# Everything that is needed and absent is installed or built: Debian packages by apt-get, the control plane and the
# tools from pinned modules. Nothing runs outside of this machine's loopback interface.

SHELL := /usr/bin/env bash -o pipefail
ARGS ?=
GO ?= go
# The machine-made files are checked against their sources by "make test".
GENERATE := ./hack/generate.sh
GOLANGCI_LINT := bin/golangci-lint
TEST_TIMEOUT ?= 40m
# How many tests of a package go on at a time: they wait for pools and API servers more than they compute.
TEST_PARALLEL ?= $(shell echo $$((2 * $$(nproc))))
# The tests that kill the manager. They wait more than they compute, and "make soak" runs them with the race detector.
CRASHES := ^(TestCrash|TestCrashIn.*|Test.*Crash)$$
# How long each fuzz target looks for new inputs. "make test" runs the inputs that are kept; looking for new ones is left to "make fuzz"
# and "make soak", since what such a search finds is a matter of chance and not of the change that is tested.
FUZZ_TIME ?= 30s
SOAK_MINUTES ?= 60

.PHONY: help demo test lint bench generate build soak fuzz install controlplane

help: ## what one can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a Kubernetes API, a simulated pool and the operator on this machine, with samples; ARGS=--exit ends when all are Ready
	@$(GO) run ./hack/dev up --samples $(ARGS)

test: install controlplane ## all tests, with the race detector, in random order, and the manager killed after every action of every workflow
	$(GENERATE) --check
	$(GO) build ./...
	$(GO) vet ./...
	$(GO) test -race -shuffle=on -parallel $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) -skip '$(CRASHES)' ./...
	KUBEXEN_CRASH_EVERY_ACTION=1 $(GO) test -parallel $$((2 * $(TEST_PARALLEL))) -timeout $(TEST_TIMEOUT) -run '$(CRASHES)' ./controllers
	$(GO) -C hack/gitops test ./...
	$(GO) -C hack/helm test ./...

fuzz: ## each fuzz target looks for new inputs for FUZZ_TIME (30s)
	./hack/fuzz.sh $(FUZZ_TIME)

lint: $(GOLANGCI_LINT) ## golangci-lint, and whether generated files are up to date
	$(GOLANGCI_LINT) run ./...
	$(GENERATE) --check

bench: install controlplane ## the tables of the benchmarks and bin/bench.json; ARGS names groups (wire, calls, ...)
	@mkdir -p bin
	$(GO) run ./hack/bench $(ARGS)

generate: ## CRDs, deep copies, roles, the API reference and the XenAPI client from their sources
	$(GENERATE)

build: ## bin/kubexen, the operator, and bin/kubectl-xen, the plug-in of kubectl
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/kubexen .
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/kubectl-xen ./cmd/kubectl-xen

soak: install controlplane ## kill the manager after every action of every workflow, and fuzz, again and again for SOAK_MINUTES (60)
	@end=$$(( $$(date +%s) + 60 * $(SOAK_MINUTES) )); \
	while [ $$(date +%s) -lt $$end ]; do \
		KUBEXEN_CRASH_EVERY_ACTION=1 $(GO) test -race -shuffle=on -count 1 -timeout 2h -run Crash ./controllers/... && ./hack/fuzz.sh $(FUZZ_TIME) || exit 1; \
	done

install: ## the Debian packages that tests use
	./hack/install.sh

controlplane: ## kube-apiserver, etcd, kube-controller-manager and kubectl, built once
	@$(GO) run ./hack/controlplane

$(GOLANGCI_LINT): hack/tools/lint/go.mod hack/tools/lint/go.sum
	@echo "Building the linter. This happens once and takes some minutes."
	@mkdir -p bin
	cd hack/tools/lint && $(GO) build -o ../../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
