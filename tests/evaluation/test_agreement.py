"""The core proof: the engine gives what transformers gives, to rounding.

Every instruction set that this machine can run, every head, odd sizes, dense, pruned and packed
weights, sequences of 1 to 512 tokens, one thread and two, alone and in any company.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from reference_bert import ReferenceBert
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune, unpack
from sparsebert.checkpoint import open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-4  # maximum absolute difference in fp32, of values of the order of 1
HEADS = (
    "encoder",
    "sequence-classification",
    "question-answering",
    "token-classification",
    "masked-lm",
)
AUTO = dict(
    zip(
        HEADS,
        (
            "AutoModel",
            "AutoModelForSequenceClassification",
            "AutoModelForQuestionAnswering",
            "AutoModelForTokenClassification",
            "AutoModelForMaskedLM",
        ),
        strict=True,
    )
)
# Around the widths that kernels work in (16 lanes, 64-column panels, 48- and 128-token blocks).
LENGTHS = (1, 2, 3, 7, 15, 16, 17, 33, 47, 48, 49, 64, 65, 96, 127, 129, 257, 512)
SIZES = {
    "head-size-8": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 72},
    "head-size-32": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 100},
    "head-size-64": {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 196,
        "num_labels": 7,
    },
    "nothing-divides": {
        "hidden_size": 52,
        "num_attention_heads": 4,
        "intermediate_size": 36,
        "num_labels": 5,
        "num_hidden_layers": 3,
    },
}


@cache
def torch_model(folder: Path, head: str = "encoder", dtype=torch.float32):
    return getattr(transformers, AUTO[head]).from_pretrained(folder, dtype=dtype).eval()


def torch_outputs(model, head: str, sequences, types) -> list[np.ndarray]:
    """What transformers gives for each sequence, one at a time and so without padding."""
    outputs = []
    for ids, kinds in zip(sequences, types, strict=True):
        batch = {"input_ids": torch.tensor([ids]), "token_type_ids": torch.tensor([kinds])}
        with torch.inference_mode():
            out = model(**batch)
        if head == "encoder":
            found = out.last_hidden_state
        elif head == "question-answering":
            found = torch.stack((out.start_logits, out.end_logits), -1)
        else:
            found = out.logits
        outputs.append(found[0].numpy())
    return outputs


def random_ids(lengths, vocabulary: int, seed: int = 0):
    """Random ids, and type ids that change in the middle."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, vocabulary, length).tolist() for length in lengths]
    types = [[int(2 * place >= length) for place in range(length)] for length in lengths]
    return ids, types


def largest_difference(ours, theirs) -> float:
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert left.shape == right.shape
        assert left.dtype == np.float32
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


class Variants:
    """A dense folder and what is made of it, each made once."""

    def __init__(self, dense: Path, workspace: Path) -> None:
        self._workspace = workspace
        self._made = {"dense": dense}

    def __getitem__(self, variant: str) -> Path:
        """``dense``, a pattern, a pattern and a dtype (``1:2 fp16``), or that unpacked again."""
        if variant not in self._made:
            *source, last = variant.split(" ")
            out = self._workspace / variant.replace(":", "-").replace(" ", "-")
            if last == "unpacked":
                unpack(self[" ".join(source)], out)
            elif source:
                pack(self[" ".join(source)], out, dtype=last)
            else:
                prune(self["dense"], out, pattern=last)
            self._made[variant] = out
        return self._made[variant]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Variants]:
    made: dict[Path, Variants] = {}

    def of(dense: Path) -> Variants:
        if dense not in made:
            made[dense] = Variants(dense, tmp_path_factory.mktemp("variants"))
        return made[dense]

    return of


