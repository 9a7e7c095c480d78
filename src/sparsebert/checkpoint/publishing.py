"""Publish a whole model folder: as a copy on disk, or in a repository on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.card import CARD_NAME, published_card
from sparsebert.checkpoint.config import CONFIG_NAME, parse_config
from sparsebert.checkpoint.folder import open_checkpoint
from sparsebert.checkpoint.folder_files import check_inside
from sparsebert.checkpoint.hub import HUB_ID
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.model_files import is_weights, published_files, weight_files
from sparsebert.checkpoint.modules import transformer_folder
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.checkpoint.tensors import PACKED_NAME
from sparsebert.errors import CheckpointError, InputError, OutputError


def copy_model(folder: Path, out: str | Path, *, force: bool = False) -> Path:
    """Copy a packed, sparse or dense folder as it is, whole or not at all; returns ``out``.

    Weights, config, tokenizer, pooling, card and records are copied, and nothing else. Raises
    OutputError as every step does, and CheckpointError for a link that leads out of the folder.
    """
    with staged_folder(out, force=force, source=folder) as staging:
        for name, path in published_files(folder).items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return Path(out)


def copy_weights(folder: Path, target: Path) -> None:
    """Copy config and weights into a folder that may exist, each file whole or not at all.

    Weights of another model in that folder are removed, because they could be read instead. The
    parts of a sentence-transformers model are saved one by one into the same folder, so this does
    not replace the folder, and leaves out the parts in sub-folders.
    """
    target.mkdir(parents=True, exist_ok=True)
    source = transformer_folder(folder)
    files = {path.name: path for path in (source / CONFIG_NAME, *weight_files(source))}
    for name, path in files.items():
        check_inside(path, source)
        try:
            with replaced_file(target / name) as unfinished:
                shutil.copyfile(path, unfinished)
        except OSError as error:
            raise OutputError(f"{target / name} could not be written: {error}.") from error
    for path in target.iterdir():
        if is_weights(path) and path.name not in files:
            path.unlink()


def push_to_hub(
    model: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    base_model: str | None = None,
) -> str:
    """Upload a model folder to a repository on the Hugging Face hub, in one commit.

    The repository is created if it does not exist; with ``private``, an existing public one is
    refused. ``token`` defaults to HF_TOKEN, or to the token saved by ``hf auth login``.
    ``base_model`` (a hub id) is written into the model card unless that already names one. Returns
    the URL of the commit, or with ``create_pr`` that of the pull request. Raises CheckpointError if
    ``model`` is not a model folder, InputError for an invalid repository name or ``base_model``,
    and OutputError, without the token in its message, for an error from the hub.
    """
    folder = Path(model)
    _check_model(folder)
    if not HUB_ID.fullmatch(repo_id):
        raise InputError(f"'{repo_id}' is not a valid repository name: use owner/model.")
    if base_model is not None and not HUB_ID.fullmatch(base_model):
        raise InputError(f"the base model '{base_model}' is not a valid hub id.")
    from huggingface_hub import CommitOperationAdd, HfApi

    contents: dict[str, Any] = dict(published_files(folder))
    packed = (folder / PACKED_NAME).is_file()
    contents[CARD_NAME] = published_card(folder, packed=packed, base_model=base_model).encode()
    operations = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in contents.items()
    ]
    api = HfApi(token=token, library_name="sparsebert")
    try:
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repository).private:
            raise OutputError(f"{repository} is public on the hub: nothing was pushed to it.")
        commit = api.create_commit(
            repository,
            operations,
            commit_message=commit_message or f"Upload {folder.resolve().name} with sparsebert",
            revision=revision,
            create_pr=create_pr,
        )
    except OutputError:
        raise
    except Exception as error:  # the library's own errors share no base class
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if token:
            reason = reason.replace(token, "...")
        raise OutputError(f"{folder} could not be pushed to {repo_id}: {reason}") from None
    return str(commit.pr_url or commit.commit_url)


def _check_model(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder.")
    if (folder / PACKED_NAME).is_file():
        parse_config(read_object(folder / CONFIG_NAME), (), folder / CONFIG_NAME)
    else:
        open_checkpoint(folder)
