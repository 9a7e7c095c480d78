#!/usr/bin/env bash
# The results of runs, so far, as files to keep: for programs, for people, and a picture.
#
#     runs/collect.sh RUNS DOCS      writes DOCS/results.json, DOCS/accuracy.md and DOCS/accuracy.svg
set -euo pipefail
. "$(dirname "$0")/steps.sh"

if [ $# -ne 2 ]; then
    echo "usage: $0 RUNS DOCS" >&2
    exit 2
fi
sparse - table "$1" --json --out "$2/results.json"
sparse - table "$2/results.json" --out "$2/accuracy.md"
sparse - table "$2/results.json" --format svg --out "$2/accuracy.svg"
