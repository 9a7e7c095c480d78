#!/usr/bin/env bash
# Write the results so far to files: JSON, a table in Markdown, and a plot of the int8 rows.
#
#     runs/collect.sh RUNS DOCS      writes DOCS/results.json, DOCS/accuracy.md and DOCS/accuracy.svg
#
# Seeds in an existing DOCS/results.json that are not in RUNS are kept, because runs may be spread over
# several machines and days.
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
