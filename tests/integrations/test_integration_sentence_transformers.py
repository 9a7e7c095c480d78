"""sentence-transformers' classes on our engine give what they give on the unpacked torch model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune, unpack
from sparsebert.errors import CheckpointError, InputError

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("sentence_transformers")

from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.cross_encoder.evaluation import (
    CrossEncoderCorrelationEvaluator,
    CrossEncoderRerankingEvaluator,
)
from sentence_transformers.sentence_transformer import evaluation, modules

from sparsebert.integrations.sentence_transformers import CrossEncoder, SentenceTransformer
from sparsebert.packing import renew_checksums

TEXTS = [*SENTENCES, long_text(100), ""]
PAIRS = list(zip(SENTENCES, SENTENCES[3:]))
TOLERANCE = 1e-5


class Folders(NamedTuple):
    """The same 1:2 model, packed in fp32 and as an ordinary folder."""

    packed: Path
    unpacked: Path


def halved(dense: Path, folder: Path) -> Folders:
    prune(dense, folder / "sparse")
    pack(folder / "sparse", folder / "packed", dtype="fp32")
    unpack(folder / "packed", folder / "unpacked")
    return Folders(folder / "packed", folder / "unpacked")


@pytest.fixture(scope="module")
def sentences(
    tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Folders]:
    """A model as sentence-transformers itself saves it, with a pooling mode and prompts."""
    known: dict[str, Folders] = {}

    def make(mode: str = "mean") -> Folders:
        if mode not in known:
            folder = tmp_path_factory.mktemp("sentences")
            transformer = Transformer(str(tiny_bert()))
            dense = theirs.SentenceTransformer(
                modules=[transformer, modules.Pooling(32, mode), Normalize()],
                prompts={"query": "question: ", "document": "text: "},
                similarity_fn_name="dot",
                device="cpu",
            )
            dense.max_seq_length = 48
            dense.save(str(folder / "dense"))
            known[mode] = halved(folder / "dense", folder)
        return known[mode]

    return make


@pytest.fixture(scope="module")
def both(sentences: Callable[..., Folders]) -> tuple[Any, Any]:
    folders = sentences()
    return (
        SentenceTransformer(folders.packed),
        theirs.SentenceTransformer(str(folders.unpacked), device="cpu"),
    )


@pytest.fixture(scope="module")
def rankers(
    tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[Any, Any]]:
    known: dict[int, tuple[Any, Any]] = {}

    def make(labels: int) -> tuple[Any, Any]:
        if labels not in known:
            dense = tiny_bert("sequence-classification", num_labels=labels)
            folders = halved(dense, tmp_path_factory.mktemp("ranker"))
            known[labels] = (
                CrossEncoder(folders.packed),
                theirs.CrossEncoder(str(folders.unpacked), device="cpu"),
            )
        return known[labels]

    return make


def assert_alike(ours: Any, others: Any) -> None:
    if isinstance(others, dict):
        assert ours.keys() == others.keys()
        for key in others:
            assert_alike(ours[key], others[key])
    elif isinstance(others, list):
        assert len(ours) == len(others)
        for mine, other in zip(ours, others):
            assert_alike(mine, other)
    elif isinstance(others, torch.Tensor | np.ndarray | np.floating | float):
        assert type(ours) is type(others)
        assert getattr(ours, "dtype", None) == getattr(others, "dtype", None)
        np.testing.assert_allclose(ours, others, atol=TOLERANCE, rtol=0)
    else:
        assert ours == others


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 3},
        {"convert_to_tensor": True, "batch_size": 5},
        {"convert_to_numpy": False},
        {"normalize_embeddings": True, "truncate_dim": 16},
        {"prompt": "say: "},
        {"prompt_name": "query", "show_progress_bar": True},
        {"precision": "binary"},
        {"precision": "ubinary"},
        {"output_value": "token_embeddings", "batch_size": 4},
        {"output_value": None},
    ],
    ids=str,
)
def test_encode(both: tuple[Any, Any], options: dict[str, Any]) -> None:
    ours, others = both
    if options.get("output_value") is None and "output_value" in options:
        # Everything there is, token ids among it: what stands at padding is nobody's.
        for mine, other in zip(ours.encode(TEXTS, **options), others.encode(TEXTS, **options)):
            assert_alike(mine["sentence_embedding"], other["sentence_embedding"])
        return
    assert_alike(ours.encode(TEXTS, **options), others.encode(TEXTS, **options))
    assert_alike(ours.encode(TEXTS[2], **options), others.encode(TEXTS[2], **options))


def test_the_default_prompt_stands_once(sentences: Callable[..., Folders], tmp_path: Path) -> None:
    folders = sentences()
    for folder, name in ((folders.packed, "packed"), (folders.unpacked, "unpacked")):
        config = shutil.copytree(folder, tmp_path / name) / "config_sentence_transformers.json"
        settings = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "default_prompt_name": "query"}))
    renew_checksums(tmp_path / "packed")
    ours = SentenceTransformer(tmp_path / "packed")
    others = theirs.SentenceTransformer(str(tmp_path / "unpacked"), device="cpu")
    assert_alike(ours.encode(TEXTS), others.encode(TEXTS))


def test_int8_embeddings_differ_by_rounding_only(both: tuple[Any, Any]) -> None:
    ours, others = (model.encode(TEXTS, precision="int8") for model in both)
    assert ours.dtype == others.dtype == np.int8
    assert np.abs(ours.astype(int) - others.astype(int)).max() <= 1


def test_queries_documents_and_similarity(both: tuple[Any, Any]) -> None:
    ours, others = both
    assert ours.prompts == others.prompts
    assert ours.similarity_fn_name == others.similarity_fn_name == "dot"
    assert ours.max_seq_length == others.max_seq_length == 48
    assert ours.get_embedding_dimension() == others.get_embedding_dimension() == 32
    queries, documents = SENTENCES[:3], SENTENCES[3:9]
    found, expected = (
        model.similarity(model.encode_query(queries), model.encode_document(documents))
        for model in both
    )
    assert_alike(found, expected)


@pytest.mark.parametrize("mode", ["cls", "max", "mean_sqrt_len_tokens"])
def test_other_poolings(sentences: Callable[..., Folders], mode: str) -> None:
    folders = sentences(mode)
    ours = SentenceTransformer(folders.packed, truncate_dim=20)
    others = theirs.SentenceTransformer(str(folders.unpacked), device="cpu", truncate_dim=20)
    assert_alike(ours.encode(TEXTS), others.encode(TEXTS))


def test_a_folder_without_modules_is_pooled_by_the_mean(
    tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    folders = halved(tiny_bert(), tmp_path)
    others = theirs.SentenceTransformer(str(folders.unpacked), device="cpu")
    assert_alike(SentenceTransformer(folders.packed).encode(TEXTS), others.encode(TEXTS))
    assert_alike(SentenceTransformer(folders.unpacked).encode(TEXTS), others.encode(TEXTS))


def test_it_embeds_as_our_own_model_does(sentences: Callable[..., Folders]) -> None:
    folder = sentences().packed
    texts = list(SENTENCES)
    assert_alike(SentenceTransformer(folder, threads=1).encode(texts), load(folder).embed(texts))


def test_evaluators(both: tuple[Any, Any]) -> None:
    left, right = map(list, zip(*PAIRS))
    scores = np.random.default_rng(0).random(len(PAIRS)).tolist()
    numbered = {str(number): text for number, text in enumerate(SENTENCES)}
    evaluators = [
        evaluation.EmbeddingSimilarityEvaluator(left, right, scores),
        evaluation.InformationRetrievalEvaluator(
            {key: numbered[key] for key in "0123"},
            numbered,
            {key: {str((int(key) * 5 + 1) % 20), "7"} for key in "0123"},
        ),
        evaluation.TripletEvaluator(left, right, right[::-1]),
    ]
    for evaluator in evaluators:
        assert_alike(*(evaluator(model) for model in both))
    ours, others = both
    assert_alike(ours.evaluate(evaluators[0]), others.evaluate(evaluators[0]))


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 3}, {"convert_to_tensor": True}, {"activation_fn": torch.nn.Identity()}],
    ids=str,
)
@pytest.mark.parametrize("labels", [1, 3])
def test_predict(
    rankers: Callable[[int], tuple[Any, Any]], labels: int, options: dict[str, Any]
) -> None:
    ours, others = rankers(labels)
    assert ours.num_labels == others.num_labels == labels
    assert_alike(ours.predict(PAIRS, **options), others.predict(PAIRS, **options))
    if labels > 1:
        softmax = {"apply_softmax": True, **options}
        assert_alike(ours.predict(PAIRS, **softmax), others.predict(PAIRS, **softmax))
    assert_alike(ours.predict(PAIRS[0], **options), others.predict(PAIRS[0], **options))


def test_rank_and_its_evaluators(rankers: Callable[[int], tuple[Any, Any]]) -> None:
    models = rankers(1)
    query, documents = SENTENCES[4], list(SENTENCES[5:])
    found, expected = (
        model.rank(query, documents, top_k=4, return_documents=True) for model in models
    )
    assert [each["text"] for each in found] == [each["text"] for each in expected]
    assert [each["corpus_id"] for each in found] == [each["corpus_id"] for each in expected]
    np.testing.assert_allclose(
        [each["score"] for each in found], [each["score"] for each in expected], atol=TOLERANCE
    )
    scores = np.random.default_rng(1).random(len(PAIRS)).tolist()
    samples = [
        {"query": query, "positive": documents[:2], "negative": documents[2:9]},
        {"query": documents[9], "positive": documents[3:4], "negative": documents[5:8]},
    ]
    for evaluator in (
        CrossEncoderCorrelationEvaluator(PAIRS, scores),
        CrossEncoderRerankingEvaluator(samples, show_progress_bar=False),
    ):
        assert_alike(*(evaluator(model) for model in models))


def test_what_is_saved_opens_again_and_names_no_class_of_ours(
    both: tuple[Any, Any], tmp_path: Path
) -> None:
    ours, _ = both
    ours.save(str(tmp_path / "saved"))
    assert "sparsebert" not in (tmp_path / "saved/modules.json").read_text()
    again = SentenceTransformer(tmp_path / "saved")
    assert again.prompts == ours.prompts
    assert_alike(again.encode(TEXTS), ours.encode(TEXTS))
    unpack(tmp_path / "saved", tmp_path / "unpacked")
    torch_model = theirs.SentenceTransformer(str(tmp_path / "unpacked"), device="cpu")
    assert_alike(torch_model.encode(TEXTS), ours.encode(TEXTS))


def test_processes_of_a_pool_get_a_name_and_not_the_weights(both: tuple[Any, Any]) -> None:
    ours, _ = both
    ours.share_memory()  # what a pool does before it sends the model to its processes
    again = pickle.loads(pickle.dumps(ours))
    assert_alike(again.encode(TEXTS), ours.encode(TEXTS))


def test_threads_and_places(sentences: Callable[..., Folders]) -> None:
    model = SentenceTransformer(sentences().packed, threads=1)
    assert model[0].model.engine.threads == 1
    assert model.device == torch.device("cpu")
    assert model.get_backend() == "sparsebert"
    assert "Pooling" in repr(model)


def test_what_the_engine_does_not_do_is_refused(
    sentences: Callable[..., Folders], tmp_path: Path
) -> None:
    folder = sentences().packed
    with pytest.raises(InputError, match="model_kwargs: quantization_config is set"):
        SentenceTransformer(folder, model_kwargs={"quantization_config": {}})
    with pytest.raises(InputError, match="not in the subfolder 'elsewhere'"):
        SentenceTransformer(folder, model_kwargs={"subfolder": "elsewhere"})
    with pytest.raises(InputError, match="of the kind encoder, but text-classification needs"):
        CrossEncoder(folder)
    with pytest.raises(InputError, match="backend is sparsebert's own engine"):
        SentenceTransformer(folder, backend="onnx")


def test_settings_that_change_the_model_are_refused(
    tiny_bert: Callable[..., Path], sentences: Callable[..., Folders]
) -> None:
    """torch computes a model with these settings; ours is always that of config.json."""
    ranker = tiny_bert("sequence-classification", num_labels=1)
    changes = {"hidden_act": "relu", "layer_norm_eps": 0.3, "num_hidden_layers": 1}
    for name, value in changes.items():
        for make, folder in (
            (SentenceTransformer, sentences().packed),  # with modules
            (SentenceTransformer, tiny_bert()),
            (CrossEncoder, ranker),
        ):
            with pytest.raises(InputError, match=f"config_kwargs: {name} is set"):
                make(folder, config_kwargs={name: value})
    with pytest.raises(InputError, match="config_kwargs: num_labels is set"):
        CrossEncoder(ranker, num_labels=3)


def test_settings_that_the_model_has_anyway_are_taken(tiny_bert: Callable[..., Path]) -> None:
    ranker = tiny_bert("sequence-classification", num_labels=1)
    same = {"hidden_act": "gelu", "use_cache": False, "output_attentions": False}
    ours = CrossEncoder(ranker, num_labels=1, config_kwargs=same)
    others = theirs.CrossEncoder(str(ranker), num_labels=1, config_kwargs=same, device="cpu")
    assert_alike(ours.predict(PAIRS), others.predict(PAIRS))


def test_what_changes_no_answer_is_taken(sentences: Callable[..., Folders], tmp_path: Path) -> None:
    """As `load` takes it: how torch would compute the same, of the caller or of the folder."""
    folder = shutil.copytree(sentences().unpacked, tmp_path / "st")
    given = {"attn_implementation": "eager", "torch_dtype": "float32", "add_pooling_layer": False}
    settings = folder / "sentence_bert_config.json"
    said = json.loads(settings.read_text())
    expected = SentenceTransformer(folder, model_kwargs=given).encode(TEXTS)
    settings.write_text(json.dumps({**said, "model_kwargs": given}))
    assert_alike(SentenceTransformer(folder).encode(TEXTS), expected)
    assert_alike(load(folder).embed(TEXTS[:3]), expected[:3])


def test_an_id_of_the_hub_is_asked_for_its_revision(
    sentences: Callable[..., Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from sparsebert.checkpoint import resolve_model

    asked: list[dict[str, Any]] = []

    def download(repo: str, **arguments: Any) -> str:
        asked.append({"repo": repo, **arguments})
        return str(sentences().packed)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    resolve_model("org/model", revision="v1", token="secret")
    assert asked[0]["repo"] == "org/model"
    assert asked[0]["revision"] == "v1"

    def fail(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError) as caught:
        resolve_model("org/model", token="secret")
    assert "secret" not in str(caught.value)


@pytest.mark.shared
def test_a_real_model_in_int8_ranks_as_well_as_in_torch(
    minilm: Path, shared_data: Path, tmp_path: Path
) -> None:
    """The scores of the whole sets are in docs/results.md; this is a part, for time's sake."""
    parquet = pytest.importorskip("pyarrow.parquet")
    (file,) = (shared_data / "stsb").glob("validation*.parquet")
    rows = parquet.read_table(file).slice(0, 200).to_pydict()
    evaluator = evaluation.EmbeddingSimilarityEvaluator(
        rows["sentence1"], rows["sentence2"], rows["label"]
    )
    pack(minilm, tmp_path / "packed", dtype="int8")
    ours = SentenceTransformer(tmp_path / "packed").evaluate(evaluator)
    others = theirs.SentenceTransformer(str(minilm), device="cpu").evaluate(evaluator)
    assert abs(ours["spearman_cosine"] - others["spearman_cosine"]) < 0.003
