# What the experiments share: steps that are skipped once done, so that each may be stopped and
# started again at any moment. Every sparsebert command writes its folder as a whole or not at all.

SPARSEBERT=${SPARSEBERT:-sparsebert}  # or: python -m sparsebert
RECIPES=${RECIPES:-$(dirname "${BASH_SOURCE[0]}")/recipes}
DRY_RUN=false
FAILED=()
PLANNED=" "

# step DONE COMMAND...: run COMMAND, unless the file DONE is there ("-": always). A failed step is
# told at the end; what does not depend on it goes on. Ctrl-C ends it all.
step() {
    local done=$1 code=0
    shift
    if [ -e "$done" ]; then return 0; fi
    if $DRY_RUN; then  # what several things need is told once
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
    # shellcheck disable=SC2086  # two words where it is "python -m sparsebert"
    step "$done" $SPARSEBERT "$@"
}

# recipe ROW TASK: the settings of a row, its task's own where there are such.
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
