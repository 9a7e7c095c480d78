#!/usr/bin/env bash
# The runs behind docs/results.json: a small encoder, dense and halved, on eight tasks.
#
#     runs/minilm.sh MODEL DATA RUNS              MODEL: all-MiniLM-L6-v2; DATA: one folder per task
#     runs/minilm.sh MODEL DATA RUNS --dry-run    print what is left to do
#     TASKS="rte mrpc" SEEDS="1 2" runs/minilm.sh MODEL DATA RUNS      run only a part of it
#
# Each result is a folder, RUNS/ROW/TASK/seed-N. The script can be stopped and restarted at any time:
# finished results are kept, and unfinished ones resumed. All tasks are run with their first seed before
# any is run with its second, so that `sparsebert table RUNS` has something to show early on. Results
# from other machines or days are not run again if SCORED names their file, such as
# SCORED=docs/results.json, which runs/collect.sh adds to.
#
# On one core of an AMD EPYC (Zen 4), one seed of a task takes at most a quarter of an hour (SST-2, RTE,
# MRPC, STS-B), half an hour (QNLI, QQP, MNLI) or two hours (SQuAD, which needs 12 GB). Two cores are
# best used by running two tasks at the same time, each with OMP_NUM_THREADS=1.
#
# dense      the model as it is, fine-tuned
# oneshot    1:2 by magnitude, then fine-tuned with the zeros locked
# best       the dense row's model of the same seed, pruned to 1:2 by the second-order method with the
#            task's own texts, then distilled from that dense model with the zeros locked
# best-int8  best, packed to int8 and scored on the engine
# shared, shared-int8  the same two, with one pattern for every 128 rows
# other rows of `halved` below, and the same in int8, are only run if ROWS names them
# embedding  for no task: 1:2 by the second-order method and upstream distillation, packed to int8, and
#            scored zero-shot on STS-B by the similarity of its embeddings
#
# RTE is small, so in every row it starts from the dense MNLI model of the first seed, as in Liu et al.
# 2019 (RoBERTa), section 5.1; the other tasks start from MODEL. When running tasks in parallel, start
# RTE once that model is finished.
#
# Settings come from the files in runs/recipes whose names begin with RECIPE_PREFIX; runs/search.py
# chooses them on held-out training rows.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

if [ $# -lt 3 ] || [ $# -gt 4 ] || [ "${4:---dry-run}" != --dry-run ]; then
    echo "usage: $0 MODEL DATA RUNS [--dry-run]" >&2
    exit 2
fi
MODEL=$1 DATA=$2 RUNS=$3
if [ $# -eq 4 ]; then DRY_RUN=true; fi

TASKS=${TASKS:-rte mrpc stsb sst2 qnli mnli qqp squad sst2-full}
SEEDS=${SEEDS:-1 2 3 4 5}
ROWS=${ROWS:-dense oneshot best best-int8 shared shared-int8 embedding}
SCORED=${SCORED:-}
if [ -n "$SCORED" ] && [ ! -f "$SCORED" ]; then
    echo "error: SCORED names no file: $SCORED" >&2
    exit 2
fi
CALIBRATION_ROWS=${CALIBRATION_ROWS:-1024}
# The training texts of all tasks, without labels; training on them takes an hour on two cores.
CORPUS=${CORPUS:-$DATA/stsb $DATA/mrpc $DATA/rte $DATA/mnli $DATA/qqp $DATA/qnli $DATA/sst2 $DATA/squad}
UPSTREAM=${UPSTREAM:---pairs 0.3 --max-rows 250000 --embeddings frozen}

seeds_of() {
    case $1 in
        rte | mrpc | stsb | sst2) echo "${SMALL_SEEDS:-5}" ;;
        sst2-full) echo 1 ;;
        *) echo "${LARGE_SEEDS:-3}" ;;
    esac
}

# All rows of the small tasks, and a fixed selection of the large ones. Except for SST-2, the texts of
# the large ones are longer, so they get fewer epochs.
rows_of() {
    case $1 in
        rte | mrpc | stsb | sst2-full) ;;
        sst2) echo --max-rows 10000 ;;
        *) echo --max-rows 10000 --epochs 3 ;;
    esac
}

# halved ROW: for a row that is pruned by the second-order method and distilled, its recipe and the
# options of pruning.
halved() {
    case $1 in
        best) echo best ;;
        shared) echo shared --shared-rows 128 ;;
        shared64) echo shared --shared-rows 64 ;;
        2of4) echo best --pattern 2:4 ;;
        1of4) echo best --pattern 1:4 ;;
        *) return 1 ;;
    esac
}

for row in $ROWS; do
    case ${row%-int8} in
        dense | oneshot | embedding) ;;
        *)
            if ! halved "${row%-int8}" >/dev/null; then
                echo "error: ROWS names no row: $row" >&2
                exit 2
            fi
            ;;
    esac
done

# settings ROW TASK: the recipe to fine-tune with.
settings() {
    local name
    read -r name _ < <(halved "$1" || echo "$1")
    recipe "${RECIPE_PREFIX:-}$name" "${2%-full}"
}

