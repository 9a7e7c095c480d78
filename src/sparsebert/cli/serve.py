"""`sparsebert serve MODEL`: answers over HTTP, for clients of TEI, OpenAI and KServe.

sparsebert serve packed/
sparsebert serve dense=minilm/ sparse=packed/ --port 8080 --api-key "$KEY"
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from sparsebert.cli.console import progress_bar, stderr
from sparsebert.cli.lines import InferenceOptions
from sparsebert.cli.options import NOTHING, Given, Group
from sparsebert.serving.options import ServingOptions

_API_KEY = "SPARSEBERT_API_KEY"
LogLevel = Literal["debug", "info", "warning", "error"]


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL",
            envvar="SPARSEBERT_MODELS",
            help="Model folders, or ids on the Hugging Face hub; a request that names no model "
            "goes to the first that can answer it. NAME is the model's name in requests, instead "
            "of its folder's name or id.",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on; 0.0.0.0 is all of IPv4, :: all of IPv6 and IPv4, unix:PATH "
            "a Unix socket.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = 8080,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            help="CPU threads per engine worker.",
            envvar="SPARSEBERT_NUM_THREADS",  # the engine's own
            min=1,
            max=1024,
            show_default="all cores, divided among the workers",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            help="Engine workers per model, each running a batch of its own.",
            min=1,
            max=64,
        ),
    ] = 1,
    mapped: Annotated[
        bool,
        typer.Option(
            "--mapped",
            help="Map the weight files, so that several servers share them, instead of reading "
            "them into memory. Replace such a file only by renaming another over it.",
        ),
    ] = False,
    inference: Annotated[Given, Group(InferenceOptions, ("max_length", "compute"))] = NOTHING,
    limits: Annotated[Given, Group(ServingOptions)] = NOTHING,
    cors_allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-allow-origin",
            help="Origin whose web pages may call the server, such as https://example.org; may be "
            "repeated.",
            show_default="none",
        ),
    ] = None,
    keep_alive: Annotated[
        int,
        typer.Option(
            "--keep-alive",
            help="Seconds that a connection may be idle; should exceed the load balancer's own "
            "limit.",
            min=1,
        ),
    ] = 75,
    shutdown_delay: Annotated[
        int,
        typer.Option(
            "--shutdown-delay",
            help="Seconds for which a stopping server goes on answering while /health returns 503, "
            "so that load balancers send their requests elsewhere.",
            min=0,
        ),
    ] = 0,
    shutdown_timeout: Annotated[
        int,
        typer.Option(
            "--shutdown-timeout",
            help="Seconds for which a stopping server then waits for responses to finish.",
            min=0,
        ),
    ] = 30,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level", help="Least severe level to log; each request is logged as info."
        ),
    ] = "info",
    json: Annotated[bool, typer.Option("--json", help="Log JSON lines instead of logfmt.")] = False,
) -> None:
    """Serve models over HTTP until SIGTERM or SIGINT.

    Has the routes of text-embeddings-inference, OpenAI's embeddings and the Open Inference
    Protocol; a page at / tries them and /docs documents them. Before it exits, it finishes the
    requests in flight. Every option can also be set by an environment variable.
    """
    from sparsebert.extras import need_extra

    modules = ("fastapi", "fastapi_offline", "uvicorn", "httptools", "orjson", "prometheus_client")
    need_extra("serve", *modules, extra="serve")
    # The command line treats an empty variable as unset, which would leave the server open.
    if limits.get("api_key", os.environ.get(_API_KEY)) == "":
        raise typer.BadParameter(
            f"the key is empty: set one, or omit the option and unset {_API_KEY}.",
            param_hint="--api-key",
        )
    root_path = limits.get("root_path", "")
    if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
        raise typer.BadParameter(
            "must begin with a slash and must not end with one.", param_hint="--root-path"
        )
    # Tokenisation runs in its own threads; the library's would compete with the engine for cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sparsebert.engine import default_threads
    from sparsebert.serving import create_app, load_models
    from sparsebert.serving.server import listen, run, set_up_logging

    with progress_bar() as progress:
        progress("loading", 0, 0)
        loaded = load_models(
            models,
            threads=threads or max(1, default_threads() // workers),
            workers=workers,
            copied=not mapped,
            **inference,
        )
    options = ServingOptions(**limits, cors_allow_origin=tuple(cors_allow_origin or ()))
    app = create_app(loaded, options)
    listener = listen(host, port)
    set_up_logging(log_level, as_json=json)
    for model in loaded:
        stderr.print(f"{model.name}: {model.model!r}", markup=False)
    run(
        app,
        listener,
        keep_alive=keep_alive,
        shutdown_delay=shutdown_delay,
        shutdown_timeout=shutdown_timeout,
    )
