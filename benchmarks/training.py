"""Fine-tuning speed: `sparsebert.finetune` and transformers' own Trainer, on the same rows.

    python benchmarks/training.py --model all-MiniLM-L6-v2 --task stsb --data data/stsb

Four ways train the same model with the same learning rate, batch size and epochs, and are scored by
the same code, in fp32 (ours train in bfloat16 where the CPU has it, unless --precision says fp32):

    run_glue            what transformers' run_glue.py does: every row padded to 128 tokens
    run_glue, dynamic   a fairer variant, with batches padded to their longest row
    finetune            ours with the same recipe, including dropout; trains only the word
                        embeddings that occur (embeddings="used")
    finetune, plain     ours without dropout

Every run is a process of its own. Rounds go through all ways, each round with the next seed and in
another order, so that other load on the machine affects all alike. The speed-up is the median of
the ratios within each round, and the score the mean over all rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsebert.machine import describe_machine
from sparsebert.tasks.table import TASK_NAMES
from sparsebert.training.options import PRECISIONS

WAYS = ("run_glue", "run_glue, dynamic", "finetune", "finetune, plain")
PADDED_LENGTH = 128  # run_glue.py's default for --max_seq_length
_DROPOUT = 0.1  # BERT's own, which run_glue.py uses


@dataclass(frozen=True)
class Settings:
    """The settings that all ways share."""

    model: str
    task: str
    data: str | None
    rows: int | None
    epochs: float
    learning_rate: float
    batch_size: int
    precision: str = "auto"  # of our ways; run_glue.py trains in fp32 unless told otherwise


@dataclass(frozen=True)
class Run:
    """One run: ``seconds`` of training by the clock, and the main metric in percent.

    ``cpu_seconds`` are those of the whole process and all its threads, including tokenising and
    scoring: other programs on the machine affect them less.
    """

    way: str
    seed: int
    rows: int
    seconds: float
    cpu_seconds: float
    score: float


def main() -> int:
    asked = parse()
    settings = Settings(
        str(Path(asked.model).resolve()) if Path(asked.model).exists() else asked.model,
        asked.task,
        asked.data,
        asked.rows,
        asked.epochs,
        asked.learning_rate,
        asked.batch_size,
        asked.precision,
    )
    ways = [way for way in WAYS if way in asked.ways]
    runs = []
    for turn in range(asked.rounds):
        start = turn % len(ways)
        for way in ways[start:] + ways[:start]:
            runs.append(in_own_process(way, settings, seed=turn + 1))
            done = runs[-1]
            tell(
                f"round {turn + 1}, {way}: {speed(done, settings):.1f} rows/s, "
                f"score {done.score:.2f}"
            )
    result = {
        "machine": describe_machine() | libraries(),
        "settings": {**asdict(settings), "model": Path(asked.model).name, "data": None},
        "runs": [asdict(run) for run in runs],
        "ways": [summary(way, runs, settings) for way in ways],
    }
    print(json.dumps(result) if asked.json else as_markdown(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a dense model's folder or hub id")
    parser.add_argument(
        "--task", default="stsb", choices=[name for name in TASK_NAMES if name != "squad"]
    )
    parser.add_argument("--data", help="the task's folder; by default, it is fetched from the hub")
    parser.add_argument("--rows", type=int, help="train on a fixed selection of this many rows")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--precision", default="auto", choices=PRECISIONS, help="of sparsebert's ways (auto)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, metavar="WAY")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return parser.parse_args()


def in_own_process(way: str, settings: Settings, seed: int) -> Run:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(train, way, settings, seed).result()


def train(way: str, settings: Settings, seed: int) -> Run:
    if way.startswith("run_glue"):
        return with_transformers(way, settings, seed)
    return with_sparsebert(way, settings, seed)


def with_sparsebert(way: str, settings: Settings, seed: int) -> Run:
    from sparsebert.evaluation.results import main_score
    from sparsebert.tasks.table import get_task
    from sparsebert.training import finetune

    with tempfile.TemporaryDirectory() as folder:
        result = finetune(
            settings.model,
            Path(folder) / "out",
            task=settings.task,
            data=settings.data,
            seed=seed,
            max_rows=settings.rows,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            weight_decay=0.0,
            warmup_ratio=0.0,
            embeddings="used",
            precision=settings.precision,
            dropout=0.0 if way.endswith("plain") else _DROPOUT,
        )
    score = main_score(get_task(settings.task), result.scores)
    return Run(way, seed, result.rows, result.seconds, time.process_time(), score)


def with_transformers(way: str, settings: Settings, seed: int) -> Run:
    """The Trainer as run_glue.py sets it up by default."""
    import transformers

    from sparsebert.checkpoint import resolve_model
    from sparsebert.evaluation.predictors import TorchPredictor
    from sparsebert.evaluation.results import main_score
    from sparsebert.evaluation.scoring import PreparedSplit
    from sparsebert.tasks.examples import load_split, validation_splits
    from sparsebert.tasks.table import Kind, get_task
    from sparsebert.torch_models import quiet_transformers

    task = get_task(settings.task)
    folder = str(resolve_model(settings.model))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    examples = load_split(task, settings.data, "train", max_rows=settings.rows)
    padded = way == "run_glue"
    encoded = tokenizer(
        examples.texts,
        examples.pairs,
        padding="max_length" if padded else False,
        max_length=PADDED_LENGTH,
        truncation=True,
    )
    rows = [
        {**{name: values[row] for name, values in encoded.items()}, "label": label}
        for row, label in enumerate(examples.labels.tolist())
    ]
    with quiet_transformers(), tempfile.TemporaryDirectory() as scratch:
        transformers.set_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1 if task.kind is Kind.REGRESSION else len(task.labels)
        )
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=scratch,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                seed=seed,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                log_level="error",
                dataloader_pin_memory=False,
            ),
            train_dataset=rows,
            data_collator=transformers.default_data_collator
            if padded
            else transformers.DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        predictor = TorchPredictor(model, settings.batch_size)
        scores = {}
        for split in validation_splits(task, settings.data):
            held_out = load_split(task, settings.data, split)
            prepared = PreparedSplit.make(held_out, tokenizer, PADDED_LENGTH)
            scores[split] = prepared.score(predictor).values
    return Run(way, seed, len(rows), seconds, time.process_time(), main_score(task, scores))


def speed(run: Run, settings: Settings) -> float:
    """Examples per second."""
    return run.rows * settings.epochs / run.seconds


def summary(way: str, runs: list[Run], settings: Settings) -> dict[str, Any]:
    """The result of a way: medians over rounds, and its ratio to both of transformers' ways."""
    mine = {run.seed: run for run in runs if run.way == way}
    found: dict[str, Any] = {
        "way": way,
        "rows_per_second": statistics.median(speed(run, settings) for run in mine.values()),
        "cpu_seconds": statistics.median(run.cpu_seconds for run in mine.values()),
        "score": statistics.fmean(run.score for run in mine.values()),
        "scores": [run.score for run in mine.values()],
    }
    for other in WAYS[:2]:
        theirs = {run.seed: run for run in runs if run.way == other}
        if theirs:
            ratios = [theirs[seed].seconds / run.seconds for seed, run in mine.items()]
            found[f"times {other}"] = statistics.median(ratios)
    return found


def libraries() -> dict[str, str]:
    import torch

    from sparsebert.training.saving import versions

    return {**versions(), "threads": str(torch.get_num_threads())}


def as_markdown(result: dict[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    lines = [
        f"{settings['model']} on {settings['task']}, {result['runs'][0]['rows']:,} rows, "
        f"{settings['epochs']:g} epochs, batch {settings['batch_size']}, learning rate "
        f"{settings['learning_rate']:g}, our precision {settings['precision']}; {machine['cpu']}, "
        f"{machine['threads']} threads, torch "
        f"{machine['torch']}, transformers {machine['transformers']}, {machine['date']}",
        "",
        "| way | rows/s | times run_glue | times dynamic | CPU s | score |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way in result["ways"]:
        ratios = (way.get(f"times {other}") for other in WAYS[:2])
        cells = ("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        lines.append(
            f"| {way['way']} | {way['rows_per_second']:.1f} | {' | '.join(cells)} | "
            f"{way['cpu_seconds']:.0f} | {way['score']:.2f} |"
        )
    return "\n".join(lines)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
