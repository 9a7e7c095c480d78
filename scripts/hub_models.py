"""The encoders of docs/models.md: family, head, and the keys of their config.json.

Main sizes are left out, since models_table.py makes small stand-ins, and so are keys of layouts
that tests/support writes (Jina's). Those of NomicBERT and GTE are shared with the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hub_folders import GTE, NOMIC  # tests/support

WINDOW = 16  # for local attention and DeBERTa's distance buckets, reduced to suit short texts


@dataclass(frozen=True)
class Model:
    """An encoder on the hub: ``config`` has the keys of its config.json, without its main sizes.

    ``kind`` is the family whose kind of tokenizer it has, ``code`` the layout of its authors' own
    code ("" if transformers reads it).
    """

    name: str
    family: str = "bert"
    head: str = "encoder"
    heads: int = 12
    config: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    code: str = ""


_BERT = {
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
}
_ROBERTA = {**_BERT, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
_DISTILBERT = {
    "activation": "gelu",
    "attention_dropout": 0.1,
    "dropout": 0.1,
    "initializer_range": 0.02,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
}
_ALBERT = {
    "attention_probs_dropout_prob": 0,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 70,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0,
    "initializer_range": 0.02,
    "inner_group_num": 1,
    "layer_norm_eps": 1e-12,
    "net_structure_type": 0,
    "num_hidden_groups": 1,
    "num_memory_blocks": 0,
    "type_vocab_size": 2,
}
_ELECTRA = {
    **_BERT,
    "embedding_size": 120,
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
}
_MPNET = {
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "relative_attention_num_buckets": 32,
}
_DEBERTA = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "position_buckets": WINDOW,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
}
_MODERNBERT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "local_attention": WINDOW,
    "local_rope_theta": 10000.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "norm_bias": False,
    "norm_eps": 1e-05,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
}
_LABELS = {"id2label": {"0": "negative", "1": "neutral", "2": "positive"}}
_SCORE = {"id2label": {"0": "LABEL_0"}}
_CLASSES, _TOKENS = "sequence-classification", "token-classification"
_QUESTION, _MASKED = "question-answering", "masked-lm"

MODELS = [
    Model("sentence-transformers/all-MiniLM-L6-v2", config=_BERT),
    Model("google-bert/bert-base-uncased", head=_MASKED, config=_BERT),
    Model("google-bert/bert-base-multilingual-cased", head=_MASKED, config=_BERT),
    Model("BAAI/bge-small-en-v1.5", config=_BERT),
    Model("BAAI/bge-large-en-v1.5", heads=16, config=_BERT),
    Model("intfloat/e5-base-v2", config=_BERT),
    Model("thenlper/gte-base", config=_BERT),
    Model("mixedbread-ai/mxbai-embed-large-v1", heads=16, config=_BERT),
    Model("Snowflake/snowflake-arctic-embed-m", config=_BERT),
    Model("intfloat/multilingual-e5-small", config=_BERT, kind="xlm-roberta"),
    Model(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        config=_BERT,
        kind="xlm-roberta",
    ),
    Model("cross-encoder/ms-marco-MiniLM-L6-v2", head=_CLASSES, config={**_BERT, **_SCORE}),
    Model("ProsusAI/finbert", head=_CLASSES, config={**_BERT, **_LABELS}),
    Model("dslim/bert-base-NER", head=_TOKENS, config={**_BERT, **_LABELS}),
    Model("deepset/bert-base-cased-squad2", head=_QUESTION, config=_BERT),
    Model("naver/splade-cocondenser-ensembledistil", head=_MASKED, config=_BERT),
    Model("FacebookAI/roberta-base", "roberta", _MASKED, config=_ROBERTA),
    Model("sentence-transformers/all-distilroberta-v1", "roberta", config=_ROBERTA),
    Model(
        "cardiffnlp/twitter-roberta-base-sentiment-latest",
        "roberta",
        _CLASSES,
        config={**_ROBERTA, **_LABELS},
    ),
    Model("deepset/roberta-base-squad2", "roberta", _QUESTION, config=_ROBERTA),
    Model("FacebookAI/xlm-roberta-base", "xlm-roberta", _MASKED, config=_ROBERTA),
    Model("BAAI/bge-m3", "xlm-roberta", heads=16, config=_ROBERTA),
    Model("intfloat/multilingual-e5-large", "xlm-roberta", heads=16, config=_ROBERTA),
    Model(
        "BAAI/bge-reranker-v2-m3",
        "xlm-roberta",
        _CLASSES,
        heads=16,
        config={**_ROBERTA, **_SCORE},
    ),
    Model(
        "jinaai/jina-reranker-v2-base-multilingual",
        "xlm-roberta",
        _CLASSES,
        config={**_ROBERTA, **_SCORE},
        code="jina-xlm",
    ),
    Model("almanach/camembert-base", "camembert", _MASKED, config=_ROBERTA),
    Model("facebook/data2vec-text-base", "data2vec-text", config=_ROBERTA),
    Model("distilbert/distilbert-base-uncased", "distilbert", _MASKED, config=_DISTILBERT),
    Model(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "distilbert",
        _CLASSES,
        config={**_DISTILBERT, **_LABELS},
    ),
    Model("albert/albert-base-v2", "albert", _MASKED, config=_ALBERT),
    Model("google/electra-base-discriminator", "electra", config=_ELECTRA),
    Model(
        "nghuyong/ernie-3.0-base-zh",
        "ernie",
        config={**_BERT, "task_type_vocab_size": 3, "type_vocab_size": 4, "use_task_id": True},
    ),
    Model("sentence-transformers/all-mpnet-base-v2", "mpnet", config=_MPNET),
    Model("sentence-transformers/multi-qa-mpnet-base-dot-v1", "mpnet", config=_MPNET),
    Model("answerdotai/ModernBERT-base", "modernbert", _MASKED, config=_MODERNBERT),
    Model("Alibaba-NLP/gte-modernbert-base", "modernbert", config=_MODERNBERT),
    Model(
        "ibm-granite/granite-embedding-97m-multilingual-r2",
        "modernbert",
        config={**_MODERNBERT, "hidden_activation": "silu", "classifier_pooling": "cls"},
    ),
    Model("nomic-ai/nomic-embed-text-v1.5", "nomic_bert", config=NOMIC, code="nomic"),
    Model("Alibaba-NLP/gte-multilingual-base", "gte", config=GTE, code="gte"),
    Model(
        "Alibaba-NLP/gte-base-en-v1.5",
        "gte",
        config={
            **GTE,
            "type_vocab_size": 0,
            "rope_theta": 500000,
            "rope_scaling": {"factor": 2.0, "type": "ntk"},
        },
        kind="bert",
        code="gte",
    ),
    Model("Snowflake/snowflake-arctic-embed-m-v2.0", "gte", config=GTE, code="gte"),
    Model("jinaai/jina-embeddings-v2-small-en", "jina_bert", heads=8, code="jina"),
    Model("jinaai/jina-embeddings-v2-base-en", "jina_bert", code="jina"),
    Model("jinaai/jina-embeddings-v2-base-de", "jina_bert", kind="roberta", code="jina"),
    Model("jinaai/jina-embeddings-v2-base-code", "jina_bert_code", code="jina"),
    Model("jinaai/jina-embeddings-v3", "jina_embeddings_v3", heads=16, code="jina-v3"),
    Model("microsoft/deberta-v3-base", "deberta-v2", config=_DEBERTA),
    Model(
        "MoritzLaurer/deberta-v3-base-zeroshot-v2.0",
        "deberta-v2",
        head=_CLASSES,
        config=_DEBERTA,
    ),
    Model(
        "mixedbread-ai/mxbai-rerank-base-v1",
        "deberta-v2",
        head=_CLASSES,
        config={**_DEBERTA, **_SCORE},
    ),
    Model(
        "protectai/deberta-v3-base-prompt-injection-v2",
        "deberta-v2",
        head=_CLASSES,
        config=_DEBERTA,
    ),
]
