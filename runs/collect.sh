#!/usr/bin/env bash
# The results of runs, so far, as files to keep: for programs, for people, and a picture of the rows
# in int8.
#
#     runs/collect.sh RUNS DOCS      writes DOCS/results.json, DOCS/accuracy.md and DOCS/accuracy.svg
#
# Seeds that an earlier DOCS/results.json holds and RUNS does not stay: runs may be spread over
# machines and days.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

if [ $# -ne 2 ]; then
    echo "usage: $0 RUNS DOCS" >&2
    exit 2
fi
earlier=()
if [ -e "$2/results.json" ]; then earlier=("$2/results.json"); fi
sparse - table ${earlier[@]+"${earlier[@]}"} "$1" --json --out "$2/results.json"
sparse - table "$2/results.json" --out "$2/accuracy.md"
packed=$(sed -n 's/.*"row": "\([^"]*-int8\)".*/\1/p' "$2/results.json" | sort -u | paste -s -d ,)
sparse - table "$2/results.json" --format svg ${packed:+--rows "$packed"} --out "$2/accuracy.svg"
