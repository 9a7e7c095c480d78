"""Sentence embeddings: sentence-transformers' own numbers, and pooling recomputed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sentence_folders import with_modules
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune
from sparsebert.engine import available_instruction_sets
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference import TruncationWarning

MODES = {
    "mean": lambda rows: rows.mean(0),
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(0),
    "mean_sqrt_len": lambda rows: rows.sum(0) / np.sqrt(len(rows)),
}


def with_prompts(folder: Path, default: str | None = None, **texts: str) -> Path:
    """The folder, with sentence-transformers' prompts in it."""
    settings = {"prompts": texts, "default_prompt_name": default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


class TestAgainstSentenceTransformers:
    def test_prompts(self, tiny_bert, tmp_path):
        library = pytest.importorskip("sentence_transformers")
        folder = with_modules(tiny_bert(), tmp_path / "st", mode="mean", normalize=True)
        with_prompts(folder, "query", query="the wall at noon: ", document="a bridge: ")
        pack(folder, tmp_path / "packed", dtype="fp32")
        theirs = library.SentenceTransformer(str(folder), device="cpu")
        expected = theirs.encode(SENTENCES)
        for each in (folder, tmp_path / "packed"):
            model = load(each)
            assert np.abs(model.embed(SENTENCES) - expected).max() < 2e-5
            for prompt in ("", "ferry: ", model.prompts.texts["document"]):
                found = model.embed(SENTENCES, prompt=prompt)
                assert np.abs(found - theirs.encode(SENTENCES, prompt=prompt)).max() < 2e-5
            found = model.embed(SENTENCES, prompt_name="document")
            assert np.abs(found - theirs.encode(SENTENCES, prompt_name="document")).max() < 2e-5
        assert np.abs(model.embed(SENTENCES, prompt="") - expected).max() > 1e-2
        single = model.embed(SENTENCES[0])
        assert np.abs(single - theirs.encode(SENTENCES[0])).max() < 2e-5
        # Of a pair the first text has it, as in sentence-transformers.
        pair = ("ferry", "noon")
        assert np.array_equal(
            model.embed(pair), model.embed(("the wall at noon: ferry", "noon"), prompt="")
        )

    @pytest.mark.parametrize("threads", [1, 2])
    def test_real_model(self, minilm, threads):
        library = pytest.importorskip("sentence_transformers")
        theirs = library.SentenceTransformer(str(minilm), device="cpu").encode(SENTENCES)
        ours = load(minilm, threads=threads).embed(SENTENCES)
        assert ours.dtype == np.float32
        assert ours.shape == (len(SENTENCES), 384)
        assert np.abs(ours - theirs).max() < 2e-5  # of vectors of length 1

    @pytest.mark.filterwarnings("ignore:.*longer than 256 tokens")
    def test_long_text_is_cut_where_the_author_cut(self, minilm):
        library = pytest.importorskip("sentence_transformers")
        model = load(minilm)
        assert model.max_length == 256  # max_seq_length, not the 128 in tokenizer.json
        theirs = library.SentenceTransformer(str(minilm), device="cpu").encode(long_text(500))
        assert np.abs(model.embed(long_text(500)) - theirs).max() < 2e-5

    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("mode", MODES)
    def test_modules(self, tiny_bert, tmp_path, mode, normalize):
        library = pytest.importorskip("sentence_transformers")
        folder = with_modules(tiny_bert(), tmp_path / "st", mode=mode, normalize=normalize)
        theirs = library.SentenceTransformer(str(folder), device="cpu").encode(SENTENCES[:8])
        ours = load(folder).embed(SENTENCES[:8])
        assert np.abs(ours - theirs).max() < 2e-5 * max(1.0, np.abs(theirs).max())


class TestPooling:
    @pytest.fixture(scope="class")
    def folder(self, tiny_bert) -> Path:
        return tiny_bert(hidden_size=52, intermediate_size=36)

    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("isa", available_instruction_sets())
    def test_is_what_it_says_of_the_hidden_states(self, folder, monkeypatch, isa, mode, normalize):
        monkeypatch.setenv("SPARSEBERT_ISA", isa)
        model = load(folder, threads=2)
        ours = model.embed(SENTENCES, pooling=mode, normalize=normalize, batch_size=7)
        for vector, rows in zip(ours, model.hidden_states(SENTENCES), strict=True):
            expected = MODES[mode](rows.astype(np.float64))
            if normalize:
                expected /= np.linalg.norm(expected)
            assert vector == pytest.approx(expected, abs=1e-5)

    def test_default_is_the_mean_as_it_is(self, folder):
        model = load(folder)
        assert np.array_equal(
            model.embed(SENTENCES), model.embed(SENTENCES, pooling="mean", normalize=False)
        )

    def test_arguments_win_over_the_folder(self, minilm):
        model = load(minilm)
        assert np.linalg.norm(model.embed("a text")) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(model.embed("a text", normalize=False)) != pytest.approx(1, abs=1e-2)
        first = model.hidden_states("a text")[0]
        assert model.embed("a text", pooling="cls", normalize=False) == pytest.approx(
            first, abs=1e-5
        )

    def test_any_head_can_embed(self, tiny_bert):
        for head in ("sequence-classification", "question-answering", "masked-lm"):
            assert load(tiny_bert(head)).embed(["a ferry"]).shape == (1, 32)

    def test_a_module_we_cannot_compute(self, tiny_bert, tmp_path):
        folder = with_modules(tiny_bert(), tmp_path / "st", mode="mean", normalize=False)
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 2, "path": "2_CNN", "type": "sentence_transformers.models.CNN"})
        (folder / "modules.json").write_text(json.dumps(modules))
        prune(folder, tmp_path / "sparse")
        pack(tmp_path / "sparse", tmp_path / "packed")
        for each in (folder, tmp_path / "packed"):
            model = load(each)
            assert len(model.hidden_states("a ferry")) > 2
            with pytest.raises(CheckpointError, match="asks for a 'CNN' module"):
                model.embed("a ferry")


