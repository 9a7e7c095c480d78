"""modules.json and its modules: the pooling a model's author meant, in old and new spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bert_folders import write_bert
from sentence_folders import OLD, write_modules, write_pooling
from sparsebert.checkpoint import (
    Pooling,
    Prompts,
    open_checkpoint,
    read_pooling,
    read_prompts,
    transformer_folder,
)
from sparsebert.checkpoint.model_settings import read_dimensions, read_similarity
from sparsebert.errors import CheckpointError


def test_other_folders_have_none(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None
    write_modules(tmp_path, "Transformer")  # how cross-encoders are saved
    assert read_pooling(tmp_path) is None


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_both_spellings_of_a_mode(
    tmp_path: Path, settings: dict[str, Any], mode: str, new: bool
) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling", new=new), **settings)
    assert read_pooling(tmp_path) == Pooling((mode,))


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({"pooling_mode": "weightedmean"}, ("weightedmean",)),
        ({"pooling_mode_lasttoken": True}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
    ],
)
def test_several_modes_in_order(
    tmp_path: Path, settings: dict[str, Any], modes: tuple[str, ...]
) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling"), **settings)
    found = read_pooling(tmp_path)
    assert found == Pooling(modes)
    assert found.width(32) == 32 * len(modes)


@pytest.mark.parametrize("mode", [7, "median", [], ["mean", "median"]])
def test_modes_that_are_none(tmp_path: Path, mode: object) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling"), pooling_mode=mode)
    with pytest.raises(CheckpointError, match="is not supported; use one of mean"):
        read_pooling(tmp_path)


@pytest.mark.parametrize("value", ["false", 1, None, []])
def test_flags_are_true_or_false(tmp_path: Path, value: object) -> None:
    pooling = write_modules(tmp_path, "Transformer", "Pooling")
    write_pooling(pooling, pooling_mode_mean_tokens=True, pooling_mode_cls_token=value)
    with pytest.raises(CheckpointError, match="pooling_mode_cls_token must be true or false, not"):
        read_pooling(tmp_path)


def test_normalize(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", "Normalize", new=True)
    write_pooling(tmp_path, pooling_mode="cls")
    assert read_pooling(tmp_path) == Pooling(("cls",), normalize=True)
    (tmp_path / "2_Normalize").mkdir()
    config = tmp_path / "2_Normalize" / "config.json"
    config.write_text('{"module_input_name": "sentence_embedding"}')
    assert read_pooling(tmp_path) == Pooling(("cls",), normalize=True)
    config.write_text('{"module_input_name": "token_embeddings"}')
    found = read_pooling(tmp_path)
    with pytest.raises(CheckpointError, match="works on 'token_embeddings', but"):
        found.check()


def test_an_unknown_key_of_a_pooling_is_refused(tmp_path: Path) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling"), pooling_mode="cls", stride=2)
    with pytest.raises(CheckpointError, match="stride is set, which neither"):
        read_pooling(tmp_path)


def write_prompts(folder: Path, **settings: Any) -> Path:
    write_modules(folder, "Transformer", "Pooling")
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def test_prompts(tmp_path: Path) -> None:
    assert read_prompts(tmp_path) == Prompts({}, "")
    texts = {"query": "ask: ", "document": None}
    assert read_prompts(write_prompts(tmp_path, prompts=texts)) == Prompts(
        {"query": "ask: ", "document": ""}, ""
    )
    write_prompts(tmp_path, prompts=texts, default_prompt_name="query")
    assert read_prompts(tmp_path).default == "ask: "
    # Names that sentence-transformers gives every model.
    assert read_prompts(write_prompts(tmp_path, default_prompt_name="document")) == Prompts({}, "")


def test_prompts_of_queries_and_documents() -> None:
    """The default is for texts without a task, and stands in only where neither has a prompt."""
    for texts, plain, given in (
        ({"other": "b: "}, ("b: ", "b: "), ("", "")),
        ({"query": "", "passage": "b: "}, ("", "b: "), ("", "b: ")),
        ({"query": "b: ", "document": ""}, ("b: ", ""), ("b: ", "")),
    ):
        prompts = Prompts(texts, "b: ")
        assert (prompts.query, prompts.document) == plain
        assert (prompts.of("query"), prompts.of("document")) == given


def test_settings_that_sentence_transformers_ignores(tmp_path: Path) -> None:
    """Those without a modules.json, and those of another kind of model."""
    settings = {
        "prompts": {"query": "ask: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 4,
    }
    write_pooling(tmp_path)
    for model_type, applies in (("SentenceTransformer", True), ("CrossEncoder", False)):
        write_prompts(tmp_path, **settings, model_type=model_type)
        assert read_prompts(tmp_path).default == ("ask: " if applies else "")
        assert read_prompts(tmp_path, reranker=True).default == ("" if applies else "ask: ")
        assert read_similarity(tmp_path) == ("dot" if applies else "cosine")
        assert read_dimensions(tmp_path) == (4 if applies else None)
    write_prompts(tmp_path, **settings)
    assert read_prompts(tmp_path).default == "ask: "
    (tmp_path / "modules.json").unlink()
    assert read_prompts(tmp_path) == read_prompts(tmp_path, reranker=True) == Prompts()
    assert read_similarity(tmp_path) == "cosine"
    assert read_dimensions(tmp_path) is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"prompts": ["ask: "]}, "'prompts' must map names to texts"),
        ({"prompts": {"query": 7}}, "'prompts' must map names to texts"),
        (
            {"prompts": {"q": "a"}, "default_prompt_name": "other"},
            "'other', which is not one of its",
        ),
        ({"default_prompt_name": ["q"]}, "which is not one of its prompts: none"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read_prompts(write_prompts(tmp_path, **settings))


def test_pooling_that_leaves_the_prompt_out(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling")
    write_pooling(tmp_path, pooling_mode="mean", include_prompt=False)
    assert read_pooling(tmp_path) == Pooling(("mean",), include_prompt=False)
    write_pooling(tmp_path, pooling_mode="mean", include_prompt="no")
    with pytest.raises(CheckpointError, match="include_prompt must be true or false, not 'no'"):
        read_pooling(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "odd"),
    [
        (("Transformer", "Dense", "Pooling"), "Dense"),
        (("Transformer", "WeightedLayerPooling"), "WeightedLayerPooling"),
        (("Transformer", "Normalize", "Pooling"), "Normalize"),
        (("Transformer", "Pooling", "Pooling"), "Pooling"),
        (("Transformer", "LayerNorm"), "LayerNorm"),
    ],
)
def test_modules_we_do_not_compute_are_named(
    tmp_path: Path, kinds: tuple[str, ...], odd: str
) -> None:
    write_pooling(write_modules(write_bert(tmp_path / "m"), *kinds), pooling_mode="mean")
    checkpoint = open_checkpoint(tmp_path / "m")  # whose encoder can be pruned all the same
    with pytest.raises(CheckpointError, match=f"asks for a '{odd}' module"):
        checkpoint.pooling.check()


@pytest.mark.parametrize("kind", ["Pooling", "Normalize", "Transformer"])
def test_modules_of_others_are_not_taken_for_the_librarys(tmp_path: Path, kind: str) -> None:
    write_pooling(
        write_modules(tmp_path, "Transformer", "Pooling", "Normalize"), pooling_mode="cls"
    )
    listed = (tmp_path / "modules.json").read_text()
    theirs = f"my_modules.sentence_transformers.{kind}"
    (tmp_path / "modules.json").write_text(listed.replace(OLD + kind, theirs))
    found = read_pooling(tmp_path)
    with pytest.raises(CheckpointError, match=f"asks for a '{theirs}' module"):
        found.check()


def test_logits_are_not_pooled(tmp_path: Path) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling"), pooling_mode="mean")
    (tmp_path / "sentence_bert_config.json").write_text('{"transformer_task": "fill-mask"}')
    found = read_pooling(tmp_path)
    with pytest.raises(CheckpointError, match="pools a head's logits"):
        found.check()


def test_dropout_does_nothing_at_inference(tmp_path: Path) -> None:
    write_pooling(write_modules(tmp_path, "Transformer", "Pooling", "Dropout"), pooling_mode="max")
    assert read_pooling(tmp_path) == Pooling(("max",))


def test_the_transformer_may_lie_in_a_sub_folder(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling", transformer="0_Transformer")
    write_pooling(tmp_path, pooling_mode_mean_tokens=True)
    write_bert(tmp_path / "0_Transformer")
    assert transformer_folder(tmp_path) == tmp_path / "0_Transformer"
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == tmp_path
    assert checkpoint.transformer == tmp_path / "0_Transformer"
    assert checkpoint.pooling == Pooling(("mean",))


@pytest.mark.parametrize(
    "path",
    ["..", "../other", "/etc", "a/../../b", "a\\b", "C:x", 7, ["a"], None, "a\0b"],
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: object) -> None:
    modules = [{"path": path, "type": OLD + "Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        transformer_folder(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = write_bert(tmp_path / "outside")
    folder = write_modules(tmp_path / "m", "Transformer", transformer="0_Transformer")
    (folder / "0_Transformer").symlink_to(outside)
    with pytest.raises(CheckpointError, match="a link that leads outside the folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"path": ""}]', '[{"type": 7}]', "nonsense"])
def test_malformed_lists_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        read_pooling(tmp_path)


def test_what_sentence_transformers_saves_today(minilm: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    library.SentenceTransformer(str(minilm)).save(str(tmp_path / "saved"))
    saved = read_pooling(tmp_path / "saved")
    assert saved == read_pooling(minilm) == Pooling(("mean",), normalize=True)
