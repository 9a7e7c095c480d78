"""A model in the engine with its folder's tokenizer: what all models share, whatever their head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsebert.checkpoint import EncoderConfig, Head, Pooling, Prompts, ScoreFunction
from sparsebert.checkpoint.multi_vector import MultiVector, Task
from sparsebert.checkpoint.publishing import copy_model, push_to_hub
from sparsebert.checkpoint.sparse_routes import SparsePooling, SparseRoutes, TokenTable
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.engine import Encoder
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.batching import EngineCall, Floats, run
from sparsebert.inference.multi_vector import TokenVectors
from sparsebert.inference.pooling import Pooler
from sparsebert.inference.sequences import Tokens, as_token_sequences, with_keys
from sparsebert.inference.sparse import TokenLookup, TokenWeigher
from sparsebert.inference.texts import Text, as_texts
from sparsebert.inference.tokenizing import TextTokenizer
from sparsebert.packing.weights import Weights, bytes_held, describe_storage

if TYPE_CHECKING:
    from typing_extensions import Self

# What a model with this head is called, and the methods and commands that fit it.
FITTING = {
    Head.ENCODER: ("an encoder without a head", "embed"),
    Head.SEQUENCE: ("a sequence-classification model", "classify or embed"),
    Head.QUESTION: ("a question-answering model", "answer or embed"),
    Head.TOKEN: ("a token-classification model", "tag or embed"),
    Head.MASKED_LM: ("a masked-LM model", "fill, embed_sparse or embed"),
}
_NEEDED = {
    "classify": Head.SEQUENCE,
    "answer": Head.QUESTION,
    "tag": Head.TOKEN,
    "fill": Head.MASKED_LM,
}


class LoadedModel:
    """The engine, the tokenizer, the folder's settings, and raw outputs."""

    def __init__(
        self,
        *,
        name: str,
        path: Path,
        config: EncoderConfig,
        tokenizer: TextTokenizer | None,
        encoder: Encoder,
        weights: Weights,
        pooling: Pooling,
        sparse_routes: SparseRoutes,
        multi_vector: MultiVector | None,
        token_weights: VectorLayer | None,
        prompts: Prompts,
        score_function: ScoreFunction,
        score_prompt: str,
        relevance_function: ScoreFunction,
        load_again: Callable[[str, Path], LoadedModel],
    ) -> None:
        self.name = name
        self.path = path
        self.config = config
        self.pooling = pooling
        self.pooler = Pooler(pooling, config.hidden_size)
        self._sparse_routes = sparse_routes
        self._lookup = cache(TokenLookup)  # a table is opened only once
        self.token_vectors = (
            TokenVectors(multi_vector, tokenizer, config.hidden_size) if multi_vector else None
        )
        self.token_weigher = TokenWeigher(token_weights, tokenizer) if token_weights else None
        self.prompts = prompts
        self.score_function, self.score_prompt = score_function, score_prompt
        self.relevance_function = relevance_function
        self._load_again = load_again
        self.nbytes = bytes_held(weights)
        self._storage = describe_storage(weights)
        self._weights = weights
        self._tokenizer = tokenizer
        self._encoder = encoder

    @property
    def threads(self) -> int:
        """Number of threads that the engine uses."""
        return int(self._encoder.threads)

    @property
    def instruction_set(self) -> str:
        """The instruction set of the engine's kernels, such as avx512-vnni or avx512-amx."""
        return str(self._encoder.instruction_set)

    @property
    def kernel(self) -> str | None:
        """The engine's kernel for int8 layers and why it was chosen; None if there was no choice.

        In bf16, it names the instructions that are used, or says that the CPU has none.
        """
        return self._encoder.kernel

    @property
    def max_length(self) -> int:
        """Maximum number of tokens read of a text, including special tokens."""
        return self._tokenizer.max_length if self._tokenizer else self.config.max_length

    @property
    def storage(self) -> str:
        """How the encoder's matrices are stored, for example ``1:2 int8`` or ``dense fp32``."""
        return self._storage

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer. Raises CheckpointError for a folder without tokenizer files."""
        if self._tokenizer is None:
            raise CheckpointError(
                f"{self.name} has no tokenizer.json and no vocabulary, so it cannot read texts: "
                "add one, or pass token ids to forward()."
            )
        return self._tokenizer

    @property
    def encoder(self) -> Encoder:
        """The native engine with this model's weights."""
        return self._encoder

    def with_own_engine(self) -> Self:
        """A copy with an engine and threads of its own, which uses the same weights in memory."""
        made = self.__copy__()
        compute = self._encoder.compute
        made._encoder = Encoder(self.config, self._weights, threads=self.threads, compute=compute)
        return made

    def __repr__(self) -> str:
        shape = f"{self.config.num_hidden_layers}x{self.config.hidden_size}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        compute = f" computed in {self._encoder.compute}" if self._encoder.compute else ""
        return (
            f"<sparsebert.Model {self.name}: {self.config.head.value}, {shape}, "
            f"{self._storage}{compute}, {self.nbytes / 1e6:.1f} MB, "
            f"{self.instruction_set}, {threads}>"
        )

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._load_again, (self.name, self.path.absolute())

    def sparse_route(self, task: Task | None) -> TokenWeigher | TokenLookup | SparsePooling:
        """How sparse embeddings are made of queries, of documents, or of texts without a task."""
        if self.token_weigher is not None:
            return self.token_weigher
        route = self._sparse_routes.of(task)
        return self._lookup(route) if isinstance(route, TokenTable) else route

    def require(self, verb: str) -> None:
        """Raise InputError unless the model's head supports ``verb``.

        ``verb`` is "classify", "answer", "tag" or "fill". The message says what the model can do
        instead.
        """
        if self.config.head is not _NEEDED[verb]:
            kind, fitting = FITTING[self.config.head]
            raise InputError(f"{self.name} is {kind} and cannot {verb}: it can {fitting}.")

    def logits(
        self, texts: Text | Iterable[Text], *, batch_size: int = 32, strict: bool = False
    ) -> Any:
        """The head's output for each text, as `forward` returns it.

        For a single text, only its own output: ``[labels]``, or ``[tokens, ...]``. The default
        prompt of a CrossEncoder is put before each text, as in sentence-transformers. Raises
        InputError for a model without a head.
        """
        if self.config.head is Head.ENCODER:
            raise InputError(
                f"{self.name} is an encoder without a head and has no logits: use embed or "
                "hidden_states, or fine-tune it on a task first."
            )
        given = as_texts(texts, self.score_prompt)
        rows = self._head(self.tokenizer.encode(given, strict=strict), batch_size)
        return rows[0] if given.single else rows

    def hidden_states(
        self, texts: Text | Iterable[Text], *, batch_size: int = 32, strict: bool = False
    ) -> Any:
        """The last layer: a list of float32 ``[tokens, hidden]``, one array for a single text."""
        given = as_texts(texts)
        rows = self._per_token("hidden", self.tokenizer.encode(given, strict=strict), batch_size)
        return rows[0] if given.single else rows

    def forward(
        self,
        ids: Iterable[Sequence[int]],
        type_ids: Iterable[Sequence[int]] | None = None,
        *,
        keys: Sequence[int] | None = None,
        batch_size: int = 32,
        head: bool = True,
    ) -> Any:
        """The head's output for lists of token ids (with special tokens), without the tokenizer.

        | head | result |
        |---|---|
        | sequence classification | float32 ``[sequences, labels]`` |
        | question answering | list of float32 ``[tokens, 2]``, start and end |
        | token classification | list of float32 ``[tokens, labels]`` |
        | masked LM | list of float32 ``[tokens, vocabulary]`` |
        | none | list of float32 ``[tokens, hidden]``, the last layer |

        With ``head=False``, the result is the last layer, whatever the head. ``keys`` may then say,
        for each sequence, how many of its first tokens are attended to; the tokens after them
        attend to these alone. Raises InputError for an id outside the vocabulary, a sequence that
        is empty or too long, wrong nesting, or ``keys`` that the model cannot compute.
        """
        tokens = as_token_sequences(
            ids,
            type_ids,
            vocab_size=self.config.vocab_size,
            type_vocab_size=self.config.type_vocab_size,
            max_positions=self.config.max_length,
        )
        if not head or self.config.head is Head.ENCODER:
            if keys is not None:
                tokens = with_keys(tokens, keys)
                if self.config.disentangled and any(each.keys != len(each) for each in tokens):
                    # transformers' DeBERTa sets the other tokens to zero
                    raise InputError(f"{self.name} is a DeBERTa, for which keys are not supported.")
            return self._per_token("hidden", tokens, batch_size)
        if keys is not None:
            raise InputError("keys are for the last layer only: pass head=False.")
        return self._head(tokens, batch_size)

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Copy the model's folder as it is, packed or not, and return the path of the copy.

        Raises OutputError if ``folder`` exists (without ``force``) or cannot be written.
        """
        return copy_model(self.path, folder, force=force)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model's folder to the Hugging Face hub; see `sparsebert.push_to_hub`."""
        return push_to_hub(self.path, repo_id, **options)

    def _head(self, tokens: Sequence[Tokens], batch_size: int) -> Any:
        if self.config.head is Head.SEQUENCE:
            return self._text_logits(tokens, batch_size)
        return self._per_token("head", tokens, batch_size)

    @property
    def logits_call(self) -> EngineCall:
        """The engine call for a classifier's logits; `logits_of` turns its output into logits."""
        return self.pooler.score_call() if self.pooling.scores else EngineCall("head")

    def logits_of(self, rows: Sequence[Floats] | Floats) -> Floats:
        """The logits, float32 ``[texts, labels]``, from the engine's output for `logits_call`."""
        if self.pooling.scores:
            return self.pooler.embeddings(self.logits_call, rows, normalize=False)
        return np.reshape(rows, (-1, len(self.config.labels)))

    def _text_logits(self, tokens: Sequence[Tokens], batch_size: int) -> Floats:
        call = self.logits_call
        width = len(self.config.labels) if call.method == "head" else self.config.hidden_size
        return self.logits_of(run(self._encoder, call, self._checked(tokens), batch_size, width))

    def _per_token(
        self, method: Literal["head", "hidden"], tokens: Sequence[Tokens], batch_size: int
    ) -> list[Floats]:
        call = EngineCall(method, per_token=True)
        rows: list[Floats] = run(self._encoder, call, self._checked(tokens), batch_size)
        return rows

    def _checked(self, tokens: Sequence[Tokens]) -> Sequence[Tokens]:
        """Refuse ids outside the embedding tables, which the engine indexes unchecked."""
        for sequence in tokens:
            check_ids(self.name, self.config, sequence.ids, sequence.type_ids)
        return tokens
