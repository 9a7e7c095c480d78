"""Loading a model and asking it: what comes back, what is refused, and what is never imported."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune
from sparsebert.errors import CheckpointError, EngineError, InputError
from sparsebert.inference import TruncationWarning
from sparsebert.inference.labelling import apply_function, label_scores, sigmoid, softmax

HEADS = (
    "encoder",
    "sequence-classification",
    "question-answering",
    "token-classification",
    "masked-lm",
)


@pytest.fixture(scope="module")
def classifier(tiny_bert) -> Path:
    return tiny_bert(
        "sequence-classification",
        num_labels=3,
        id2label={0: "bad", 1: "middling", 2: "good"},
        label2id={"bad": 0, "middling": 1, "good": 2},
    )


@pytest.fixture(scope="module")
def packed(classifier, tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("packed")
    prune(classifier, workspace / "sparse")
    pack(workspace / "sparse", workspace / "packed")
    return workspace / "packed"


def pipeline(task: str, folder: Path, **options):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.pipeline(task, model=str(folder), device="cpu", **options)


class TestModel:
    def test_repr_says_what_it_is(self, classifier, packed, monkeypatch):
        monkeypatch.setenv("SPARSEBERT_ISA", "portable")
        assert repr(load(classifier, threads=1)) == (
            "<sparsebert.Model model: sequence-classification, 2x32, dense fp32, 0.1 MB, "
            "portable, 1 thread>"
        )
        assert "packed: sequence-classification, 2x32, 1:2 fp32, " in repr(load(packed, threads=2))
        assert repr(load(packed, threads=2)).endswith("portable, 2 threads>")

    def test_repr_of_a_partly_pruned_model(self, classifier, tmp_path):
        prune(classifier, tmp_path / "sparse")
        from safetensors.numpy import load_file, save_file

        weights = load_file(tmp_path / "sparse" / "model.safetensors")
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        weights[name] = np.ones_like(weights[name])
        folder = tmp_path / "partly"
        shutil.copytree(classifier, folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        assert "1:2 (11 of 12 layers) fp32" in repr(load(folder))

    def test_size_in_memory(self, tiny_bert):
        from safetensors.numpy import load_file

        folder = tiny_bert("masked-lm")
        stored = load_file(folder / "model.safetensors")
        used = {name: array for name, array in stored.items() if "position_ids" not in name}
        # the decoder is the word embeddings: counted once
        assert load(folder).nbytes == sum(array.nbytes for array in used.values())

    def test_threads_and_instruction_set(self, classifier, monkeypatch):
        assert load(classifier, threads=2).threads == 2
        monkeypatch.setenv("SPARSEBERT_NUM_THREADS", "1")
        assert load(classifier).threads == 1
        monkeypatch.setenv("SPARSEBERT_ISA", "mmx")
        with pytest.raises(EngineError, match="mmx"):
            load(classifier)
        monkeypatch.delenv("SPARSEBERT_ISA")
        with pytest.raises(EngineError, match="threads"):
            load(classifier, threads=0)

    def test_max_length(self, classifier):
        assert load(classifier).max_length == 64
        assert load(classifier, max_length=16).max_length == 16
        assert load(classifier, max_length=4096).max_length == 64
        with pytest.warns(TruncationWarning, match="longer than 16 tokens"):
            states = load(classifier, max_length=16).hidden_states(long_text(30))
        assert states.shape == (16, 32)
        with pytest.raises(InputError, match="max_length"):
            load(classifier, max_length=0)

    def test_from_many_threads_at_once(self, packed):
        model = load(packed, threads=2)
        expected = [model.logits(text) for text in SENTENCES]

        def ask(number: int) -> float:
            place = number % len(SENTENCES)
            return float(np.abs(model.logits(SENTENCES[place]) - expected[place]).max())

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(ask, range(200))) < 1e-5

    def test_pickled_it_is_its_folder_and_options(self, classifier):
        model = load(classifier, threads=1, max_length=20)
        text = pickle.dumps(model)
        assert len(text) < 1000
        again = pickle.loads(text)
        assert (again.name, again.path, again.threads, again.max_length) == (
            model.name,
            model.path,
            1,
            20,
        )
        assert again.classify(SENTENCES[:2]) == model.classify(SENTENCES[:2])

    def test_pickled_it_computes_in_the_same_precision(self, classifier):
        model = load(classifier, threads=1, compute="bf16")
        assert " computed in bf16, " in repr(model)
        again = pickle.loads(pickle.dumps(model))
        assert again.encoder.compute == "bf16"
        assert again.classify(SENTENCES[:2]) == model.classify(SENTENCES[:2])

    @pytest.mark.parametrize("of", [copy.copy, copy.deepcopy])
    def test_a_copy_shares_the_engine(self, classifier, of):
        model = load(classifier)
        made = of(model)
        assert made is not model
        assert made.encoder is model.encoder
        made.name = "another"
        assert model.name != "another"
        assert made.classify(SENTENCES[:3]) == model.classify(SENTENCES[:3])


class TestClassify:
    def test_as_the_pipeline_of_transformers(self, classifier):
        texts = list(SENTENCES[:10])
        theirs = pipeline("text-classification", classifier, top_k=None)(texts)
        ours = load(classifier).classify(texts)
        for left, right in zip(ours, theirs, strict=True):
            assert [each["label"] for each in left] == [each["label"] for each in right]
            assert [each["score"] for each in left] == pytest.approx(
                [each["score"] for each in right], abs=1e-5
            )

    def test_pairs(self, classifier):
        model = load(classifier)
        pair = (SENTENCES[1], SENTENCES[2])
        theirs = pipeline("text-classification", classifier, top_k=None)(
            [{"text": pair[0], "text_pair": pair[1]}]
        )
        assert model.classify(pair)[0]["score"] == pytest.approx(theirs[0][0]["score"], abs=1e-5)
        assert model.classify([pair, SENTENCES[0]])[0] == [
            {**each, "score": pytest.approx(each["score"], abs=1e-5)}
            for each in model.classify(pair)
        ]

    def test_several_labels_at_once(self, tiny_bert):
        folder = tiny_bert(
            "sequence-classification", num_labels=4, problem_type="multi_label_classification"
        )
        theirs = pipeline("text-classification", folder, top_k=None)(list(SENTENCES[:5]))
        ours = load(folder).classify(SENTENCES[:5])
        for left, right in zip(ours, theirs, strict=True):
            assert {each["label"]: each["score"] for each in left} == pytest.approx(
                {each["label"]: each["score"] for each in right}, abs=1e-5
            )

    def test_regression_gives_the_value(self, tiny_bert):
        folder = tiny_bert("sequence-classification", num_labels=1, problem_type="regression")
        model = load(folder)
        values = model.logits(SENTENCES)
        assert values.shape == (len(SENTENCES), 1)
        assert [found[0]["score"] for found in model.classify(SENTENCES)] == pytest.approx(
            values[:, 0].tolist()
        )

    def test_shapes(self, classifier):
        model = load(classifier)
        assert [len(found) for found in model.classify(SENTENCES[:3], top_k=2)] == [2, 2, 2]
        assert len(model.classify("a ferry")) == 3
        assert model.classify([]) == []
        assert model.classify("a ferry", top_k=10) == model.classify("a ferry")
        with pytest.raises(InputError, match="top_k"):
            model.classify("a ferry", top_k=0)

    def test_scores_by_hand(self):
        logits = np.log(np.array([[1, 3, 4], [2, 1, 1]], np.float32))
        found = label_scores(apply_function(logits, "softmax"), ("a", "b", "c"), None)
        assert [(each["label"], each["score"]) for each in found[0]] == [
            ("c", pytest.approx(0.5)),
            ("b", pytest.approx(0.375)),
            ("a", pytest.approx(0.125)),
        ]
        # equal scores keep the order of the labels
        assert [each["label"] for each in found[1]] == ["a", "b", "c"]
        best = label_scores(apply_function(logits, "sigmoid"), ("a", "b", "c"), 1)
        assert best[0] == [{"label": "c", "score": pytest.approx(0.8)}]
        (alone,) = label_scores(apply_function(logits[:1, :1], "sigmoid"), ("a",), None)
        assert alone[0]["score"] == pytest.approx(float(sigmoid(logits[0, 0])))
        assert label_scores(apply_function(logits, "none"), ("a", "b", "c"), 1)[0][0]["score"] == (
            pytest.approx(np.log(4))
        )

    def test_extreme_logits(self):
        logits = np.array([[1e4, -1e4, 0]], np.float32)
        with np.errstate(all="raise", under="ignore"):
            assert softmax(logits).tolist() == [[1, 0, 0]]
            assert sigmoid(logits).tolist() == [[1, 0, 0.5]]


class TestTagAndFill:
    def test_tag_as_the_pipeline_of_transformers(self, tiny_bert):
        folder = tiny_bert("token-classification", num_labels=5)
        model = load(folder)
        theirs = pipeline("token-classification", folder, ignore_labels=[])
        for text in SENTENCES[:6]:
            found = model.tag(text)
            expected = theirs(text)
            assert [each["label"] for each in found] == [each["entity"] for each in expected]
            assert [(each["start"], each["end"]) for each in found] == [
                (each["start"], each["end"]) for each in expected
            ]
            assert [each["score"] for each in found] == pytest.approx(
                [float(each["score"]) for each in expected], abs=1e-5
            )
            assert all(text[each["start"] : each["end"]] == each["text"] for each in found)
        assert len(model.tag(SENTENCES[:3])) == 3

    def test_fill_takes_a_list(self, tiny_bert):
        model = load(tiny_bert("masked-lm"))
        texts = ["the [MASK] leaves", "[MASK]", f"{SENTENCES[2]} [MASK] and the bridge"]
        found = model.fill(texts, top_k=3, batch_size=2)
        assert [[each["token"] for each in one] for one in found] == [
            [each["token"] for each in model.fill(text, top_k=3)] for text in texts
        ]
        assert model.fill(texts[:1], top_k=3) == [model.fill(texts[0], top_k=3)]
        assert model.fill([]) == []
        with pytest.raises(InputError, match=r"texts\[1\] must have exactly one \[MASK\], not 0"):
            model.fill(["[MASK]", "none"])

    @pytest.mark.parametrize(("text", "masks"), [("no mask", 0), ("[MASK] and [MASK]", 2)])
    def test_fill_needs_one_mask(self, tiny_bert, text, masks):
        with pytest.raises(InputError, match=rf"exactly one \[MASK\], not {masks}"):
            load(tiny_bert("masked-lm")).fill(text)


class TestOutputs:
    def test_logits_of_every_head(self, tiny_bert):
        texts = SENTENCES[:5]
        for head, width in zip(HEADS[1:], (3, 2, 3, 270), strict=True):
            model = load(tiny_bert(head))
            lengths = [len(rows) for rows in model.hidden_states(texts)]
            found = model.logits(texts)
            if head == "sequence-classification":
                assert found.shape == (5, width)
                assert found.dtype == np.float32
                assert model.logits(texts[0]) == pytest.approx(found[0], abs=1e-5)
            else:
                assert [rows.shape for rows in found] == [(length, width) for length in lengths]
                assert model.logits(texts[0]) == pytest.approx(found[0], abs=1e-5)

    def test_forward_is_the_same_without_a_tokenizer(self, tiny_bert, tmp_path):
        bare = tmp_path / "bare"
        shutil.copytree(
            tiny_bert("question-answering"), bare, ignore=shutil.ignore_patterns("tokenizer*")
        )
        model = load(bare)
        ids = [[2, 100, 101, 3], [2, 110, 3]]
        whole = load(tiny_bert("question-answering")).forward(ids)
        for left, right in zip(model.forward(ids), whole, strict=True):
            assert np.array_equal(left, right)
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json and no vocabulary"):
            model.hidden_states("a text")

    def test_type_ids_matter(self, classifier):
        model = load(classifier)
        ids = [[2, 100, 101, 3]]
        plain = model.forward(ids)
        assert np.array_equal(plain, model.forward(ids, [[0, 0, 0, 0]]))
        assert not np.allclose(plain, model.forward(ids, [[0, 0, 1, 1]]), atol=1e-3)

    def test_nothing(self, classifier):
        model = load(classifier)
        assert model.forward([]).shape == (0, 3)
        assert model.logits([]).shape == (0, 3)
        assert model.hidden_states([]) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("head", "fitting"),
        [
            ("encoder", "an encoder without a head and cannot {verb}: it can embed"),
            ("sequence-classification", "cannot {verb}: it can classify or embed"),
            ("question-answering", "cannot {verb}: it can answer or embed"),
            ("token-classification", "cannot {verb}: it can tag"),
            ("masked-lm", "cannot {verb}: it can fill"),
        ],
    )
    def test_a_head_that_does_not_fit_names_one_that_does(self, tiny_bert, head, fitting):
        model = load(tiny_bert(head))
        calls = {
            "classify": lambda: model.classify("a text"),
            "answer": lambda: model.answer("Who?", "a text"),
            "tag": lambda: model.tag("a text"),
            "fill": lambda: model.fill("a [MASK]"),
        }
        for verb, call in calls.items():
            if verb in fitting.split(": ")[1]:
                continue
            with pytest.raises(InputError, match=fitting.format(verb=verb)):
                call()

    def test_an_encoder_has_no_logits(self, tiny_bert):
        with pytest.raises(InputError, match="has no logits"):
            load(tiny_bert()).logits("a text")

    def test_ids_are_checked(self, classifier):
        with pytest.raises(InputError, match="vocabulary of 270"):
            load(classifier).forward([[2, 270, 3]])
        with pytest.raises(InputError, match="takes 1 to 64"):
            load(classifier).forward([[2] * 65])

    def test_a_tokenizer_of_another_model(self, classifier, minilm, tmp_path):
        folder = tmp_path / "mixed"
        shutil.copytree(classifier, folder)
        shutil.copy(minilm / "tokenizer.json", folder)
        with pytest.raises(CheckpointError, match="do not belong together"):
            load(folder).classify("a text")

    def test_a_damaged_tokenizer(self, classifier, tmp_path):
        folder = tmp_path / "damaged"
        shutil.copytree(classifier, folder)
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is not valid JSON"):
            load(folder)

    def test_not_a_model(self, tmp_path):
        with pytest.raises(CheckpointError):
            load(tmp_path)
        with pytest.raises(CheckpointError):
            load(tmp_path / "nothing")


LIGHT = """
    import sys

    HEAVY = {"torch", "transformers", "datasets", "pyarrow", "sklearn", "scipy", "matplotlib",
             "sentence_transformers", "accelerate"}

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in HEAVY:
                raise ImportError(f"{name} is not to be imported on the inference side")

    sys.meta_path.insert(0, Refuse())
    import sparsebert as sb
    import sparsebert.inference

    model = sb.load(sys.argv[1])
    assert model.embed(["a text", "another"]).shape[0] == 2
    assert model.classify("a text")[0]["score"] > 0
    sb.pack(sys.argv[2], sys.argv[3])
    assert len(sb.load(sys.argv[3]).classify(["a text"])) == 1
    loaded = HEAVY & {name.split(".")[0] for name in sys.modules}
    assert not loaded, loaded
"""


def test_inference_never_imports_torch(packed, classifier, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(LIGHT),
            str(packed),
            str(classifier),
            str(tmp_path / "out"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
