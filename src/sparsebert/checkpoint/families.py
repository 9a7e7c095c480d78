"""The families of encoders: how each names its tensors and settings, and how it differs from BERT.

A family is one ``model_type`` of transformers. Whatever it calls its encoder's tensors, sparsebert
uses one set of names for them, the canonical ones: those of BERT (without the ``bert.`` prefix)
and, for layers that begin with LayerNorm, those of RoBERTa-PreLayerNorm. Heads differ in kind and
keep their family's names. To add a family, add its entry to the table below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

# The class in the folders of the original ColBERT: an encoder and a projection.
COLBERT_ARCHITECTURE = "HF_ColBERT"
# What may have a bias in an encoder layer: groups of its linear layers, and its LayerNorms.
BIASES = ("attention", "intermediate", "output", "norm")


class Head(str, Enum):
    """The model's head."""

    ENCODER = "encoder"
    SEQUENCE = "sequence-classification"
    QUESTION = "question-answering"
    TOKEN = "token-classification"
    MASKED_LM = "masked-lm"

    @property
    def reads_pairs(self) -> bool:
        """Whether a pair of texts is one input; other models read each text by itself."""
        return self in (Head.SEQUENCE, Head.QUESTION)


@dataclass(frozen=True)
class HeadShape:
    """A head as a chain: pooling, then ``dense``, activation and ``norm`` if it has them, ``last``.

    ``pooling`` is "cls" (the first token) or "mean", for one vector per text, or None for every
    token. ``dense``, ``norm`` and ``last`` are names of layers, ``bias`` that of the last one's
    bias. ``activation`` is a name; in `Family.heads`, it and ``pooling`` may instead be the
    config.json key that holds one.
    """

    last: str
    pooling: str | None = None
    dense: str | None = None
    activation: str | None = None
    norm: str | None = None
    bias: str = ""
    has_dense_bias: bool = True
    has_bias: bool = True

    @property
    def last_bias(self) -> str:
        """Name of the last layer's bias."""
        return self.bias or f"{self.last}.bias"


