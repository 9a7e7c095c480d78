"""`sparsebert serve MODEL`: answers over HTTP, for clients of TEI, OpenAI and KServe.

sparsebert serve packed/
sparsebert serve dense=minilm/ sparse=packed/ --port 8080 --api-key "$KEY"
"""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated, Any

import typer

from sparsebert.cli.console import progress_bar, stderr

_API_KEY = "SPARSEBERT_API_KEY"


class LogLevel(str, Enum):
    """From what weight on events are logged; one request is an info."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _option(name: str, help: str, **more: Any) -> Any:
    """An option that may also be set by its environment variable, SPARSEBERT_ and its name."""
    variable = "SPARSEBERT_" + name.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, envvar=more.pop("envvar", variable), help=help, **more)


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL",
            envvar="SPARSEBERT_MODELS",
            help="Model folders, or model ids on the hub; the first is the default. NAME is what "
            "requests call one by, instead of the folder's own name or the id.",
        ),
    ],
    host: Annotated[
        str,
        _option(
            "--host",
            "The address to listen on; 0.0.0.0 is all of IPv4 and :: of both, and unix:PATH a "
            "socket in the file system.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, _option("--port", "The port; 0 takes a free one.", min=0, max=65535)] = (
        8080
    ),
    threads: Annotated[
        int | None,
        _option(
            "--threads",
            "Threads of each engine worker.",
            envvar="SPARSEBERT_NUM_THREADS",  # the engine's own
            min=1,
            max=1024,
            show_default="all cores, shared between the workers",
        ),
    ] = None,
    workers: Annotated[
        int, _option("--workers", "Engine workers of each model, a batch each.", min=1, max=64)
    ] = 1,
    max_length: Annotated[
        int | None,
        _option(
            "--max-length",
            "Tokens of a text at most, special tokens included.",
            min=1,
            show_default="the model's own",
        ),
    ] = None,
    max_concurrent_requests: Annotated[
        int,
        _option("--max-concurrent-requests", "Requests at a time; one more gets 429.", min=1),
    ] = 512,
    max_bytes_in_flight: Annotated[
        int,
        _option(
            "--max-bytes-in-flight",
            "Bytes of bodies, results and unread answers together; a request above gets 429.",
            min=1,
        ),
    ] = 268_435_456,
    max_batch_tokens: Annotated[
        int, _option("--max-batch-tokens", "Tokens through the engine together.", min=1)
    ] = 4096,
    max_client_batch_size: Annotated[
        int, _option("--max-client-batch-size", "Texts in one request, else 413.", min=1)
    ] = 2048,
    max_input_characters: Annotated[
        int, _option("--max-input-characters", "Characters of one text, else 413.", min=1)
    ] = 100_000,
    payload_limit: Annotated[
        int, _option("--payload-limit", "Bytes of one request's body, else 413.", min=1)
    ] = 2_000_000,
    auto_truncate: Annotated[
        bool,
        _option(
            "--auto-truncate/--no-auto-truncate",
            "Cut texts that are too long where the request does not say; else 413.",
        ),
    ] = False,
    accept_token_ids: Annotated[
        bool,
        _option(
            "--accept-token-ids/--no-accept-token-ids",
            "Take token ids on /v1/embeddings, which must be those of the model's own tokenizer.",
        ),
    ] = False,
    tokenization_workers: Annotated[
        int, _option("--tokenization-workers", "Threads that tokenise.", min=1, max=64)
    ] = 1,
    api_key: Annotated[
        str | None,
        _option(
            "--api-key",
            "Ask clients for 'Authorization: Bearer KEY'; /health stays open. Rather set the "
            "variable: other users of the machine can read a command line.",
            show_default="none",
        ),
    ] = None,
    cors_allow_origin: Annotated[
        list[str] | None,
        _option(
            "--cors-allow-origin",
            "An origin whose web pages may ask, such as https://example.org; may be repeated.",
            show_default="none",
        ),
    ] = None,
    root_path: Annotated[
        str,
        _option(
            "--root-path",
            "The path below which a proxy shows the server, such as /encoder.",
            show_default="none",
        ),
    ] = "",
    keep_alive: Annotated[
        int,
        _option(
            "--keep-alive",
            "Seconds that a connection may be idle; more than the load balancer's own limit.",
            min=1,
        ),
    ] = 75,
    shutdown_delay: Annotated[
        int,
        _option(
            "--shutdown-delay",
            "Seconds that a stop goes on answering, while /health says 503, so that load balancers "
            "take their requests elsewhere.",
            min=0,
        ),
    ] = 0,
    shutdown_timeout: Annotated[
        int,
        _option(
            "--shutdown-timeout", "Seconds that a stop waits for answers to be finished.", min=0
        ),
    ] = 30,
    log_level: Annotated[
        LogLevel, _option("--log-level", "What to log; each request is an info.")
    ] = LogLevel.INFO,
    json: Annotated[
        bool, _option("--json", "Log JSON objects, one a line, instead of logfmt.")
    ] = False,
) -> None:
    """Serve models over HTTP until SIGTERM or SIGINT, then finish what is in flight.

    Routes of text-embeddings-inference, OpenAI's embeddings and the Open Inference Protocol; a
    page at / tries them and /docs documents them. Every option can be set by an environment
    variable too.
    """
    from sparsebert.extras import need_extra

    modules = ("fastapi", "fastapi_offline", "uvicorn", "httptools", "orjson", "prometheus_client")
    need_extra("serve", *modules, extra="serve")
    # A variable set to nothing counts as none to the command line, and would open the server.
    if (os.environ.get(_API_KEY) if api_key is None else api_key) == "":
        raise typer.BadParameter(
            f"the key is empty: give one, or leave out {_API_KEY} too.", param_hint="--api-key"
        )
    if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
        raise typer.BadParameter("begin with a slash, and end without.", param_hint="--root-path")
    # Tokenisation has threads of its own; the library's would take the engine's cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sparsebert.engine import default_threads
    from sparsebert.serving import ServingOptions, create_app, load_models
    from sparsebert.serving.server import listen, run, set_up_logging

    with progress_bar() as progress:
        progress("loading", 0, 0)
        loaded = load_models(
            models,
            threads=threads or max(1, default_threads() // workers),
            workers=workers,
            max_length=max_length,
        )
    options = ServingOptions(
        max_concurrent_requests=max_concurrent_requests,
        max_bytes_in_flight=max_bytes_in_flight,
        max_batch_tokens=max_batch_tokens,
        max_client_batch_size=max_client_batch_size,
        max_input_characters=max_input_characters,
        payload_limit=payload_limit,
        auto_truncate=auto_truncate,
        accept_token_ids=accept_token_ids,
        tokenization_workers=tokenization_workers,
        api_key=api_key,
        cors_allow_origin=tuple(cors_allow_origin or ()),
        root_path=root_path,
    )
    app = create_app(loaded, options)
    listener = listen(host, port)
    set_up_logging(log_level.value, as_json=json)
    for model in loaded:
        stderr.print(f"{model.name}: {model.model!r}", markup=False)
    run(
        app,
        listener,
        keep_alive=keep_alive,
        shutdown_delay=shutdown_delay,
        shutdown_timeout=shutdown_timeout,
    )