class TestShapes:
    @pytest.fixture(scope="class")
    def model(self, tiny_bert):
        return load(tiny_bert())

    def test_single_text_is_one_vector(self, model):
        many = model.embed(["the ferry leaves"])
        assert many.shape == (1, 32)
        assert np.array_equal(model.embed("the ferry leaves"), many[0])

    def test_no_texts(self, model):
        assert model.embed([]).shape == (0, 32)

    def test_iterables_and_pairs(self, model):
        assert model.embed(text for text in SENTENCES[:3]).shape == (3, 32)
        pair = model.embed(("the ferry", "leaves"))
        assert pair.shape == (32,)
        assert not np.allclose(pair, model.embed("the ferry leaves"), atol=1e-3)

    def test_batch_size_changes_nothing(self, model):
        expected = model.embed(SENTENCES)
        for batch_size in (1, 3, 1000):
            assert np.abs(model.embed(SENTENCES, batch_size=batch_size) - expected).max() < 1e-5

    def test_refusals(self, model):
        with pytest.raises(InputError, match="pooling must be one of mean, cls, max, mean_sqrt"):
            model.embed("short", pooling="median")
        with pytest.raises(InputError, match="batch_size must be an integer of at least 1"):
            model.embed("short", batch_size=0)
        with pytest.raises(InputError, match=r"texts\[1\] has \d+ tokens and only 62 fit"):
            model.embed(["short", long_text(100)], strict=True)

    def test_prompts_that_cannot_be(self, model, tiny_bert, tmp_path):
        with pytest.raises(InputError, match="prompt must be a string, not an int"):
            model.embed("short", prompt=7)
        with pytest.raises(InputError, match="has no prompt of that name; it has none"):
            model.embed("short", prompt_name="other")
        with pytest.raises(InputError, match="prompt_name must be a string, not an int"):
            model.embed_tokens("short", prompt_name=7)
        with pytest.raises(InputError, match="either prompt or prompt_name, not both"):
            model.embed("short", prompt="a ", prompt_name="query")
        folder = with_modules(tiny_bert(), tmp_path / "st", mode="mean", normalize=True)
        with pytest.raises(CheckpointError, match="not one of its prompts: query"):
            load(with_prompts(folder, "other", query="the wall: "))

    def test_truncation_is_told_once(self, model):
        with pytest.warns(TruncationWarning, match="2 texts are longer than 64 tokens") as caught:
            model.embed([long_text(100), "short", long_text(200)])
        assert len(caught) == 1
        assert caught[0].filename == __file__


class TestShorterAndSmaller:
    """Against sentence-transformers, and against what the definitions say."""

    @pytest.fixture(scope="class")
    def model(self, tiny_bert):
        return load(tiny_bert())

    @pytest.mark.parametrize("normalize", [False, True])
    def test_dimensions(self, model, normalize):
        whole = model.embed(SENTENCES, normalize=normalize)
        for count in (1, 7, model.config.hidden_size):
            short = model.embed(SENTENCES, normalize=normalize, dimensions=count)
            expected = whole[:, :count].astype(np.float64)
            if normalize:
                expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            assert short == pytest.approx(expected, abs=1e-6)
        assert model.embed(SENTENCES[0], dimensions=7).shape == (7,)

    def test_types(self, model):
        whole = model.embed(SENTENCES)
        half = model.embed(SENTENCES, output="float16")
        assert half.dtype == np.float16
        assert np.array_equal(half, whole.astype(np.float16))
        small = model.embed(SENTENCES, output="int8")
        assert small.dtype == np.int8
        assert np.abs(small).max(axis=1).tolist() == [127] * len(SENTENCES)
        for exact, rounded in zip(whole, small.astype(np.float64), strict=True):
            assert exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded) > 0.999
        quantization = pytest.importorskip("sentence_transformers.util.quantization")
        bits = model.embed(SENTENCES, output="binary")
        expected = quantization.quantize_embeddings(whole, precision="ubinary")
        assert bits.dtype == np.uint8
        assert np.array_equal(bits, expected)
        assert model.embed(SENTENCES[0], output="binary", dimensions=9).shape == (2,)

    def test_no_texts(self, model):
        assert model.embed([], output="int8").shape == (0, model.config.hidden_size)

    def test_refusals(self, model):
        for dimensions in (0, model.config.hidden_size + 1, True, 2.0, "3"):
            with pytest.raises(InputError, match="dimensions must be from 1 to 32"):
                model.embed("a", dimensions=dimensions)
        with pytest.raises(InputError, match="output must be one of float32, .*, not 'int4'"):
            model.embed("a", output="int4")
