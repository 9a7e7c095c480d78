#!/usr/bin/env bash
# The full reproduction: bert-base-uncased, dense and halved, on seven tasks of GLUE and SQuAD v1.1, with five
# seeds.
#
#     export CORPUS="wiki/ books.txt"
#     runs/bert-base-glue-squad.sh RUNS              model and data come from the hub
#     runs/bert-base-glue-squad.sh RUNS --dry-run    print what is left to do
#
# For a machine with a GPU, where each seed of each task takes minutes to hours. It needs about 10 GB of
# disk per task. It can be stopped and restarted at any time: finished seeds are kept, unfinished ones
# resumed.
#
# CORPUS names the unlabelled texts for upstream pruning: files or folders, .txt with one text per
# line, or tables. The model was pretrained on Wikipedia and books; the more text, the better.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${2:---dry-run}" != --dry-run ]; then
    echo "usage: $0 RUNS [--dry-run]" >&2
    exit 2
fi
RUNS=$1
if [ $# -eq 2 ]; then DRY_RUN=true; fi

MODEL=${MODEL:-google-bert/bert-base-uncased}
TASKS=${TASKS:-mnli qqp qnli sst2 stsb mrpc rte squad}
SEEDS=${SEEDS:-5}
CORPUS=${CORPUS:?name unlabelled texts for upstream pruning: CORPUS=\"FILE FOLDER ...\"}

# 1. One sparse checkpoint for all tasks. (--resume continues a run that was stopped.)
sparse "$RUNS/models/oneshot/config.json" prune "$MODEL" "$RUNS/models/oneshot"
set --
for texts in $CORPUS; do set -- "$@" --corpus "$texts"; done
sparse "$RUNS/models/best/config.json" prune "$MODEL" "$RUNS/models/best" --method second-order \
    --calibration "${CORPUS%% *}" "$@" --resume

# tune ROW TASK MODEL [ARGUMENTS]: fine-tune all seeds, except those that are already finished.
tune() {
    local row=$1 task=$2 model=$3
    shift 3
    sparse - finetune "$model" "$RUNS/$row/$task" --task "$task" \
        --recipe "$(recipe "bert-base-$row" "$task")" --seeds "$SEEDS" "$@"
}

# 2. For each task: the dense model, the pruned one, and the pruned one taught by the dense one of the
#    same seed; then the latter packed to int8 and scored on the engine.
for task in $TASKS; do
    tune dense "$task" "$MODEL" &&
        tune oneshot "$task" "$RUNS/models/oneshot" &&
        tune best "$task" "$RUNS/models/best" --teacher "$RUNS/dense/$task" &&
        sparse - pack "$RUNS/best/$task" "$RUNS/best-int8/$task" --dtype int8 &&
        sparse "$RUNS/best-int8/$task/evaluation.json" evaluate "$RUNS/best-int8/$task" \
            --task "$task" --seeds "$SEEDS" || true
done

# 3. The table, its plot and its model card.
sparse - table "$RUNS" --json --out "$RUNS/results.json" &&
    sparse - table "$RUNS" --format svg --out "$RUNS/table.svg" &&
    sparse - table "$RUNS" --format card --out "$RUNS/README.md" &&
    sparse - table "$RUNS" || true
finish
