#!/usr/bin/env bash
# Lets every fuzz target of the repository look for new inputs for a bounded time (the first argument, a Go duration).
set -euo pipefail
duration=${1:?usage: hack/fuzz.sh DURATION}
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# Until Go 1.27 a target may fail with nothing but this when its time ends in the wrong moment (golang/go#75804). A finding is always
# written down as an input.
only_the_time_ended() {
	grep -qx '    context deadline exceeded' "$said" && ! grep -q 'Failing input written to' "$said"
}

grep -rlE '^func Fuzz[A-Z]' --include '*_test.go' . | sort | while read -r file; do
	package=$(dirname "$file")
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}'); do
		echo "fuzz $package $target for $duration"
		if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 1s -timeout 10m "$package" 2>&1 | tee "$said"; then
			only_the_time_ended
			echo "no finding: the time was over"
		fi
	done
done
