"""The options of a server, declared once: `sparsebert serve` has a flag for each."""

from __future__ import annotations

from dataclasses import dataclass

from sparsebert.errors import InputError
from sparsebert.options import Options, option


@dataclass(frozen=True)
class ServingOptions(Options):
    """Options of a server, named as in text-embeddings-inference where it has the same option.

    `sparsebert serve` has a flag for each of them.

    | field | meaning |
    |---|---|
    | ``max_concurrent_requests`` | requests in flight at a time; one more gets 429 |
    | ``max_bytes_in_flight`` | bytes of bodies, results and unread responses, else 429 |
    | ``max_batch_tokens`` | tokens in one batch of the engine (dynamic batching) |
    | ``max_client_batch_size`` | texts in one request, else 413 |
    | ``max_input_characters`` | characters of a text that is not to be truncated, else 413 |
    | ``payload_limit`` | bytes of a request's body, else 413 |
    | ``auto_truncate`` | whether texts that are too long are truncated by default |
    | ``accept_token_ids`` | whether ``/v1/embeddings`` accepts token ids of the model |
    | ``tokenization_workers`` | threads that tokenise |
    | ``api_key`` | what clients must send as ``Authorization: Bearer ...``; None for no key |
    | ``cors_allow_origin`` | origins whose web pages may call the server; ``*`` for all |
    | ``root_path`` | the path under which a proxy serves it, such as ``/encoder`` |

    Raises InputError for a value that has the wrong type or is out of range.
    """

    error = InputError
    purpose = "serving"

    max_concurrent_requests: int = option(
        512, least=1, help="Requests at a time; one more gets 429."
    )
    max_bytes_in_flight: int = option(
        268_435_456,
        least=1,
        help="Bytes of bodies, results and unread responses together; requests beyond that get "
        "429.",
    )
    max_batch_tokens: int = option(4096, least=1, help="Tokens per batch of the engine.")
    max_client_batch_size: int = option(2048, least=1, help="Texts per request; more get 413.")
    max_input_characters: int = option(
        100_000, least=1, help="Characters of a text that is not to be truncated; more get 413."
    )
    payload_limit: int = option(2_000_000, least=1, help="Bytes of a request's body; more get 413.")
    auto_truncate: bool = option(
        False,
        help="Truncate texts that are too long, unless the request says otherwise; if off, they "
        "get 413.",
        negatable=True,
    )
    accept_token_ids: bool = option(
        False,
        help="Accept token ids on /v1/embeddings, which must be those of the model's own "
        "tokenizer.",
        negatable=True,
    )
    tokenization_workers: int = option(1, least=1, most=64, help="Threads that tokenise.")
    api_key: str | None = option(
        None,
        help="Require 'Authorization: Bearer KEY' of clients; /health stays open. Prefer the "
        "variable: other users of the machine can read command lines.",
        shown_default="none",
        repr=False,
    )
    cors_allow_origin: tuple[str, ...] = option(())
    root_path: str = option(
        "",
        help="Path under which a proxy exposes the server, such as /encoder.",
        shown_default="none",
    )
