"""What a server accepts and how much of it; `sparsebert serve` has a flag for each field."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ServingOptions:
    """Limits and choices of a server; names and defaults are text-embeddings-inference's.

    | field | what it limits or chooses |
    |---|---|
    | ``max_concurrent_requests`` | requests being answered at a time; one more gets 429 |
    | ``max_bytes_in_flight`` | bytes of bodies, results and unread answers together, else 429 |
    | ``max_batch_tokens`` | tokens that go through the engine together |
    | ``max_client_batch_size`` | texts in one request, else 413 |
    | ``max_input_characters`` | characters of one text, else 413 |
    | ``payload_limit`` | bytes of a request's body, else 413 |
    | ``auto_truncate`` | whether too long texts are cut where a request does not say |
    | ``accept_token_ids`` | whether ``/v1/embeddings`` takes token ids as this model's own |
    | ``tokenization_workers`` | threads that turn texts into tokens |
    | ``api_key`` | what clients must send as ``Authorization: Bearer ...``; None: anyone may ask |
    | ``cors_allow_origin`` | origins whose web pages may ask; ``*`` for all |
    | ``root_path`` | the path below which a proxy shows the server, such as ``/encoder`` |
    """

    max_concurrent_requests: int = 512
    max_bytes_in_flight: int = 268_435_456
    max_batch_tokens: int = 4096
    max_client_batch_size: int = 2048
    max_input_characters: int = 100_000
    payload_limit: int = 2_000_000
    auto_truncate: bool = False
    accept_token_ids: bool = False
    tokenization_workers: int = 1
    api_key: str | None = field(default=None, repr=False)
    cors_allow_origin: tuple[str, ...] = ()
    root_path: str = ""
