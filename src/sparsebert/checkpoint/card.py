"""README.md of a produced folder: what it is, how it was made, how to load it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.documents import read_object
from sparsebert.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD_NAME = "README.md"
_BEGIN = "<!-- sparsebert: begin -->"
_END = "<!-- sparsebert: end -->"
# The key and all that is indented under it; a YAML list may stand at its key's own depth.
_MODEL_INDEX = re.compile(r"^model-index:.*\n?(?:(?:[ \t-].*|[ \t]*\r?)(?:\n|\Z))*", re.M)
_LARGEST = 4 << 20  # bytes of a README that is carried along


def write_card(
    folder: Path,
    *,
    source: Path,
    packed: bool = False,
    results: str = "",
    evaluations: Sequence[EvalResult] = (),
) -> None:
    """Write the model card of ``folder``, whose config.json already holds its lineage.

    The front matter (licence, language, base model, ...) and the text of the source's own card are
    kept: sparsebert's part stands above the text, and replaces the part that an earlier step
    wrote. ``results`` is Markdown that goes into it, such as a table of scores; ``evaluations`` are
    the same scores for programs, as the hub's ``model-index``. The source's own ``model-index`` is
    dropped: it was measured on another model.
    """
    raw = read_object(folder / CONFIG_NAME)
    front, body = _split(_read(source / CARD_NAME))
    record: dict[str, Any] = raw.get("sparsity") or {}
    lines = [_BEGIN, f"# {_title(record, packed)}", "", _what_it_is(record, packed), ""]
    lines += ["## How it was made", "", *_steps(record.get("lineage", [])), ""]
    if results:
        lines += ["## Results", "", results.strip(), ""]
    lines += ["## How to load it", "", *_loading(raw, packed), _END, ""]
    if body.strip():
        lines += ["", "The card of the model it was made from follows.", "", body.strip(), ""]
    matter = _front_matter(front, record)
    if evaluations:
        matter += "\n" + model_index(_title(record, packed), evaluations)
    text = f"---\n{matter}\n---\n\n" + "\n".join(lines)
    (folder / CARD_NAME).write_text(text, encoding="utf-8")


def _read(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _split(text: str) -> tuple[str, str]:
    """Front matter and body of a card, without what an earlier step of sparsebert wrote."""
    found = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    front, body = (found[1], text[found.end() :]) if found else ("", text)
    if _BEGIN in body and _END in body:
        before, _, rest = body.partition(_BEGIN)
        after = rest.partition(_END)[2]
        body = before + after.replace("The card of the model it was made from follows.", "", 1)
    return front, body


def _front_matter(front: str, record: dict[str, Any]) -> str:
    """The source's own lines, with a base model where it names none and we know it."""
    front = _MODEL_INDEX.sub("", front).strip("\r\n")
    lines = [front] if front.strip() else ["library_name: transformers", "tags:", "- sparsebert"]
    lineage = record.get("lineage", [])
    origin = str(lineage[0].get("from", "")) if lineage else ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and not re.search(r"^base_model:", front, re.M):
        lines.append(f"base_model: {origin}")
    return "\n".join(lines)


def model_index(name: str, evaluations: Sequence[EvalResult]) -> str:
    """The front matter's lines in which the Hugging Face hub looks for a model's scores."""
    import yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    index = {"model-index": eval_results_to_model_index(name, list(evaluations))}
    return str(yaml.safe_dump(index, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _title(record: dict[str, Any], packed: bool) -> str:
    lineage = record.get("lineage", [])
    name = str(lineage[0].get("from", "BERT")) if lineage else "BERT"
    pattern = record.get("pattern")
    kind = f"{pattern} sparse" if pattern else "dense"
    return f"{name}, {kind}{', packed' if packed else ''}"


def _what_it_is(record: dict[str, Any], packed: bool) -> str:
    pattern = record.get("pattern")
    if pattern is None:
        text = "A BERT encoder whose weights carry no recorded sparsity pattern."
    else:
        text = (
            f"A BERT encoder with {pattern} structured sparsity along the input dimension in "
            f"{len(record.get('layers', []))} of its linear layers: of every "
            f"{pattern.split(':')[1]} adjacent weights at most {pattern.split(':')[0]} "
            "may differ from zero."
        )
    if packed:
        return f"{text} The pruned layers are stored as their kept values and where they belong."
    if pattern is None:
        return text
    return f"{text} The zeros are stored as zeros. `masks.safetensors` marks the kept weights."


def _steps(lineage: list[dict[str, Any]]) -> list[str]:
    if not lineage:
        return ["No steps are recorded."]
    lines = []
    for number, step in enumerate(lineage, 1):
        arguments = step.get("arguments") or {}
        told = ", ".join(
            f"{key}={_plain(value)}" for key, value in arguments.items() if value is not None
        )
        lines.append(
            f"{number}. `{step.get('step')}` from `{step.get('from')}`"
            f"{f' ({told})' if told else ''}, sparsebert {step.get('sparsebert')}"
        )
    return lines


def _plain(value: object) -> str:
    return "+".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _loading(raw: dict[str, Any], packed: bool) -> list[str]:
    architecture = next(iter(raw.get("architectures") or ["BertModel"]))
    use = {
        "BertForSequenceClassification": 'model.classify(["a text"])',
        "BertForQuestionAnswering": 'model.answer("a question", "a text that answers it")',
        "BertForTokenClassification": 'model.logits(["a text"])',
        "BertForMaskedLM": 'model.logits(["a text with a [MASK]"])',
        "BertForPreTraining": 'model.logits(["a text with a [MASK]"])',
    }.get(architecture, 'model.embed(["a text"])')
    lines = [
        "```python",
        "import sparsebert",
        "",
        'model = sparsebert.load("path/to/this/folder")',
        use,
        "```",
    ]
    if packed:
        return [*lines, "", "`sparsebert unpack` gives back an ordinary transformers folder."]
    auto = {
        "BertForSequenceClassification": "AutoModelForSequenceClassification",
        "BertForQuestionAnswering": "AutoModelForQuestionAnswering",
        "BertForTokenClassification": "AutoModelForTokenClassification",
        "BertForMaskedLM": "AutoModelForMaskedLM",
        "BertForPreTraining": "AutoModelForPreTraining",
    }.get(architecture, "AutoModel")
    lines += [
        "",
        "```python",
        f"from transformers import {auto}",
        "",
        f'model = {auto}.from_pretrained("path/to/this/folder")',
        "```",
    ]
    return lines
