"""`sparsebert push`: a model folder to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, ModelArgument, emit


def push(
    model: ModelArgument,
    repo_id: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="Where to: owner/model; made if missing.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Only for a repository that others do not see.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch.", show_default="main")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="The commit's message.")
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Propose it instead of committing it.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="For the card: the model on the hub that it was made of."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Upload a packed, sparse or dense folder with its model card to the Hugging Face hub.

    The token is that of `hf auth login`, or of the environment variable HF_TOKEN. Only the files
    of the model go up; none of them is a pickle.
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
