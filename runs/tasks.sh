#!/usr/bin/env bash
# A small encoder, dense and halved, on named entities, several labels per row, and questions without
# an answer. The results are in docs/results.md.
#
#     runs/tasks.sh MODEL SQUAD RUNS              MODEL: all-MiniLM-L6-v2; SQUAD: SQuAD's two files
#     TASKS=ner runs/tasks.sh MODEL SQUAD RUNS      run only a part of it
#
# runs/made_tasks.py makes the data. Finished steps are skipped, and unfinished ones resumed.
#
# dense      the model as it is, fine-tuned
# pruned     dense, pruned to 1:2 by the second-order method with the task's own texts
# best       pruned, then distilled from dense
# int8       best, packed to int8 and scored on the engine
set -euo pipefail
here=$(dirname "$0")
. "$here/steps.sh"

model=$1 squad=$2 runs=$3
declare -A names=([ner]=ner [topics]=custom [squad-v2]=squad_v2)
declare -A epochs=([ner]=5 [topics]=5 [squad-v2]=2)

step "$runs/data" "${PYTHON:-python}" "$here/made_tasks.py" "$squad" "$runs/data"
for task in ${TASKS:-ner topics squad-v2}; do
    out=$runs/$task data=$runs/data/$task name=${names[$task]}
    given=(--task "$name" --data "$data")
    training=("${given[@]}" --epochs "${epochs[$task]}" --learning-rate 2e-4 --dropout 0)
    mkdir -p "$out"
    sparse "$out/dense" finetune "$model" "$out/dense" "${training[@]}" --resume || continue
    sparse "$out/pruned" prune "$out/dense" "$out/pruned" --method second-order \
        --calibration "$data" --task "$name" || continue
    sparse "$out/best" finetune "$out/pruned" "$out/best" "${training[@]}" --teacher "$out/dense" \
        --hidden-weight 1 --resume || continue
    sparse "$out/int8" pack "$out/best" "$out/int8" --dtype int8 || continue
    for row in dense pruned best int8; do
        sparse - evaluate "$out/$row" "${given[@]}" || true
    done
done
finish
