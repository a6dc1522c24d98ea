#!/usr/bin/env bash
# Lets every fuzz target of the repository look for new inputs for a bounded time (the first argument, a Go duration).
set -euo pipefail
duration=${1:?usage: hack/fuzz.sh DURATION}

grep -rlE '^func Fuzz[A-Z]' --include '*_test.go' . | sort | while read -r file; do
	package=$(dirname "$file")
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}'); do
		echo "fuzz $package $target for $duration"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 1s -timeout 10m "$package"
	done
done