@dataclass(frozen=True, eq=False)
class Family:
    """One ``model_type``: its names, and what all its models have in common.

    ``prefix`` precedes the encoder's tensors in files of models with a head; ``spelling`` maps
    canonical layer names, inside an encoder layer or outside, to the family's own. ``fields`` maps
    BERT's config.json keys to the family's own where they differ, ``defaults`` has the values that
    transformers uses for absent keys where they are not BERT's, ``ignored`` are BERT's keys that it
    never reads in this family, and ``aliases`` those that it prefers to the family's own.

    ``norm_first`` puts a LayerNorm before attention and feed-forward (except the first attention,
    which follows the embeddings' own) and one after the last layer. ``fused_attention`` keeps
    query, key and value in one linear layer. ``gated`` multiplies the output of
    ``intermediate.dense`` by an activated ``intermediate.gate`` of the same size; with
    ``fused_gate`` the two are one linear layer, ``intermediate.dense``, whose first half of rows is
    the gate. ``query_key_norm`` applies a LayerNorm to query and key, over all heads, and
    ``residual_norm`` adds a layer's input once more to the output of attention's LayerNorm, and
    applies another one.

    ``positions`` is "absolute" (a table), "counted" (a table counted from the row after the padding
    id, where padding does not count), "alibi" (scores fall with distance, by a slope for each head)
    or "rotary" (queries and keys are rotated by position); with ``layer_types``, the base of the
    rotation and the window depend on the layer. ``relative_bias`` adds a bias by distance to each
    attention score, ``disentangled`` adds products with embeddings of the distance (see
    `disentangled_attention`); config.json then says whether there is also a table of positions.

    ``optional_token_types`` says that a config.json with 0 token types has no table of them (as in
    gte-base-en-v1.5 and DeBERTa v3), ``embedding_size`` that embeddings may be narrower than the
    hidden size and are then projected, ``always_projected`` that they are projected even at the
    same width, ``task_types`` that there may be a table of tasks, of which every token uses the
    first row, and ``shared_layers`` that adjacent layers may share weights, which are stored once.
    ``biases`` are those of ``BIASES`` that the model has, None if config.json says which.
    ``in_transformers`` is False if transformers has no classes for the family, which then does not
    run on torch.
    """

    model_type: str
    class_name: str
    prefix: str
    heads: Mapping[Head, HeadShape]
    spelling: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    pooler: bool = False
    token_types: bool = False
    optional_token_types: bool = False
    embedding_size: bool = False
    always_projected: bool = False
    positions: str = "absolute"
    relative_bias: bool = False
    disentangled: bool = False
    layer_types: bool = False
    norm_first: bool = False
    fused_attention: bool = False
    query_key_norm: bool = False
    residual_norm: bool = False
    gated: bool = False
    fused_gate: bool = False
    task_types: bool = False
    shared_layers: bool = False
    biases: tuple[str, ...] | None = BIASES
    in_transformers: bool = True

    def architecture(self, head: Head) -> str:
        """The class of transformers that has this head."""
        return self.class_name + _CLASSES[head]

    @property
    def display_name(self) -> str:
        """The family's usual name."""
        own = {
            "Albert": "ALBERT",
            "Camembert": "CamemBERT",
            "Data2VecText": "data2vec-text",
            "DebertaV2": "DeBERTa",
            "Electra": "ELECTRA",
            "Ernie": "ERNIE",
            "Gte": "GTE",
            "JinaEmbeddingsV3": "jina-embeddings-v3",
            "Roberta": "RoBERTa",
            "XLMRoberta": "XLM-R",
        }
        return own.get(self.class_name, self.class_name.replace("Bert", "BERT"))

    @property
    def architectures(self) -> dict[str, Head]:
        """Every supported class, with its head."""
        known = {self.architecture(head): head for head in (Head.ENCODER, *self.heads)}
        known[COLBERT_ARCHITECTURE] = Head.ENCODER
        # Those of BERT and ALBERT also predict the next sentence. ELECTRA's detects replaced
        # tokens, with a head that nothing needs afterwards.
        if self.model_type in ("albert", "bert"):
            known[f"{self.class_name}ForPreTraining"] = Head.MASKED_LM
        if self.model_type == "electra":
            known["ElectraForPreTraining"] = Head.ENCODER
        return known

    def canonical(self, stored: str) -> str:
        """The canonical name of a tensor in a file or of a parameter in transformers."""
        name = todays_name(stored).removeprefix(f"{self.prefix}.")
        start = self._layers + "."
        if not name.startswith(start):
            return _respelled(name, self._read)
        number, _, rest = name.removeprefix(start).partition(".")
        return f"{_LAYERS}.{number}.{_respelled(rest, self._read)}"

    def spelled(self, canonical: str) -> str:
        """The family's own spelling of a canonical name, without its prefix."""
        if not canonical.startswith(_LAYERS + "."):
            return _respelled(canonical, self.spelling)
        number, _, rest = canonical.removeprefix(_LAYERS + ".").partition(".")
        return f"{self._layers}.{number}.{_respelled(rest, self.spelling)}"

    def parameter(self, canonical: str, head: Head) -> str:
        """The name of the parameter in transformers' model with this head."""
        inside = canonical.startswith(("embeddings", "encoder."))
        inside |= canonical.startswith("pooler.") and self.pooler  # else it belongs to the head
        prefix = f"{self.prefix}." if inside and head is not Head.ENCODER else ""
        return prefix + self.spelled(canonical)

    @property
    def _layers(self) -> str:
        return self.spelling.get(_LAYERS, _LAYERS)

    @property
    def _read(self) -> dict[str, str]:
        return {own: canonical for canonical, own in self.spelling.items()}


def todays_name(stored: str) -> str:
    """A tensor's current name: LayerNorm's gamma and beta in old files are weight and bias."""
    for old, new in _OLD_ENDS.items():
        if stored.endswith(old):
            return stored.removesuffix(old) + new
    return stored


_LAYERS = "encoder.layer"
_OLD_ENDS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_CLASSES = {
    Head.ENCODER: "Model",
    Head.SEQUENCE: "ForSequenceClassification",
    Head.QUESTION: "ForQuestionAnswering",
    Head.TOKEN: "ForTokenClassification",
    Head.MASKED_LM: "ForMaskedLM",
}


def _respelled(name: str, spelling: Mapping[str, str]) -> str:
    stem, dot, end = name.rpartition(".")
    return spelling.get(stem, stem) + dot + end


def _heads(
    sequence: HeadShape,
    masked_lm: HeadShape,
    token: HeadShape = HeadShape("classifier"),
    question: HeadShape | None = HeadShape("qa_outputs"),
) -> dict[Head, HeadShape]:
    heads = {Head.SEQUENCE: sequence, Head.TOKEN: token, Head.MASKED_LM: masked_lm}
    return heads if question is None else {**heads, Head.QUESTION: question}