class TestReference:
    """The tests' own numpy BERT, on which the kernels' tests stand, is transformers' BERT."""

    @pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
    @pytest.mark.parametrize("head", HEADS)
    def test_is_transformers(self, tiny_bert, head, activation):
        folder = tiny_bert(head, hidden_act=activation)
        checkpoint = open_checkpoint(folder)
        reference = ReferenceBert(
            {name: checkpoint.weight(name) for name in checkpoint.stored_name},
            heads=checkpoint.config.num_attention_heads,
            activation=activation,
            epsilon=checkpoint.config.layer_norm_eps,
        )
        ids, types = random_ids((1, 5, 40), checkpoint.config.vocab_size)
        model = torch_model(folder, head, torch.float64)
        theirs = torch_outputs(model, head, ids, types)
        compute = {
            "encoder": reference.hidden,
            "sequence-classification": reference.sequence_logits,
            "question-answering": reference.question_logits,
            "token-classification": reference.token_logits,
            "masked-lm": reference.vocabulary_logits,
        }[head]
        for expected, row, kinds in zip(theirs, ids, types, strict=True):
            # float64 agrees to 1e-12; transformers itself rounds some of attention to float32
            assert compute(row, kinds) == pytest.approx(expected, abs=2e-6)


class TestRealModel:
    """all-MiniLM-L6-v2, dense and pruned, on English."""

    @pytest.fixture(scope="class")
    def made(self, minilm, variants) -> Variants:
        return variants(minilm)

    @pytest.fixture(scope="class")
    def texts(self) -> list[str]:
        return [*SENTENCES, long_text(60), long_text(150), long_text(600)]

    @pytest.fixture(scope="class")
    def expected(self, made, texts) -> Callable[[str], list[np.ndarray]]:
        """transformers' last hidden states, by variant."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(made["dense"])
        found = [tokenizer(text, truncation=True, max_length=512) for text in texts]
        known: dict[str, list[np.ndarray]] = {}

        def of(variant: str) -> list[np.ndarray]:
            if variant not in known:
                known[variant] = torch_outputs(
                    torch_model(made[variant]),
                    "encoder",
                    [each["input_ids"] for each in found],
                    [each["token_type_ids"] for each in found],
                )
            return known[variant]

        return of

    @pytest.mark.filterwarnings("ignore:.*longer than 512 tokens")
    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("variant", ["dense", "1:2"])
    def test_sentences(self, made, texts, expected, isa, variant, threads):
        model = load(made[variant], threads=threads, max_length=512)
        assert (model.instruction_set, model.threads) == (isa, threads)
        ours = model.hidden_states(texts, batch_size=8)
        assert max(map(len, ours)) == 512
        assert largest_difference(ours, expected(variant)) < TOLERANCE

    def test_every_length(self, made, isa):
        ids, types = random_ids(LENGTHS, 30522)
        model = load(made["1:2"], threads=2)
        theirs = torch_outputs(torch_model(made["1:2"]), "encoder", ids, types)
        ours = model.forward(ids, types, batch_size=5)
        assert largest_difference(ours, theirs) < TOLERANCE

    @pytest.mark.filterwarnings("ignore:.*longer than 512 tokens")
    def test_packed_is_the_same_model(self, made, texts, expected):
        packed = load(made["1:2 fp32"], threads=2, max_length=512)
        sparse = load(made["1:2"], threads=2, max_length=512)
        assert packed.nbytes < 0.78 * load(made["dense"]).nbytes
        ours = packed.hidden_states(texts)
        assert largest_difference(ours, expected("1:2")) < TOLERANCE
        assert largest_difference(ours, sparse.hidden_states(texts)) == 0

    @pytest.mark.filterwarnings("ignore:.*longer than 512 tokens")
    def test_packed_fp16_is_the_rounded_model(self, made, texts, expected, isa):
        model = load(made["1:2 fp16"], threads=2, max_length=512)
        ours = model.hidden_states(texts)
        # Exactly what the weights say that it stores ...
        assert largest_difference(ours, expected("1:2 fp16 unpacked")) < TOLERANCE
        # ... which is near to what they were before they were rounded to 11 bits.
        assert largest_difference(ours, expected("1:2")) < 2e-2

    def test_company_and_order_change_nothing(self, made, isa):
        model = load(made["1:2"], threads=2)
        alone = [model.hidden_states(text) for text in SENTENCES]
        together = model.hidden_states(SENTENCES, batch_size=len(SENTENCES))
        backwards = model.hidden_states(SENTENCES[::-1], batch_size=3)[::-1]
        assert largest_difference(together, alone) < 1e-5
        assert largest_difference(backwards, alone) < 1e-5

    def test_threads_change_nothing(self, made, isa):
        one, two = (load(made["1:2"], threads=threads) for threads in (1, 2))
        assert largest_difference(one.hidden_states(SENTENCES), two.hidden_states(SENTENCES)) < 1e-5


@pytest.mark.shared
class TestRealSentences:
    """The same model on sentences and paragraphs that people wrote."""

    @staticmethod
    def column(folder: Path, name: str, count: int) -> list[str]:
        parquet = pytest.importorskip("pyarrow.parquet")
        (file,) = folder.glob("validation*.parquet")
        distinct = dict.fromkeys(parquet.read_table(file, columns=[name])[name].to_pylist())
        return list(distinct)[:count]

    @pytest.fixture(scope="class")
    def texts(self, shared_data) -> list[str]:
        sentences = self.column(shared_data / "sst2", "sentence", 100)
        return sentences + self.column(shared_data / "squad", "context", 20)

    @pytest.fixture(scope="class")
    def theirs(self, minilm, variants, texts) -> list[np.ndarray]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
        found = [tokenizer(text, truncation=True, max_length=512) for text in texts]
        return torch_outputs(
            torch_model(variants(minilm)["1:2"]),
            "encoder",
            [each["input_ids"] for each in found],
            [each["token_type_ids"] for each in found],
        )

    def test_hidden_states(self, minilm, variants, texts, theirs, isa):
        model = load(variants(minilm)["1:2 fp32"], threads=2, max_length=512)
        assert largest_difference(model.hidden_states(texts, strict=True), theirs) < TOLERANCE


class TestEveryHeadAndSize:
    """Small models of random weights: ``forward`` against transformers."""

    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
    @pytest.mark.parametrize("head", HEADS)
    def test_dense_and_pruned(self, tiny_bert, variants, isa, head, sizes):
        made = variants(tiny_bert(head, max_position_embeddings=130, **sizes))
        ids, types = random_ids((1, 2, 15, 16, 17, 64, 65, 130), 270)
        for variant in ("dense", "1:2", "2:4"):
            theirs = torch_outputs(torch_model(made[variant], head), head, ids, types)
            for threads in (1, 2):
                ours = load(made[variant], threads=threads).forward(ids, types, batch_size=3)
                assert largest_difference(list(ours), theirs) < TOLERANCE

    @pytest.mark.parametrize("pattern", ["1:3", "4:8"])
    def test_other_patterns(self, tiny_bert, variants, isa, pattern):
        dense = tiny_bert(hidden_size=96, num_attention_heads=3, intermediate_size=120)
        made = variants(dense)
        ids, types = random_ids((1, 16, 37, 64), 270)
        theirs = torch_outputs(torch_model(made[pattern]), "encoder", ids, types)
        for variant in (pattern, f"{pattern} fp32"):
            ours = load(made[variant], threads=2).forward(ids, types)
            assert largest_difference(ours, theirs) < TOLERANCE

    @pytest.mark.parametrize("activation", ["gelu_fast", "gelu_pytorch_tanh", "relu", "swish"])
    @pytest.mark.parametrize("head", ["encoder", "masked-lm"])
    def test_activations(self, tiny_bert, variants, isa, head, activation):
        made = variants(tiny_bert(head, hidden_act=activation))
        ids, types = random_ids((1, 16, 50), 270)
        for variant in ("dense", "1:2"):
            theirs = torch_outputs(torch_model(made[variant], head), head, ids, types)
            ours = load(made[variant]).forward(ids, types)
            assert largest_difference(ours, theirs) < TOLERANCE

    @pytest.mark.parametrize("head", HEADS)
    def test_packed(self, tiny_bert, variants, isa, head):
        made = variants(tiny_bert(head))
        ids, types = random_ids((1, 16, 50), 270)
        for variant, source in (
            ("dense fp32", "dense"),
            ("1:2 fp32", "1:2"),
            ("1:2 fp16", "1:2 fp16 unpacked"),
            ("dense fp16", "dense fp16 unpacked"),
        ):
            theirs = torch_outputs(torch_model(made[source], head), head, ids, types)
            ours = load(made[variant]).forward(ids, types)
            assert largest_difference(list(ours), theirs) < TOLERANCE
