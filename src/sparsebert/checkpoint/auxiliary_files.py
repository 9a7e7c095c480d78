"""The auxiliary files of a model folder: config, tokenizer, pooling modules, labels, licences."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.bge_m3 import HEADS, check_converted, head_file
from sparsebert.checkpoint.config import CONFIG_NAME, write_config
from sparsebert.checkpoint.folder_files import check_inside, has_file
from sparsebert.checkpoint.json_files import read_object, write_json
from sparsebert.checkpoint.model_files import auxiliary_files, weight_files
from sparsebert.checkpoint.modules import (
    MODULES_NAME,
    module_folders,
    transformer_folder,
    transformer_on_top,
)
from sparsebert.checkpoint.sentence_config import SENTENCE_CONFIGS
from sparsebert.checkpoint.tokenizer import write_tokenizer
from sparsebert.checkpoint.tokenizer_settings import TOKENIZER_CONFIG_NAME

# The keys of a length limit in sentence-transformers' settings, and of nested settings.
_LIMITS = ("max_seq_length", "model_max_length", "max_length")
_HANDED_ON = ("processor_kwargs", "tokenizer_args", "processing_kwargs", "text", "common")


def write_auxiliary_files(
    folder: Path,
    raw: dict[str, Any],
    *,
    source: Path,
    trained_length: int | None = None,
    pickles: bool = False,
) -> None:
    """Write everything in a model folder except weights, masks and card.

    That is config.json (``raw``), the files of ``source`` (`copy_auxiliary_files`), with texts
    limited to ``trained_length`` tokens (`write_trained_length`), and a self-contained
    tokenizer.json (`tokenizer.write_tokenizer`). Raises CheckpointError for heads that are still
    pickles, unless the caller converts such ``pickles``.
    """
    if not pickles:
        check_converted(source)
    copy_auxiliary_files(source, folder)
    if trained_length is not None:
        write_trained_length(folder, trained_length)
    write_config(folder, raw)
    write_tokenizer(folder)


def copy_auxiliary_files(source: Path, target: Path) -> None:
    """Copy tokenizer files, pooling modules, label files and licences into ``target``.

    Not copied: weights of the transformer in any format, config.json, README.md (each step writes
    its own), the scores of `evaluate` and hidden files. If sentence-transformers put the
    transformer in a sub-folder, its files go to the top of ``target`` and modules.json is adapted,
    so that transformers can open every folder that sparsebert writes.
    """
    transformer = transformer_folder(source)
    heads = [head for head in (source / head_file(name) for name in HEADS) if has_file(head)]
    for folder in {source: None, transformer: None}:
        files = [path for path in auxiliary_files(folder) if path.name != CONFIG_NAME]
        _copy(files, target, source)
    _copy(heads, target, source)
    for folder in module_folders(source):
        if folder != transformer:
            inner = target / folder.relative_to(source)
            inner.mkdir(parents=True, exist_ok=True)
            # With the weights of a Dense or LayerNorm.
            _copy(auxiliary_files(folder) + weight_files(folder), inner, source)
    if transformer != source:
        for name, content in transformer_on_top(source).items():
            write_json(target / name, content)


def write_trained_length(folder: Path, tokens: int) -> None:
    """Limit texts to ``tokens`` tokens in a folder whose tokenizer is at its top.

    The limit is not part of the weights, and what a model returns for texts longer than those it
    was trained on was neither trained nor scored. So fine-tuning writes its length where other
    tools look for it: transformers' pipelines and CrossEncoder truncate texts to the tokenizer's
    ``model_max_length``, and so does SentenceTransformer if its own settings have no limit. The
    lineage distinguishes this limit from the tokenizer's original one (`sparsity.trained_length`).
    """
    file = folder / TOKENIZER_CONFIG_NAME
    settings = read_object(file) if has_file(file) else {}
    write_json(file, {**settings, "model_max_length": tokens})
    if not has_file(folder / MODULES_NAME):
        return
    for file in (folder / name for name in SENTENCE_CONFIGS):
        if has_file(file):
            write_json(file, _limited(read_object(file), tokens))


def _copy(files: Iterable[Path], target: Path, root: Path) -> None:
    for path in files:
        check_inside(path, root)
        shutil.copyfile(path, target / path.name)


def _limited(settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Settings in which every limit that is set is ``tokens``."""
    limited: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _LIMITS and value is not None:
            value = tokens
        elif name in _HANDED_ON and isinstance(value, dict):
            value = _limited(value, tokens)
        limited[name] = value
    return limited
