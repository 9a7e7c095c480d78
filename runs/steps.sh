# What the experiments share: steps that are skipped once they are done, so that each experiment can be
# stopped and restarted at any time. Every sparsebert command writes its folder completely or not at all.

SPARSEBERT=${SPARSEBERT:-sparsebert}  # or: python -m sparsebert
RECIPES=${RECIPES:-$(dirname "${BASH_SOURCE[0]}")/recipes}
DRY_RUN=false
FAILED=()
PLANNED=" "

# step DONE COMMAND...: run COMMAND unless the file DONE exists ("-": always run it). A failed step is
# reported at the end; steps that do not depend on it still run. Ctrl-C stops everything.
step() {
    local done=$1 code=0
    shift
    if [ -e "$done" ]; then return 0; fi
    if $DRY_RUN; then  # print a step that several others need only once
        if [ "$done" = - ] || [[ $PLANNED != *" $done "* ]]; then printf '%s\n' "$*"; fi
        PLANNED+="$done "
        return 0
    fi
    printf '==> %s\n' "$*" >&2
    "$@" || code=$?
    if [ $code -eq 130 ]; then exit 130; fi
    if [ $code -ne 0 ]; then FAILED+=("$*"); fi
    return $code
}

# sparse DONE VERB ARGUMENTS...: a step that is a sparsebert command.
sparse() {
    local done=$1
    shift
    # shellcheck disable=SC2086  # may be several words, such as "python -m sparsebert"
    step "$done" $SPARSEBERT "$@"
}

# recipe ROW TASK: the recipe of a row, or its recipe for this task if there is one.
recipe() {
    local own=$RECIPES/$1-$2.yaml
    if [ -e "$own" ]; then echo "$own"; else echo "$RECIPES/$1.yaml"; fi
}

finish() {
    if [ ${#FAILED[@]} -eq 0 ]; then return 0; fi
    printf '%s steps failed:\n' "${#FAILED[@]}" >&2
    printf '  %s\n' "${FAILED[@]}" >&2
    exit 1
}
