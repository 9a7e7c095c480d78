"""Upstream pruning: from a dense checkpoint to a sparse one for any task, on unlabelled texts.

The model is pruned in one shot. Then the sparse student learns, with its zeros locked, to reproduce
the hidden states and embeddings of its dense original, and the logits if there is a head.
Fine-tuning starts from the result instead of from a one-shot pruned model, as in Prune Once for All
(Zafrir et al., 2021, arXiv 2111.05754). A student that is already pruned learns from the dense
model that is given as its teacher.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import (
    Checkpoint,
    Head,
    open_checkpoint,
    read_masks,
    resolve_model,
)
from sparsebert.checkpoint.embedding_kinds import is_splade
from sparsebert.checkpoint.hub_configs import check_in_transformers
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.errors import CheckpointError, DataError, TrainingError
from sparsebert.extras import need_extra
from sparsebert.patterns import Pattern
from sparsebert.progress import Progress, shown
from sparsebert.pruning import prune
from sparsebert.pruning.methods import CALIBRATION_ROWS, Needs, When, get_method
from sparsebert.pruning.one_shot import check_parts
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import read_division
from sparsebert.tasks.examples import selection
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.training.distributed import from_main, join, main_only
from sparsebert.training.fingerprints import upstream_fingerprints
from sparsebert.training.upstream.corpus import (
    Corpus,
    CorpusExamples,
    Masking,
    read_corpus,
    tokenize_corpus,
)
from sparsebert.training.upstream.options import UpstreamOptions
from sparsebert.training.upstream.saving import UpstreamResult, save_upstream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Unpack

    from sparsebert.training.upstream.options import UpstreamKeywords
_PRUNED = "pruned"  # in the work folder: the one-shot pruned model that training starts from


def prune_upstream(
    model: str | Path,
    out: str | Path,
    *,
    corpus: str | Path | Sequence[str | Path],
    teacher: str | Path | None = None,
    pattern: str = "1:2",
    shared_rows: int = 1,
    method: str = "second-order",
    parts: Collection[str] = ("encoder",),
    calibration: str | Path | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    task: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Unpack[UpstreamKeywords],
) -> UpstreamResult:
    """Prune ``model``, train it on ``corpus`` to match its dense original, and write ``out``.

    ``corpus`` is a file or folder of texts, or several of them (see `read_corpus`); in tables,
    ``text_column`` and ``pair_column`` name the columns of the texts. ``options`` are the fields of
    `UpstreamOptions`. A ``method`` that calibrates uses a fixed selection of ``calibration_rows``
    texts from ``calibration`` (with the columns of ``task``, if given), or else from the corpus.

    With a dense ``teacher`` of the same shape, ``model`` must already be sparse: it keeps its
    zeros, and arguments that say how to prune must be left out.

    Pruned weights are exactly 0.0 in the result; everything else is trained. The result has the
    tensors of ``model`` under the same names; those that were trained are in fp32.

    Checkpoints are saved in ``OUT.training`` beside ``out`` every ten minutes, at the end of each
    epoch, and on Ctrl-C or SIGTERM; ``resume`` continues from the last one, or starts over if there
    is none. On a CPU, the same seed on the same machine gives the same weights, resumed or not.

    Raises DataError (no texts, an unreadable file), CheckpointError, PatternError, OutputError and
    TrainingError; KeyboardInterrupt on Ctrl-C or SIGTERM, once everything is saved.
    """
    need_extra("training on a corpus", "torch", "transformers", "accelerate", "pyarrow")
    wanted = UpstreamOptions.from_names(options)
    columns = DataOptions(text_column, pair_column)
    pruning: dict[str, Any] = {
        "pattern": str(Pattern.parse(pattern, shared_rows)),
        "method": method,
        "parts": sorted(check_parts(parts)),
    }
    if teacher is not None:
        _refuse_pruning(pruning, calibration, calibration_rows, task)
    else:
        pruning |= _calibration(method, calibration, calibration_rows, task, columns)
    sources = [Path(each) for each in ([corpus] if isinstance(corpus, str | Path) else corpus)]
    from sparsebert.training.run import run_training
    from sparsebert.training.upstream.run import UpstreamRun
    from sparsebert.training.work_folder import disk_needed, training_output, work_folder

    join()
    report = main_only(shown(progress))
    target = Path(out)
    with training_output(target, force=force, source=resolve_model(model)) as staging:
        dense = open_checkpoint(model if teacher is None else teacher)
        _check_options(dense, wanted)
        if teacher is not None:
            _check_student(open_checkpoint(model), dense)
        texts = read_corpus(sources, columns, read_division(dense.path))
        tokenizer = load_tokenizer(dense.path)
        tokens = tokenize_corpus(
            texts,
            tokenizer,
            max_length=wanted.max_length,
            max_rows=wanted.max_rows,
            pairs=wanted.pairs,
            progress=report,
        )
        check_ids(dense.path, dense.config, tokens.ids, tokens.type_ids)
        examples = CorpusExamples(tokens, _masking(dense, tokenizer, wanted), wanted.seed)
        arguments = {"corpus": [source.name for source in sources], **wanted.as_dict()}
        begun: dict[str, Any] = {
            **pruning,
            **columns.given(),
            **arguments,
            "model": str(resolve_model(model).resolve()),
            "teacher": None if teacher is None else str(dense.path.resolve()),
            "calibration": None if calibration is None else str(Path(calibration).resolve()),
            "corpus": [str(source.resolve()) for source in sources],
            "rows": len(examples),
            "tokens": int(tokens.offsets[-1]),
        }
        contents = from_main(
            lambda: upstream_fingerprints(
                open_checkpoint(model),
                texts.texts,
                calibration,
                task,
                columns,
                None if teacher is None else dense,
            )
        )
        with work_folder(
            target,
            begun,
            contents,
            with_masks=True,
            resume=resume,
            needed=disk_needed(dense, wanted),
        ) as work:
            notes: list[str] = []
            pruned = work.path / _PRUNED if teacher is None else resolve_model(model)
            if not from_main(pruned.is_dir):  # if an interrupted run left it, it is complete
                notes = from_main(lambda: _prune(model, pruned, texts, pruning, report))
            student = open_checkpoint(pruned)
            run = UpstreamRun(student, dense, examples, wanted)
            outcome = run_training(run, work, report)
        trained = outcome.trained
        result = UpstreamResult(
            model=str(model),
            out=str(out),
            pattern=str(student.config.recorded_pattern or pruning["pattern"]),
            method=str((student.config.sparsity or {}).get("method") or method),
            layers=len(student.config.recorded_layers),
            texts=len(texts),
            rows=len(examples),
            tokens=int(tokens.offsets[-1]),
            steps=trained.steps,
            resumed_from=trained.resumed_from,
            seconds=trained.seconds,
            rows_per_second=trained.examples_per_second,
            batch_size=outcome.plan.batch_size,
            gradient_accumulation=outcome.plan.accumulation,
            precision=outcome.precision,
            history=trained.history,
            notes=[*notes, *outcome.notes],
        )
        if teacher is not None:
            arguments["teacher"] = dense.source
        origin = dense if teacher is None else open_checkpoint(model)
        from_main(lambda: save_upstream(staging, student, origin, outcome, result, arguments))
        return result


def _prune(
    model: str | Path, out: Path, corpus: Corpus, pruning: dict[str, Any], report: Progress
) -> list[str]:
    """Prune in one shot, calibrated on texts of the corpus if necessary, and return the notes."""
    if "calibration" in pruning and pruning["calibration"] is None:
        texts = out.with_name("corpus.txt")  # the name that the lineage records
        chosen = selection(len(corpus), pruning["calibration_rows"])
        numbers = range(len(corpus)) if chosen is None else chosen
        lines = (" ".join(corpus.texts[number].split()) for number in numbers)
        texts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        pruning = {**pruning, "calibration": texts}
    notes = prune(model, out, **pruning, progress=report).notes
    return notes


def _calibration(
    method: str,
    texts: str | Path | None,
    rows: int,
    task: str | None,
    columns: DataOptions,
) -> dict[str, Any]:
    """The arguments of `prune` that concern calibration; DataError for any without effect."""
    calibrates = get_method(method, When.ONE_SHOT).needs is Needs.CALIBRATION
    if not calibrates and texts is not None:
        raise DataError(f"the method {method} does not calibrate: leave the calibration texts out.")
    if not calibrates and rows != CALIBRATION_ROWS:
        raise DataError(f"the method {method} does not calibrate: leave calibration_rows out.")
    if task is not None and texts is None:
        raise DataError(
            f"the task '{task}' only names the columns of calibration texts, and none were given: "
            "leave it out."
        )
    if not calibrates:
        return {}
    return {"calibration": texts, "calibration_rows": rows, "task": task, **columns.given()}


def _refuse_pruning(
    pruning: dict[str, Any], calibration: object, calibration_rows: int, task: object
) -> None:
    """TrainingError for options of pruning: with a teacher, the model is already pruned."""
    usual = {"pattern": "1:2", "method": "second-order", "parts": ["encoder"]}
    given = [name for name, value in usual.items() if pruning[name] != value]
    given += ["calibration"] if calibration is not None else []
    given += ["calibration_rows"] if calibration_rows != CALIBRATION_ROWS else []
    given += ["task"] if task is not None else []
    if given:
        raise TrainingError(
            f"with a teacher, the model keeps the zeros that it has: leave {' and '.join(given)} "
            "out."
        )


def _check_student(student: Checkpoint, dense: Checkpoint) -> None:
    """TrainingError unless the model is sparse and fits its dense teacher layer by layer."""
    if not read_masks(student):
        raise TrainingError(
            f"{student.source} is dense, but with a teacher it must already be pruned: without a "
            "teacher, it is pruned first and learns from its dense original."
        )
    sizes = ("num_hidden_layers", "hidden_size", "vocab_size")
    mine, other = ([getattr(each.config, name) for name in sizes] for each in (student, dense))
    if mine != other or student.config.head is not dense.config.head:
        raise TrainingError(
            f"{student.source} and its teacher {dense.source} differ in shape or head: use the "
            "dense model that it was pruned from."
        )
    if student.config.labels != dense.config.labels:
        raise TrainingError(
            f"{student.source} and its teacher {dense.source} have different labels: use the "
            "dense model that it was pruned from."
        )


def _check_options(dense: Checkpoint, options: UpstreamOptions) -> None:
    check_in_transformers(dense.config.family, dense.source)
    most = dense.config.max_length
    if options.max_length > most:
        raise TrainingError(
            f"max_length {options.max_length} is too large: {dense.path} has positions for at most "
            f"{most} tokens."
        )
    if options.embeddings == "used" and dense.config.head is Head.MASKED_LM:
        raise TrainingError(
            f"embeddings 'used' cannot be used with {dense.path}: it predicts tokens with its word "
            "embeddings, so all of them are used."
        )
    if options.masked_lm_weight and is_splade(dense.path):
        raise TrainingError(
            f"{dense.source} makes sparse embeddings (SPLADE) from its masked-LM head, and would "
            "unlearn them while learning to predict masked tokens: set masked_lm_weight to 0."
        )
    terms = ["hidden_weight"]
    if dense.pooling is not None and not dense.pooling.unsupported:
        terms += ["embedding_weight"]
    if dense.config.head is Head.MASKED_LM:
        terms += ["masked_lm_weight", "token_logits_weight"]
    elif dense.config.head is not Head.ENCODER:
        terms += ["logits_weight"]
    if not any(getattr(options, term) for term in terms):
        raise TrainingError(
            f"{' and '.join(terms)} are 0, so there is nothing to learn from {dense.path}."
        )


def _masking(
    dense: Checkpoint, tokenizer: PreTrainedTokenizerBase, options: UpstreamOptions
) -> Masking | None:
    """How tokens are masked; None without a masked-LM head, or if both its weights are 0."""
    learns = options.masked_lm_weight or options.token_logits_weight
    if dense.config.head is not Head.MASKED_LM or not learns:
        return None
    mask = tokenizer.mask_token_id
    if not isinstance(mask, int):
        raise CheckpointError(
            f"the tokenizer of {dense.path} has no [MASK] token, which a masked-LM head needs."
        )
    special = tuple(int(token) for token in tokenizer.all_special_ids)
    return Masking(options.masked, mask, special, dense.config.vocab_size)
