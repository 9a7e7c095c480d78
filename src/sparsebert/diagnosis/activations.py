"""What autograd keeps for the backward pass: bytes that training takes for each token.

Of B rows of n tokens, in L layers of hidden size H, intermediate size I and h heads: B n L a, where

    fp32      a = 32 H + 8 I + 4 h n         without dropout, without the last term if n > 256
              a = 40 H + 8 I + 12 h n        with it
    bf16      a = 24 H + 4 I + 2 h n         without, without the last term if n > 256
              a = 28 H + 4 I + 6 h n         with it
              a = 34 H + 4 I + 12 h n        with it and n > 256

Attention is computed plainly on rows of up to 256 tokens (`sparsebert.training.attention`), and
always where scores have a bias by distance, as in MPNet. A gated feed-forward (ModernBERT) keeps
twice the intermediate vectors and more; fused attention in a window keeps its mask of n numbers a
token besides. Where embeddings are projected (ELECTRA), what is added up from layer to layer is in
bf16 as well. Counted with torch 2.13, term by term; DistilBERT keeps up to a tenth of H less.
"""

from __future__ import annotations

from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.training.attention import LONGEST_PLAIN

# Bytes for each feature of a token's hidden state, of its intermediate one and for each of its
# attention probabilities, by precision, dropout and whether attention is computed plainly.
_PLAIN_FEED_FORWARD = {
    ("fp32", False, False): (32, 8, 0),
    ("fp32", False, True): (32, 8, 4),
    ("fp32", True, False): (40, 8, 12),
    ("fp32", True, True): (40, 8, 12),
    ("bf16", False, False): (24, 4, 0),
    ("bf16", False, True): (24, 4, 2),
    ("bf16", True, False): (34, 4, 12),
    ("bf16", True, True): (28, 4, 6),
}
_GATED_FEED_FORWARD = {
    ("fp32", False, False): (40, 16, 0),
    ("fp32", False, True): (32, 16, 4),
    ("fp32", True, False): (36, 20, 12),
    ("fp32", True, True): (36, 20, 12),
    ("bf16", False, False): (24, 8, 0),
    ("bf16", False, True): (20, 8, 6),
    ("bf16", True, False): (28, 10, 12),
    ("bf16", True, True): (22, 10, 8),
}
_BYTES = {"fp32": 4, "bf16": 2}


def activation_bytes(
    config: EncoderConfig, rows: int, tokens: int, *, dropout: bool, precision: str = "fp32"
) -> int:
    """What autograd keeps of ``rows`` of ``tokens`` each for the backward pass, in bytes.

    Of the encoder layers, with the attention that `finetune` chooses for such rows on a CPU.
    ``precision`` is "fp32" or "bf16".
    """
    family = config.family
    plain = tokens <= LONGEST_PLAIN or family.relative_bias
    table = _GATED_FEED_FORWARD if family.gated else _PLAIN_FEED_FORWARD
    hidden, inner, pairs = table[precision, dropout, plain]
    if precision == "bf16" and config.embedding_size != config.hidden_size:
        hidden -= 8
    per_token = hidden * config.hidden_size + inner * config.intermediate_size
    per_token += pairs * config.num_attention_heads * tokens
    kept = config.num_hidden_layers * per_token
    if not plain and not dropout:
        windows = sum(layer.window is not None for layer in config.attention)
        kept += windows * _BYTES[precision] * tokens
    return rows * tokens * kept
