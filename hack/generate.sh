#!/usr/bin/env bash
# Generates what follows from the Go types of the API, the RBAC markers of the controllers and the XenAPI data model: deepcopy code,
# CRDs, the manager's role, the Helm chart, the API reference and the typed part of the XenAPI client. With --check it changes nothing and fails if what is committed is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

controller_gen() { go tool -modfile=hack/tools/go.mod controller-gen "$@"; }

# generate writes everything below the directory $1.
generate() {
	local out=$1
	mkdir -p "$out/api/v1alpha1" "$out/config/crd/bases" "$out/config/rbac" "$out/config/gateway" "$out/docs" "$out/pkg/xenapi"
	go run ./hack/xenapigen -out "$out/pkg/xenapi"
	controller_gen object paths=./api/v1alpha1 output:object:dir="$out/api/v1alpha1"
	controller_gen crd paths=./api/v1alpha1 output:crd:dir="$out/config/crd/bases"
	controller_gen rbac:roleName=kubexen-manager,fileName=manager_role.yaml paths=./controllers/... \
		output:rbac:dir="$out/config/rbac"
	controller_gen rbac:roleName=kubexen-gateway,fileName=gateway_role.yaml paths=./pkg/gateway/... \
		output:rbac:dir="$out/config/gateway"
	go run ./hack/apidocs -crds "$out/config/crd/bases" -reasons api/v1alpha1/conditions.go -out "$out/docs/api.md"
	go run ./hack/helmchart -config config -out "$out/config/helm"
}

case "${1:-}" in
"")
	generate .
	;;
--check)
	fresh=$(mktemp -d)
	trap 'rm -rf "$fresh"' EXIT
	generate "$fresh"
	stale=0
	while IFS= read -r file; do
		diff -u --label "committed $file" --label "generated $file" "$file" "$fresh/$file" || stale=1
	done < <(cd "$fresh" && find . -type f | sed 's|^\./||' | sort)
	for crd in config/crd/bases/*.yaml; do
		[ -e "$fresh/$crd" ] || { echo "$crd belongs to no kind any more"; stale=1; }
	done
	for template in config/helm/templates/*.yaml; do
		[ -e "$fresh/$template" ] || { echo "$template belongs to no manifest any more"; stale=1; }
	done
	[ "$stale" = 0 ] || { echo "generated files are stale: run make generate"; exit 1; }
	;;
*)
	echo "usage: $0 [--check]" >&2
	exit 2
	;;
esac
