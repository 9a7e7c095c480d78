#!/usr/bin/env bash
# The same table for a model of BERT-base's size: runs/minilm.sh with other settings and rows.
#
#     runs/base.sh MODEL DATA RUNS               MODEL: all-mpnet-base-v2; DATA: one folder per task
#     runs/base.sh MODEL DATA RUNS --dry-run     print what is left to do
#
# Every task is run with one seed first; then the small tasks are run with two more. TASKS, SEEDS, ROWS,
# SCORED and so on are those of runs/minilm.sh. A seed of STS-B took 21 minutes dense and 65 with a
# teacher (wall-clock time, on one core of an AMD EPYC (Zen 5) in bfloat16, with other work running and
# with pauses). Pruning takes ten minutes of processor time.
set -euo pipefail

export RECIPE_PREFIX=${RECIPE_PREFIX:-base-}
export TASKS=${TASKS:-stsb mrpc mnli rte sst2 qnli qqp squad}
export ROWS=${ROWS:-dense best best-int8 shared shared-int8}
export SEEDS=${SEEDS:-1 2 3}
export SMALL_SEEDS=${SMALL_SEEDS:-3} LARGE_SEEDS=${LARGE_SEEDS:-1}
exec "$(dirname "$0")/minilm.sh" "$@"
