"""transformers' own pipelines on our engine give what they give on the unpacked torch model."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jina_bert import write_jina_bert
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune, unpack
from sparsebert.errors import CheckpointError, InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.inference.loading import UncheckedWarning
from sparsebert.integrations.transformers import TASKS, SparsebertModel, pipeline

TEXTS = list(SENTENCES)  # pipelines tell lists from single inputs, and know no tuples
TOLERANCE = 1e-4
NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
ENTAILMENT = {0: "contradiction", 1: "neutral", 2: "entailment"}


class Folders(NamedTuple):
    """The same 1:2 model, packed in fp32 and as an ordinary folder."""

    packed: Path
    unpacked: Path


Make = Callable[..., Folders]


@pytest.fixture(scope="module")
def made(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    known: dict[str, Folders] = {}

    def make(head: str, **config: Any) -> Folders:
        key = repr((head, config))
        if key not in known:
            folder = tmp_path_factory.mktemp("integration")
            prune(tiny_bert(head, **config), folder / "sparse")
            pack(folder / "sparse", folder / "packed", dtype="fp32")
            unpack(folder / "packed", folder / "unpacked")
            known[key] = Folders(folder / "packed", folder / "unpacked")
        return known[key]

    return make


def both(task: str, folders: Folders, **options: Any) -> tuple[Any, Any]:
    """The pipeline on our engine and on torch."""
    torch_pipeline = transformers.pipeline(
        task, model=str(folders.unpacked), device="cpu", **options
    )
    return pipeline(task, folders.packed, **options), torch_pipeline


def assert_alike(ours: Any, theirs: Any) -> None:
    """Equal in everything but the last digits of numbers that are not whole."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_alike(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs):
            assert_alike(mine, other)
    elif isinstance(theirs, float | np.floating | torch.Tensor | np.ndarray):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    else:
        assert ours == theirs


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "none"}], ids=str
)
def test_text_classification(made: Make, batch_size: int, options: dict[str, Any]) -> None:
    ours, theirs = both("text-classification", made("sequence-classification"))
    texts = TEXTS[:7]
    assert_alike(
        ours(texts, batch_size=batch_size, **options),
        theirs(texts, batch_size=batch_size, **options),
    )
    assert_alike(ours(texts[0], **options), theirs(texts[0], **options))


def test_text_classification_of_pairs_and_of_long_texts(made: Make) -> None:
    ours, theirs = both("sentiment-analysis", made("sequence-classification"))
    pairs = [{"text": a, "text_pair": b} for a, b in itertools.pairwise(TEXTS[:5])]
    assert_alike(ours(pairs, batch_size=2), theirs(pairs, batch_size=2))
    cut = {"truncation": True, "max_length": 64}
    assert_alike(ours(long_text(200), **cut), theirs(long_text(200), **cut))


@pytest.mark.parametrize(
    ("problem", "labels"),
    [("regression", 1), (None, 1), ("multi_label_classification", 4)],
)
def test_other_problems(made: Make, problem: str | None, labels: int) -> None:
    folders = made("sequence-classification", num_labels=labels, problem_type=problem)
    ours, theirs = both("text-classification", folders)
    assert_alike(ours(TEXTS[:3], top_k=None), theirs(TEXTS[:3], top_k=None))


@pytest.mark.parametrize("head", ["encoder", "sequence-classification", "masked-lm"])
def test_feature_extraction(made: Make, head: str) -> None:
    ours, theirs = both("feature-extraction", made(head))
    assert_alike(ours(TEXTS[:3]), theirs(TEXTS[:3]))
    assert_alike(ours(TEXTS[0], return_tensors=True), theirs(TEXTS[0], return_tensors=True))


def test_feature_extraction_in_batches_is_that_of_single_texts(made: Make) -> None:
    ours, _ = both("feature-extraction", made("encoder"))
    alone = ours(TEXTS[:4])
    for single, padded in zip(alone, ours(TEXTS[:4], batch_size=4)):
        tokens = len(single[0])
        assert_alike(padded[0][:tokens], single[0])
        assert not np.any(padded[0][tokens:])


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification(made: Make, strategy: str) -> None:
    folders = made("token-classification", num_labels=5, id2label=NAMES)
    ours, theirs = both("ner", folders, aggregation_strategy=strategy)
    for batch_size in (1, 4):
        assert_alike(
            ours(TEXTS[:6], batch_size=batch_size), theirs(TEXTS[:6], batch_size=batch_size)
        )