# begin TASK: sets START to the model that fine-tuning starts from, which is made if necessary.
begin() {
    START=$MODEL
    if [ "$1" = rte ]; then
        START=$RUNS/dense/mnli/seed-1
        tune dense mnli 1 "$MODEL"
    fi
}

# tune ROW TASK SEED MODEL [ARGUMENTS]
tune() {
    local row=$1 task=$2 seed=$3 model=$4 out=$RUNS/$1/$2/seed-$3
    shift 4
    # shellcheck disable=SC2046  # an option and its value, or nothing
    sparse "$out/training.json" finetune "$model" "$out" --task "${task%-full}" \
        --data "$DATA/${task%-full}" --recipe "$(settings "$row" "$task")" \
        --seed "$seed" $(rows_of "$task") "$@" --resume
}

# is_scored ROW TASK SEED: does the file SCORED have a score for it, under MODEL's name?
is_scored() {
    if [ -z "$SCORED" ]; then return 1; fi
    "${PYTHON:-python3}" - "$SCORED" "$(basename "$MODEL")" "$@" <<'END'
import json, sys

path, model, row, run, seed = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    results = json.load(file)
found = any(
    (each.get("model"), each["row"], each.get("run", each["task"])) == (model, row, run)
    and int(seed) in each.get("seed_numbers", range(1, len(each["seeds"]) + 1))
    for each in results
)
sys.exit(not found)
END
}

# rows_left TASK SEED: those of ROWS that have no score yet, each after the row it is made from.
rows_left() {
    local left=" " taught=false row from
    for row in $ROWS; do
        from=${row%-int8}
        if [ "$row" = embedding ] || is_scored "$row" "$@"; then continue; fi
        if halved "$from" >/dev/null; then taught=true; fi
        if wants "$from" && [[ $left != *" $from "* ]]; then left+="$from "; fi
        if [[ $left != *" $row "* ]]; then left+="$row "; fi
    done
    if $taught && wants dense; then left=" dense${left/ dense / }"; fi
    echo "$left"
}

# drop_weights FOLDER: free 90 MB of disk; scores, recipe and lineage are kept.
drop_weights() {
    if ! $DRY_RUN; then rm -f "$1"/*.safetensors; fi
}

# run_row ROW TASK SEED
run_row() {
    local out=$RUNS/$1/$2/seed-$3
    if [[ $1 != *-int8 && -e $out/training.json ]]; then return; fi
    case $1 in
        dense)
            begin "$2" && tune "$@" "$START"
            ;;
        oneshot)
            local halved=$RUNS/models/oneshot
            if [ "$2" = rte ]; then halved+=-rte; fi
            begin "$2" && sparse "$halved/config.json" prune "$START" "$halved" &&
                tune "$@" "$halved" && drop_weights "$out"
            ;;
        *-int8)
            local floats=$RUNS/${1%-int8}/$2/seed-$3
            sparse "$out/config.json" pack "$floats" "$out" --dtype int8 &&
                sparse "$out/evaluation.json" evaluate "$out" --task "${2%-full}" \
                    --data "$DATA/${2%-full}" --save &&
                drop_weights "$floats"
            ;;
        *)
            local dense=$RUNS/dense/$2/seed-$3 pruned=$RUNS/models/$1/$2/seed-$3 pattern
            read -r _ pattern < <(halved "$1")
            # shellcheck disable=SC2086  # an option and its value, or nothing
            sparse "$pruned/config.json" prune "$dense" "$pruned" --method second-order \
                --calibration "$DATA/${2%-full}" --calibration-rows "$CALIBRATION_ROWS" \
                --task "${2%-full}" $pattern &&
                tune "$@" "$pruned" --teacher "$dense" && drop_weights "$pruned"
            ;;
    esac
}

# wants ROW: is this one of ROWS?
wants() {
    case " $ROWS " in *" $1 "*) ;; *) return 1 ;; esac
}

if wants embedding; then
    set --
    for texts in $CORPUS; do set -- "$@" --corpus "$texts"; done
    embedding=$RUNS/models/embedding
    # shellcheck disable=SC2086  # options and their values
    sparse "$embedding/config.json" prune "$MODEL" "$embedding" --method second-order \
        --calibration "$DATA/stsb" "$@" $UPSTREAM --resume &&
        sparse "$embedding-int8/config.json" pack "$embedding" "$embedding-int8" --dtype int8 &&
        sparse - evaluate "$embedding-int8" --task stsb --data "$DATA/stsb" --zero-shot || true
fi

for seed in $SEEDS; do
    for task in $TASKS; do
        if [ "$seed" -gt "$(seeds_of "$task")" ]; then continue; fi
        for row in $(rows_left "$task" "$seed"); do run_row "$row" "$task" "$seed" || true; done
    done
done
sparse - table "$RUNS" --json --out "$RUNS/results.json" || true
sparse - table "$RUNS" || true
finish