_LM_HEAD = HeadShape(
    "lm_head.decoder",
    dense="lm_head.dense",
    activation="gelu",
    norm="lm_head.layer_norm",
    bias="lm_head.bias",
)
_TANH_HEAD = HeadShape("classifier.out_proj", "cls", "classifier.dense", "tanh")

_POOLED_HEAD = HeadShape("classifier", "cls", "pooler.dense", "tanh")
_BERT_LM_HEAD = HeadShape(
    "cls.predictions.decoder",
    dense="cls.predictions.transform.dense",
    activation="hidden_act",
    norm="cls.predictions.transform.LayerNorm",
    bias="cls.predictions.bias",
)

BERT = Family(
    "bert", "Bert", "bert", _heads(_POOLED_HEAD, _BERT_LM_HEAD), pooler=True, token_types=True
)
ROBERTA = Family(
    "roberta",
    "Roberta",
    "roberta",
    _heads(_TANH_HEAD, _LM_HEAD),
    defaults={"pad_token_id": 1},
    pooler=True,
    token_types=True,
    positions="counted",
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", class_name="XLMRoberta")
CAMEMBERT = replace(ROBERTA, model_type="camembert", class_name="Camembert")
DATA2VEC_TEXT = replace(
    ROBERTA, model_type="data2vec-text", class_name="Data2VecText", prefix="data2vec_text"
)
ERNIE = replace(BERT, model_type="ernie", class_name="Ernie", prefix="ernie", task_types=True)
DISTILBERT = Family(
    "distilbert",
    "DistilBert",
    "distilbert",
    _heads(
        HeadShape("classifier", "cls", "pre_classifier", "relu"),
        HeadShape("vocab_projector", None, "vocab_transform", "hidden_act", "vocab_layer_norm"),
    ),
    spelling={
        "encoder.layer": "transformer.layer",
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
        "output.LayerNorm": "output_layer_norm",
    },
    fields={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    ignored=("layer_norm_eps",),
    aliases=("hidden_size", "num_attention_heads", "num_hidden_layers"),
)
ELECTRA = Family(
    "electra",
    "Electra",
    "electra",
    _heads(
        HeadShape("classifier.out_proj", "cls", "classifier.dense", "gelu"),
        HeadShape(
            "generator_lm_head",
            dense="generator_predictions.dense",
            activation="gelu",
            norm="generator_predictions.LayerNorm",
        ),
    ),
    spelling={"embeddings.projection": "embeddings_project"},
    token_types=True,
    embedding_size=True,
)
ALBERT = Family(
    "albert",
    "Albert",
    "albert",
    _heads(
        _POOLED_HEAD,
        HeadShape(
            "predictions.decoder",
            dense="predictions.dense",
            activation="hidden_act",
            norm="predictions.LayerNorm",
            bias="predictions.bias",
        ),
    ),
    spelling={
        "encoder.layer": "encoder.albert_layer_groups",
        "embeddings.projection": "encoder.embedding_hidden_mapping_in",
        "pooler.dense": "pooler",
        "attention.self.query": "albert_layers.0.attention.query",
        "attention.self.key": "albert_layers.0.attention.key",
        "attention.self.value": "albert_layers.0.attention.value",
        "attention.output.dense": "albert_layers.0.attention.dense",
        "attention.output.LayerNorm": "albert_layers.0.attention.LayerNorm",
        "intermediate.dense": "albert_layers.0.ffn",
        "output.dense": "albert_layers.0.ffn_output",
        "output.LayerNorm": "albert_layers.0.full_layer_layer_norm",
    },
    defaults={
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    pooler=True,
    token_types=True,
    embedding_size=True,
    always_projected=True,
    shared_layers=True,
)
MPNET = Family(
    "mpnet",
    "MPNet",
    "mpnet",
    _heads(_TANH_HEAD, _LM_HEAD),
    spelling={
        "attention.self.query": "attention.attn.q",
        "attention.self.key": "attention.attn.k",
        "attention.self.value": "attention.attn.v",
        "attention.output.dense": "attention.attn.o",
        "attention.output.LayerNorm": "attention.LayerNorm",
    },
    defaults={"pad_token_id": 1},
    pooler=True,
    positions="counted",
    relative_bias=True,
)
DEBERTA_V2 = Family(
    "deberta-v2",
    "DebertaV2",
    "deberta",
    _heads(HeadShape("classifier", "cls", "pooler.dense", "pooler_hidden_act"), _BERT_LM_HEAD),
    spelling={
        "encoder.rel_embeddings.LayerNorm": "encoder.LayerNorm",
        "attention.self.query": "attention.self.query_proj",
        "attention.self.key": "attention.self.key_proj",
        "attention.self.value": "attention.self.value_proj",
    },
    defaults={"layer_norm_eps": 1e-7, "type_vocab_size": 0},
    token_types=True,
    optional_token_types=True,
    disentangled=True,
)
_CLASSIFIER = HeadShape("classifier", None, "head.dense", "classifier_activation", "head.norm")
MODERNBERT = Family(
    "modernbert",
    "ModernBert",
    "model",
    _heads(
        HeadShape(
            "classifier", "classifier_pooling", "head.dense", "classifier_activation", "head.norm"
        ),
        HeadShape("decoder", None, "head.dense", "classifier_activation", "head.norm"),
        _CLASSIFIER,
        _CLASSIFIER,
    ),
    spelling={
        "encoder.layer": "layers",
        "encoder.LayerNorm": "final_norm",
        "embeddings.word_embeddings": "embeddings.tok_embeddings",
        "embeddings.LayerNorm": "embeddings.norm",
        "attention.LayerNorm": "attn_norm",
        "attention.self.query_key_value": "attn.Wqkv",
        "attention.output.dense": "attn.Wo",
        "intermediate.LayerNorm": "mlp_norm",
        "intermediate.dense": "mlp.Wi",
        "output.dense": "mlp.Wo",
    },
    fields={
        "hidden_act": "hidden_activation",
        "layer_norm_eps": "norm_eps",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    defaults={
        "pad_token_id": 50283,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    positions="rotary",
    layer_types=True,
    norm_first=True,
    fused_attention=True,
    gated=True,
    fused_gate=True,
    biases=None,
)
_ROTARY_SPELLING = {
    "encoder.layer": "layers",
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "post_attention_layernorm",
    "intermediate.gate": "mlp.gate_proj",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "post_mlp_layernorm",
}
NOMIC_BERT = Family(
    "nomic_bert",
    "NomicBert",
    "nomic_bert",
    _heads(
        _POOLED_HEAD,
        replace(_BERT_LM_HEAD, norm="cls.predictions.transform.layer_norm"),
        question=None,
    ),
    spelling=_ROTARY_SPELLING,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rope_theta": 1000.0,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    pooler=True,
    token_types=True,
    positions="rotary",
    gated=True,
    biases=("norm",),
)
GTE = Family(
    "gte",
    "Gte",
    "gte",
    _heads(_POOLED_HEAD, replace(_LM_HEAD, bias="lm_head.decoder.bias"), question=None),
    spelling=_ROTARY_SPELLING,
    defaults={
        "pad_token_id": 1,
        "max_position_embeddings": 8192,
        "rope_theta": 160_000.0,
        "type_vocab_size": 1,
        "attention_probs_dropout_prob": 0.0,
    },
    pooler=True,
    token_types=True,
    optional_token_types=True,
    positions="rotary",
    gated=True,
    biases=("attention", "output", "norm"),
)
JINA_EMBEDDINGS_V3 = Family(
    "jina_embeddings_v3",
    "JinaEmbeddingsV3",
    "roberta",
    _heads(_TANH_HEAD, _LM_HEAD),
    spelling={
        **{name: own for name, own in _ROTARY_SPELLING.items() if name != "intermediate.gate"},
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    },
    defaults={
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 8194,
        "rope_theta": 20_000.0,
        "type_vocab_size": 1,
    },
    pooler=True,
    token_types=True,
    positions="rotary",
)
# Bidirectional encoders with ALiBi and gated layers (Guenther et al. 2023, arXiv:2310.19923).
JINA_BERT = Family(
    "jina_bert",
    "JinaBert",
    "bert",
    _heads(_POOLED_HEAD, replace(_BERT_LM_HEAD, activation="gelu")),
    pooler=True,
    token_types=True,
    positions="alibi",
    gated=True,
    biases=("attention", "output", "norm"),
    in_transformers=False,
)
JINA_BERT_CODE = replace(
    JINA_BERT, model_type="jina_bert_code", query_key_norm=True, residual_norm=True
)

FAMILIES = {
    family.model_type: family
    for family in (
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        DATA2VEC_TEXT,
        DISTILBERT,
        ELECTRA,
        ALBERT,
        ERNIE,
        MPNET,
        DEBERTA_V2,
        MODERNBERT,
        NOMIC_BERT,
        GTE,
        JINA_EMBEDDINGS_V3,
        JINA_BERT,
        JINA_BERT_CODE,
    )
}