def test_token_classification_of_long_texts_with_stride(made: Make) -> None:
    folders = made("token-classification", num_labels=5, id2label=NAMES)
    ours, theirs = both("token-classification", folders, aggregation_strategy="first", stride=9)
    found = ours(long_text(150))
    assert found[-1]["end"] > 300, "the text must be longer than one window"
    assert_alike(found, theirs(long_text(150)))


def test_fill_mask(made: Make) -> None:
    ours, theirs = both("fill-mask", made("masked-lm"))
    for inputs, options in (
        ("the [MASK] sat on the mat", {}),
        (["the [MASK] sat", "a very [MASK] and much longer text"], {"top_k": 3, "batch_size": 2}),
        ("the [MASK] sat on the [MASK]", {"top_k": 2}),
        ("the [MASK] sat", {"targets": ["a", "b", "x"]}),
    ):
        assert_alike(ours(inputs, **options), theirs(inputs, **options))


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot_classification(made: Make, multi_label: bool) -> None:
    folders = made(
        "sequence-classification",
        id2label=ENTAILMENT,
        label2id={name: index for index, name in ENTAILMENT.items()},
    )
    ours, theirs = both("zero-shot-classification", folders)
    options = {
        "candidate_labels": ["film", "sport", "politics", "food"],
        "multi_label": multi_label,
        "hypothesis_template": "this is about {}.",
    }
    for batch_size in (1, 5):
        assert_alike(
            ours(TEXTS[:3], batch_size=batch_size, **options),
            theirs(TEXTS[:3], batch_size=batch_size, **options),
        )


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 5},
        {"top_k": 3, "handle_impossible_answer": True, "max_answer_len": 4},
        {"top_k": 4, "align_to_words": False},
    ],
    ids=str,
)
def test_question_answering(made: Make, batch_size: int, options: dict[str, Any]) -> None:
    ours, theirs = both("question-answering", made("question-answering"))
    questions = ["what is it?", "who sat on the mat?", "when?"]
    contexts = [TEXTS[0], long_text(200), long_text(90)]
    arguments = {
        "question": questions,
        "context": contexts,
        "max_seq_len": 48,
        "doc_stride": 11,
        "batch_size": batch_size,
        **options,
    }
    assert_alike(ours(**arguments), theirs(**arguments))


def test_question_answering_is_the_best_of_all_spans(made: Make) -> None:
    """Against every pair of tokens of every window, from the logits of torch's model."""
    folders = made("question-answering")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders.unpacked)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folders.unpacked).eval()
    question, context = "who came?", long_text(120)
    windows = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=40,
        stride=7,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    totals: dict[str, float] = {}
    for window in range(len(windows["input_ids"])):
        ids = torch.tensor([windows["input_ids"][window]])
        types = torch.tensor([windows["token_type_ids"][window]])
        with torch.inference_mode():
            output = model(ids, token_type_ids=types)
        answerable = [0] + [
            place for place, part in enumerate(windows.sequence_ids(window)) if part == 1
        ]
        start, end = (
            dict(zip(answerable, logits[0, answerable].softmax(0).tolist()))
            for logits in (output.start_logits, output.end_logits)
        )
        offsets = windows["offset_mapping"][window]
        spans = [
            (start[first] * end[last], context[offsets[first][0] : offsets[last][1]].lower())
            for first in answerable[1:]
            for last in answerable[1:]
            if first <= last < first + 6
        ]
        for score, text in sorted(spans, reverse=True)[:3]:
            totals[text] = totals.get(text, 0) + score
    best = sorted(((score, text) for text, score in totals.items()), reverse=True)[:3]
    found = pipeline("question-answering", folders.packed)(
        question=question,
        context=context,
        max_seq_len=40,
        doc_stride=7,
        top_k=3,
        max_answer_len=6,
        align_to_words=False,
    )
    assert [each["answer"].lower() for each in found] == [text for _, text in best]
    assert_alike([each["score"] for each in found], [score for score, _ in best])
    for each in found:
        assert each["answer"] == context[each["start"] : each["end"]]


