"""The README.md of a produced folder: what it is, how it was made, how to load it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.families import BERT, FAMILIES, Family, Head
from sparsebert.checkpoint.folder_files import check_inside, has_file
from sparsebert.checkpoint.hub_configs import read_config
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.masks import MASKS_NAME
from sparsebert.checkpoint.modules import MODULES_NAME, transformer_folder
from sparsebert.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD_NAME = "README.md"
_BEGIN = "<!-- sparsebert: begin -->"
_END = "<!-- sparsebert: end -->"
# The key and all that is indented under it; a YAML list may be at the same depth as its key.
_MODEL_INDEX = re.compile(r"^model-index:.*\n?(?:(?:[ \t-].*|[ \t]*\r?)(?:\n|\Z))*", re.M)
_LIBRARY = re.compile(r"^library_name:[ \t]*[\"']?([^\s\"'#]*).*$", re.M)
_LARGEST = 4 << 20  # bytes of a README that is kept

# The hub's name for the use of a head.
_PIPELINES = {
    Head.SEQUENCE: "text-classification",
    Head.QUESTION: "question-answering",
    Head.TOKEN: "token-classification",
    Head.MASKED_LM: "fill-mask",
}
_OF_EMBEDDINGS = ("sentence-transformers", "sentence-similarity", "feature-extraction")


def write_card(
    folder: Path,
    *,
    source: Path,
    packed: bool = False,
    results: str = "",
    evaluations: Sequence[EvalResult] = (),
    loading: Sequence[str] = (),
) -> None:
    """Write the model card of ``folder``, whose config.json already holds its lineage.

    The front matter (licence, language, base model, ...) and the text of the source's own card are
    kept (the text up to 4 MiB), except library, pipeline and tags of a head that the model no
    longer has. sparsebert's part goes above the text, and replaces the part that an earlier step
    wrote. ``results`` is Markdown that goes into it, such as a table of scores; ``evaluations`` are
    the same scores in machine-readable form, for the hub's ``model-index``. The source's own
    ``model-index`` is dropped: it was measured on another model. ``loading`` are the lines that say
    how to load the folder, if it differs from others.
    """
    raw = read_object(folder / CONFIG_NAME)
    front, body = _split(_read(source / CARD_NAME, beginning=True))
    body = _without_our_part(body)
    if _is_long(source / CARD_NAME):
        body = f"The original is larger than {_LARGEST >> 20} MiB and is left out."
    record: dict[str, Any] = raw.get("sparsity") or {}
    lines = [
        _BEGIN,
        f"# {_title(record, packed)}",
        "",
        _what_it_is(record, _family(raw).display_name, packed, folder),
        "",
    ]
    lines += ["## How it was made", "", *_steps(record.get("lineage", [])), ""]
    if results:
        lines += ["## Results", "", results.strip(), ""]
    lines += ["## How to load it", "", *(loading or _loading(raw, packed)), _END, ""]
    if body.strip():
        lines += ["", "The card of the model it was made from follows.", "", body.strip(), ""]
    front = _MODEL_INDEX.sub("", front)
    config = transformer_folder(source) / CONFIG_NAME
    if has_file(config) and _head(read_config(config.parent)) is not _head(raw):
        front = _for_head(front, _head(raw))
    matter = _front_matter(front, folder, record, packed)
    if evaluations:
        matter += "\n" + model_index(_title(record, packed), evaluations)
    _write(folder, matter, "\n" + "\n".join(lines))


def write_scores(folder: Path, evaluations: Sequence[EvalResult], *, packed: bool) -> None:
    """Replace the scores in the ``model-index`` of a model's card by its own.

    A folder without a card gets one.
    """
    if not (folder / CARD_NAME).is_file():
        write_card(folder, source=folder, packed=packed, evaluations=evaluations)
        return
    front, body = _split(_read(folder / CARD_NAME))
    record: dict[str, Any] = read_object(folder / CONFIG_NAME).get("sparsity") or {}
    matter = _front_matter(_MODEL_INDEX.sub("", front), folder, record, packed)
    matter += "\n" + model_index(_title(record, packed), evaluations)
    _write(folder, matter, body)


def published_card(folder: Path, *, packed: bool, base_model: str | None = None) -> str:
    """The card of ``folder`` for the hub: its own text, with library, tag and base model named."""
    front, body = _split(_read(folder / CARD_NAME))
    raw = read_object(folder / CONFIG_NAME)
    record: dict[str, Any] = raw.get("sparsity") or {}
    if not body.strip():
        lines = ["", f"# {_title(record, packed)}", "", "## How it was made", ""]
        lines += [*_steps(record.get("lineage", [])), "", "## How to load it", ""]
        body = "\n".join([*lines, *_loading(raw, packed), ""])
    matter = _front_matter(front, folder, record, packed, base_model)
    return f"---\n{matter}\n---\n{body}"


def _is_long(path: Path) -> bool:
    return has_file(path) and path.stat().st_size > _LARGEST


def _read(path: Path, *, beginning: bool = False) -> str:
    """The card; if it is too long, only the ``beginning`` or else CheckpointError."""
    try:
        if not has_file(path):
            return ""
        check_inside(path, path.parent)
        if _is_long(path) and not beginning:
            raise CheckpointError(
                f"{path} is larger than {_LARGEST >> 20} MiB, too large for sparsebert to edit: "
                "shorten it."
            )
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _write(folder: Path, matter: str, body: str) -> None:
    with replaced_file(folder / CARD_NAME) as unfinished:
        unfinished.write_text(f"---\n{matter}\n---\n{body}", encoding="utf-8")


def _split(text: str) -> tuple[str, str]:
    """Front matter and body of a card."""
    found = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    return (found[1], text[found.end() :]) if found else ("", text)


def _without_our_part(body: str) -> str:
    """The body without what an earlier step of sparsebert wrote."""
    if _BEGIN not in body or _END not in body:
        return body
    before, _, rest = body.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return before + after.replace("The card of the model it was made from follows.", "", 1)


def _front_matter(
    front: str,
    folder: Path,
    record: dict[str, Any],
    packed: bool,
    base_model: str | None = None,
) -> str:
    """The card's own lines, with a library that reads the folder, our tag and a base model.

    The lines are edited as text: reading and writing YAML would turn ``language: no`` into false.
    """
    front = front.strip("\r\n")
    stated = _LIBRARY.search(front)
    library = stated[1] if stated else "sparsebert"
    if packed:
        library = "sparsebert"
    elif library == "sparsebert":
        embeds = _head(read_object(folder / CONFIG_NAME)) is Head.ENCODER
        sentences = embeds and (folder / MODULES_NAME).is_file()
        library = "sentence-transformers" if sentences else "transformers"
    lines = [front] if front.strip() else []
    if stated:
        lines = [_LIBRARY.sub(f"library_name: {library}", front, count=1)]
    else:
        lines.append(f"library_name: {library}")
    front = _with_tag("\n".join(lines), "sparsebert")
    lineage = record.get("lineage", [])
    origin = base_model or (str(lineage[0].get("from", "")).partition("@")[0] if lineage else "")
    known = re.search(r"^base_model:", front, re.M)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and not known:
        front += f"\nbase_model: {origin}"
    return front


def _for_head(front: str, head: Head) -> str:
    """The front matter for a model with a new head, without what only fits the old one.

    The hub lists a model by its pipeline, and uses its library to show how to load it.
    """
    front = re.sub(r"^(library_name|pipeline_tag):.*(?:\n|\Z)", "", front, flags=re.M).rstrip("\n")
    front = _without_tags(front, (*_OF_EMBEDDINGS, *_PIPELINES.values()))
    lines = [front] if front.strip() else []
    lines.append("library_name: transformers")
    if head in _PIPELINES:
        lines.append(f"pipeline_tag: {_PIPELINES[head]}")
    return "\n".join(lines)


def _without_tags(front: str, names: Collection[str]) -> str:
    """The front matter without some of its tags, however they are written."""

    def listed(found: re.Match[str]) -> str:
        kept = [
            line
            for line in found[0].splitlines(keepends=True)
            if line.strip().removeprefix("-").strip() not in names
        ]
        return "".join(kept) if len(kept) > 1 else ""

    def inline(found: re.Match[str]) -> str:
        kept = [tag.strip() for tag in found[1].split(",") if tag.strip() not in names]
        return f"tags: [{', '.join(kept)}]" if any(kept) else ""

    front = re.sub(r"^tags:[ \t]*\r?\n(?:[ \t]*-.*(?:\n|\Z))+", listed, front, flags=re.M)
    return re.sub(r"^tags:[ \t]*\[([^\]\n]*)\]", inline, front, flags=re.M)


def _with_tag(front: str, tag: str) -> str:
    """The front matter with ``tag`` in its list of tags, however that is written."""
    if re.search(rf"^[ \t]*-[ \t]+{tag}[ \t]*\r?$", front, re.M):
        return front
    listed = re.search(r"^tags:[ \t]*\r?\n(?:([ \t]*)-.*(?:\n|\Z))+", front, re.M)
    if listed:
        before, after = front[: listed.end()].rstrip("\r\n"), front[listed.end() :]
        return f"{before}\n{listed[1]}- {tag}\n{after}".rstrip("\n")
    inline = re.search(r"^tags:[ \t]*\[([^\]\n]*)\]", front, re.M)
    if inline:
        tags = [text.strip() for text in inline[1].split(",") if text.strip()]
        written = f"tags: [{', '.join(dict.fromkeys([*tags, tag]))}]"
        return front[: inline.start()] + written + front[inline.end() :]
    return front if re.search(r"^tags:", front, re.M) else f"{front}\ntags:\n- {tag}"


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


def _what_it_is(record: dict[str, Any], kind: str, packed: bool, folder: Path) -> str:
    pattern = record.get("pattern")
    if pattern is None:
        text = f"A {kind} encoder whose weights have no recorded sparsity pattern."
    else:
        text = (
            f"A {kind} encoder with {pattern} structured sparsity along the input dimension in "
            f"{len(record.get('layers', []))} of its linear layers: of every "
            f"{pattern.split(':')[1]} adjacent weights at most {pattern.split(':')[0]} "
            "may be non-zero."
        )
        if rows := record.get("shared_rows"):
            text += f" Every {rows} adjacent outputs keep the same inputs."
    if packed:
        return f"{text} The pruned layers are stored as their kept values and their positions."
    if pattern is None:
        return text
    masks = (
        " `masks.safetensors` marks the kept weights." if (folder / MASKS_NAME).is_file() else ""
    )
    return f"{text} The zeros are stored as zeros.{masks}"


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


def _family(raw: dict[str, Any]) -> Family:
    return FAMILIES.get(str(raw.get("model_type")), BERT)


def _head(raw: dict[str, Any]) -> Head:
    named = raw.get("architectures") or ["none"]
    return _family(raw).architectures.get(named[0], Head.ENCODER)


def _loading(raw: dict[str, Any], packed: bool) -> list[str]:
    head = _head(raw)
    use = {
        Head.SEQUENCE: 'model.classify(["a text"])',
        Head.QUESTION: 'model.answer("a question", "a text that answers it")',
        Head.TOKEN: 'model.logits(["a text"])',
        Head.MASKED_LM: 'model.logits(["a text with a masked word"])',
    }.get(head, 'model.embed(["a text"])')
    lines = [
        "```python",
        "import sparsebert",
        "",
        'model = sparsebert.load("path/to/this/folder")',
        use,
        "```",
    ]
    if packed:
        return [*lines, "", "`sparsebert unpack` restores an ordinary transformers folder."]
    family = _family(raw)
    kind = family.architecture(head).removeprefix(family.class_name).removeprefix("Model")
    auto = f"AutoModel{kind}"
    lines += [
        "",
        "```python",
        f"from transformers import {auto}",
        "",
        f'model = {auto}.from_pretrained("path/to/this/folder")',
        "```",
    ]
    return lines
