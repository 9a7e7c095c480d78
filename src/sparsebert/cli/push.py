"""`sparsebert push`: a model folder to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, emit


def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder to upload.")],
    repo_id: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY", help="Where to push, as owner/model; created if missing."
        ),
    ],
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Create the repository as private; refuse one that is public."
        ),
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to commit to.", show_default="main")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Commit message.")
    ] = None,
    pull_request: Annotated[
        bool,
        typer.Option(
            "--pull-request", help="Open a pull request instead of committing to the branch."
        ),
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="For the card: hub id of the model that this one was made from."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Upload a model folder, with its card, to the Hugging Face hub.

    The folder may be packed, sparse or dense. The token is that of `hf auth login`, or of the
    environment variable HF_TOKEN. Only the model's files are uploaded; none of them is a pickle.
    """
    from sparsebert.checkpoint.publishing import push_to_hub

    address = push_to_hub(
        model,
        repo_id,
        private=private or None,
        revision=revision,
        commit_message=message,
        create_pr=pull_request,
        base_model=base_model,
    )
    emit({"model": model, "repository": repo_id, "url": address}, address, as_json=json)