def test_question_answering_takes_what_it_took_before(made: Make) -> None:
    answer = pipeline("question-answering", made("question-answering").packed)
    item = {"question": "what is it?", "context": TEXTS[0]}
    expected = answer(**item)
    assert answer(item) == expected
    assert answer(item["question"], item["context"]) == expected
    assert answer([item]) == expected
    assert answer([item, item]) == [expected, expected]
    assert answer(question=[item["question"]] * 2, context=item["context"]) == [expected] * 2
    assert list(answer(item for _ in range(2))) == [expected, expected]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"question": "what?"}, "pass question= and context="),
        ({"question": ["a", "b"], "context": ["c"]}, "2 questions and 1 contexts"),
        ({"question": "", "context": "c"}, "question must be a string that is not empty"),
        ({"question": "a", "context": "c", "top_k": 0}, "top_k must be at least 1"),
        ({"question": "a", "context": "c", "max_answer_len": 0}, "max_answer_len must be at"),
    ],
    ids=str,
)
def test_questions_that_cannot_be_asked(made: Make, arguments: dict[str, Any], said: str) -> None:
    answer = pipeline("question-answering", made("question-answering").packed)
    with pytest.raises(InputError, match=said):
        answer(**arguments)


def test_a_pipeline_of_transformers_takes_the_model(
    made: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    heads = {
        "text-classification": "sequence-classification",
        "feature-extraction": "encoder",
        "token-classification": "token-classification",
        "fill-mask": "masked-lm",
        "question-answering": "question-answering",
    }
    for task, head in heads.items():
        folder = str(made(head).packed)
        model = SparsebertModel.from_pretrained(folder, threads=1)
        made_pipeline = transformers.pipeline(task, model=model, tokenizer=folder, device="cpu")
        assert made_pipeline.model is model
    assert not caplog.records, "transformers complains of models whose class it does not know"


def test_a_loaded_model_is_taken_too(made: Make) -> None:
    folder = made("sequence-classification").packed
    model = load(folder, threads=1)
    classify = pipeline("text-classification", model)
    assert classify.model.engine is model
    assert classify("a text") == pipeline("text-classification", classify.model)("a text")


def inputs(folders: Folders, side: str = "right") -> dict[str, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders.packed, padding_side=side)
    return dict(tokenizer(TEXTS[:3], padding=True, return_tensors="pt"))


@pytest.mark.parametrize("head", ["encoder", "sequence-classification", "masked-lm"])
def test_the_outputs_are_those_of_transformers(made: Make, head: str) -> None:
    folders = made(head)
    auto = {
        "encoder": transformers.AutoModel,
        "sequence-classification": transformers.AutoModelForSequenceClassification,
        "masked-lm": transformers.AutoModelForMaskedLM,
    }[head]
    theirs = auto.from_pretrained(folders.unpacked).eval()
    ours = SparsebertModel.from_pretrained(folders.packed)
    batch = inputs(folders)
    with torch.inference_mode():
        expected, found = theirs(**batch)[0], ours(**batch)
    inside = batch["attention_mask"].bool() if expected.dim() == 3 else ...
    assert_alike(found[0][inside], expected[inside])
    assert_alike(ours(**batch, return_dict=False)[0], found[0])
    assert_alike(ours(**batch, return_dict=None).to_tuple()[0], found[0])
    assert found[0].dtype == ours.dtype == torch.float32
    assert type(ours).__name__ == type(theirs).__name__
    assert ours.config.id2label == theirs.config.id2label
    left = ours(**inputs(folders, "left"))[0]
    if expected.dim() == 3:  # to the left of the tokens, padding moves no position
        turned = batch["attention_mask"].flip(1).bool()
        assert_alike(left[turned], found[0][inside])
    else:
        assert_alike(left, found[0])


def test_without_masks_every_token_counts(made: Make) -> None:
    folders = made("encoder")
    ids = inputs(folders)["input_ids"]
    model = SparsebertModel.from_pretrained(folders.packed)
    alone = model(ids[1:2])[0]
    expected = load(folders.packed).forward(ids[1:2].tolist())
    assert_alike(alone[0], np.array(expected[0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": torch.zeros(2)}, "does not support labels"),
        ({"output_attentions": True}, "does not support output_attentions"),
        ({"output_hidden_states": True}, "does not support output_hidden_states"),
        ({"attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])}, "row 1 .* masks every token"),
        ({"attention_mask": torch.tensor([[1, 0, 1], [1, 1, 1]])}, "row 0 .* has a gap"),
        ({"attention_mask": torch.ones(2, 1, 3, 3)}, r"shape \[2, 1, 3, 3\]"),
        ({"input_ids": torch.full((2, 3), 10**6)}, "outside the model's vocabulary"),
    ],
    ids=str,
)
def test_what_the_engine_does_not_do_is_refused(
    made: Make, change: dict[str, Any], said: str
) -> None:
    model = SparsebertModel.from_pretrained(made("encoder").packed)
    with pytest.raises(InputError, match=said):
        model(**{"input_ids": torch.full((2, 3), 5), **change})


def test_tasks_that_do_not_fit_are_refused(made: Make) -> None:
    folder = made("encoder").packed
    with pytest.raises(
        InputError, match="of the kind encoder, but fill-mask needs one of the kind masked"
    ):
        pipeline("fill-mask", folder)
    with pytest.raises(InputError, match="task must be one of text-classification, .*'translate'"):
        pipeline("translate", folder)
    assert set(TASKS) < set(transformers.pipelines.get_supported_tasks())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"config": transformers.BertConfig()}, "leave config out"),
        ({"model_kwargs": {"problem_type": "regression"}}, "model_kwargs: problem_type is"),
        ({"model_kwargs": {"num_labels": 5}}, "model_kwargs: num_labels is"),
        ({"model_kwargs": {"quantization_config": {}}}, "model_kwargs: quantization_config is"),
    ],
    ids=str,
)
def test_options_that_change_the_model_are_refused(
    made: Make, options: dict[str, Any], said: str
) -> None:
    """Whether the model is named or already loaded."""
    folder = made("sequence-classification").packed
    for model in (folder, load(folder)):
        with pytest.raises(InputError, match=said):
            pipeline("text-classification", model, **options)


def test_options_that_choose_the_model_are_followed(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = made("sequence-classification").packed
    asked: dict[str, Any] = {}

    def download(repo: str, **arguments: Any) -> str:
        asked.update(arguments, repo=repo)
        return str(folder.parent)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    kwargs = {"cache_dir": "models", "subfolder": folder.name, "num_labels": 3}
    classify = pipeline(
        "text-classification",
        "org/model",
        revision="v1",
        token="secret",
        dtype="float32",
        model_kwargs=kwargs,
    )
    wanted = {"repo": "org/model", "revision": "v1", "token": "secret", "cache_dir": "models"}
    assert wanted.items() <= asked.items()
    assert classify.model.engine.name == "org/model"
    assert classify("a text") == pipeline("text-classification", folder)("a text")


def test_a_folder_without_a_model_type_is_a_bert(made: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(made("sequence-classification").unpacked, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    expected = pipeline("text-classification", folder)("a text")
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    assert pipeline("text-classification", folder)("a text") == expected


def test_families_that_transformers_lacks_are_refused(tmp_path: Path) -> None:
    folder = write_jina_bert(tmp_path / "jina")
    with pytest.raises(CheckpointError, match="JinaBERT, for which transformers has no classes"):
        pipeline("fill-mask", folder)


def test_it_can_be_pickled_for_another_process(made: Make) -> None:
    folders = made("sequence-classification")
    model = SparsebertModel.from_pretrained(folders.packed, threads=1)
    text = pickle.dumps(model)
    assert len(text) < 1000, "the weights must not travel: the other process maps them again"
    again = pickle.loads(text)
    batch = inputs(folders)
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert again.engine.threads == 1


@pytest.mark.parametrize(
    "asked", [{"push_to_hub": True}, {"state_dict": {}}, {"variant": "fp16"}], ids=str
)
def test_what_saving_does_not_do(made: Make, tmp_path: Path, asked: dict[str, Any]) -> None:
    answer = pipeline("text-classification", made("sequence-classification").packed)
    with pytest.raises(InputError, match="saved as they are, into a folder: .* not support"):
        answer.save_pretrained(tmp_path / "saved", **asked)
    answer.model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    answer.model.save_pretrained(tmp_path / "other", max_shard_size="1GB")
    assert (tmp_path / "other" / "packed.safetensors").is_file()


def test_a_pipeline_saves_a_folder_that_loads_again(made: Make, tmp_path: Path) -> None:
    answer = pipeline("question-answering", made("question-answering").packed)
    answer.save_pretrained(tmp_path / "saved")
    # transformers writes the tokenizer after the weights, so that nobody has the whole to check.
    with pytest.warns(UncheckedWarning, match="without checksums"):
        again = pipeline("question-answering", tmp_path / "saved")
    question = {"question": "what is it?", "context": TEXTS[0]}
    assert again(question) == answer(question)
    assert not list((tmp_path / "saved").glob("*.py")), "no folder carries code"
