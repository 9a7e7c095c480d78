"""Every family of encoders: the engine gives what transformers gives, to rounding.

Every instruction set, every head, sizes that nothing divides, dense, pruned and packed weights, one
thread and two. `test_agreement.py` does the same for BERT, in more sizes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from family_configs import IN_TRANSFORMERS, RENAMED
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune, unpack
from sparsebert.checkpoint import Head
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.errors import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-4  # maximum absolute difference in fp32, of values of the order of 1
LENGTHS = (1, 2, 15, 16, 17, 64, 65, 126)
ODD = {
    "hidden_size": 56,  # heads of 14
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "max_position_embeddings": 130,
    "num_labels": 5,
}
# A family's own choices, each beside its default.
OWN: dict[str, list[dict[str, Any]]] = {
    "roberta": [{"type_vocab_size": 1}],
    "xlm-roberta": [{"type_vocab_size": 1, "hidden_act": "gelu_new"}],
    "distilbert": [{"activation": "relu"}],
    "electra": [{"embedding_size": 20}, {"embedding_size": 72}, {"embedding_size": 56}],
    "albert": [{"embedding_size": 20}, {"embedding_size": 56, "num_hidden_groups": 2}],
    "mpnet": [{}],
    "camembert": [{"type_vocab_size": 1}],
    "data2vec-text": [{"type_vocab_size": 1}],
    "ernie": [{}, {"use_task_id": True, "task_type_vocab_size": 4}],
    "deberta-v2": [
        {"max_relative_positions": -1},
        {
            "pos_att_type": ["c2p"],
            "position_buckets": -1,
            "norm_rel_ebd": "none",
            "type_vocab_size": 2,
            "position_biased_input": True,
        },
    ],
    "nomic_bert": [{}, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}],
    "gte": [
        {"type_vocab_size": 2},
        {"type_vocab_size": 1, "hidden_act": "silu"},
        {
            "type_vocab_size": 1,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 1.25},
        },
    ],
    "jina_embeddings_v3": [{"type_vocab_size": 1}],
    "modernbert": [
        {"local_attention": 10},
        {
            "local_attention": 37,
            "hidden_activation": "silu",
            "classifier_pooling": "mean",
            "classifier_activation": "silu",
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "decoder_bias": False,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ],
}
# Every head with a family's first choices; with the others, and with families that are RoBERTa or
# BERT by another name, those whose layers are the others' too.
FEW = (Head.SEQUENCE, Head.MASKED_LM)
CASES = [
    pytest.param(family, head.value, place, id=f"{family}-{head.value}-{place}")
    for family, choices in OWN.items()
    for place in range(len(choices))
    for head in (FEW if place or family in RENAMED else (Head.ENCODER, *FAMILIES[family].heads))
]


def batch(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> tuple[list[Any], list[Any] | None]:
    """Random ids, those of padding among them, and type ids for families that have them."""
    config = transformers.AutoConfig.from_pretrained(folder)
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, config.vocab_size, length).tolist() for length in lengths]
    ids[-1][5] = ids[-1][9] = config.pad_token_id
    types = getattr(config, "type_vocab_size", None)
    if not FAMILIES[config.model_type].token_types or not types:
        return ids, None
    return ids, [rng.integers(0, types, length).tolist() for length in lengths]


@cache
def expected(folder: Path, head: str, lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    """What transformers gives for each sequence, one at a time and so without padding."""
    ids, types = batch(folder, lengths)
    config = transformers.AutoConfig.from_pretrained(folder)
    name = FAMILIES[config.model_type].architecture(Head(head))
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    outputs = []
    for place, row in enumerate(ids):
        inputs = {"input_ids": torch.tensor([row])}
        if types is not None:
            inputs["token_type_ids"] = torch.tensor([types[place]])
        with torch.inference_mode():
            out = model(**inputs)
        if head == "encoder":
            found = out.last_hidden_state
        elif head == "question-answering":
            found = torch.stack((out.start_logits, out.end_logits), -1)
        else:
            found = out.logits
        outputs.append(found[0].numpy())
    return outputs


def largest_difference(ours: Any, theirs: list[np.ndarray]) -> float:
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert left.shape == right.shape
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


Made = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``made(dense, variant)``: the folder pruned 1:2, packed, or unpacked again, made once."""
    known: dict[tuple[Path, str], Path] = {}

    def of(dense: Path, variant: str) -> Path:
        if variant == "dense":
            return dense
        if (dense, variant) not in known:
            out = tmp_path_factory.mktemp("made") / "model"
            source, _, last = variant.rpartition(" ")
            if last == "1:2":
                prune(dense, out)
            elif last == "unpacked":
                unpack(of(dense, source), out)
            else:
                pack(of(dense, source), out, dtype=last)
            known[dense, variant] = out
        return known[dense, variant]

    return of


# Keys of config.json that transformers itself does not write; None removes one.
EDITS: list[tuple[str, Head, dict[str, Any]]] = [
    ("albert", Head.MASKED_LM, {"hidden_act": None}),
    ("nomic_bert", Head.MASKED_LM, {"hidden_act": None}),
    ("modernbert", Head.ENCODER, {"rope_scaling": {"type": "default", "rope_theta": 50.0}}),
    *(
        (family, Head.ENCODER, {"rope_scaling": {"rope_type": "linear", "factor": 3.0}})
        for family in ("nomic_bert", "gte", "jina_embeddings_v3")
    ),
]


@pytest.mark.parametrize(("family", "head", "edits"), EDITS)
def test_keys_that_are_missing_or_left_over(
    tiny_bert, tmp_path: Path, family: str, head: Head, edits: dict[str, Any]
) -> None:
    theta = {"rope_type": "default", "rope_theta": 77.0}
    both = {"full_attention": theta, "sliding_attention": theta}
    rope = {"rope_parameters": both if family == "modernbert" else theta}
    rotary = FAMILIES[family].positions == "rotary"
    folder = tmp_path / "edited"
    own = {**ODD, **OWN[family][0], **(rope if rotary else {})}
    source = tiny_bert(head.value, model_type=family, **own)
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **edits}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    ids, types = batch(folder)
    assert (
        largest_difference(load(folder).forward(ids, types), expected(folder, head.value))
        < TOLERANCE
    )


@pytest.mark.parametrize(("family", "head", "place"), CASES)
def test_every_head(tiny_bert, made: Made, isa: str, family: str, head: str, place: int) -> None:
    dense = tiny_bert(head, model_type=family, **ODD, **OWN[family][place])
    ids, types = batch(dense)
    for variant in ("dense", "1:2"):
        folder = made(dense, variant)
        theirs = expected(folder, head)
        for threads in (1, 2):
            ours = load(folder, threads=threads).forward(ids, types, batch_size=3)
            assert largest_difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("family", OWN)
def test_packed(tiny_bert, made: Made, isa: str, family: str) -> None:
    head = "masked-lm"  # has every tensor that others have, tied and untied
    dense = tiny_bert(head, model_type=family, **ODD, **OWN[family][0])
    ids, types = batch(dense)
    for variant, source in (("1:2 fp32", "1:2"), ("1:2 fp16", "1:2 fp16 unpacked")):
        ours = load(made(dense, variant), threads=2).forward(ids, types)
        assert largest_difference(ours, expected(made(dense, source), head)) < TOLERANCE


@pytest.mark.parametrize("family", ["bert", "mpnet", "nomic_bert", "modernbert"])
def test_tokens_that_are_no_keys(tiny_bert, made: Made, isa: str, family: str) -> None:
    """The last tokens attend to the others, and none to them: those of ColBERT's queries."""
    dense = tiny_bert("encoder", model_type=family, **ODD, **(OWN.get(family) or [{}])[0])
    lengths, keys = (1, 17, 16, 9, 64, 40), [1, 12, 16, 6, 60, 36]
    ids, types = batch(dense, lengths)
    model = transformers.AutoModel.from_pretrained(dense, dtype=torch.float32).eval()
    theirs = []
    for place, (row, seen) in enumerate(zip(ids, keys, strict=True)):
        mask = torch.tensor([[1] * seen + [0] * (len(row) - seen)])
        inputs = {"input_ids": torch.tensor([row]), "attention_mask": mask}
        if types is not None:
            inputs["token_type_ids"] = torch.tensor([types[place]])
        with torch.inference_mode():
            theirs.append(model(**inputs).last_hidden_state[0].numpy())
    kinds = types or [[0] * length for length in lengths]
    arrays = [np.concatenate(each).astype(np.int32) for each in (ids, kinds)]
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    for threads in (1, 2):
        encoder = load(dense, threads=threads).encoder
        found = np.split(encoder.hidden(*arrays, offsets, np.array(keys)), offsets[1:-1])
        assert largest_difference(found, theirs) < TOLERANCE
    int8 = load(made(dense, "dense int8"), threads=2).encoder
    for rows, exact in zip(
        np.split(int8.hidden(*arrays, offsets, np.array(keys)), offsets[1:-1]), theirs, strict=True
    ):
        cosines = (rows * exact).sum(1)
        cosines /= np.linalg.norm(rows, axis=1) * np.linalg.norm(exact, axis=1)
        assert cosines.min() > 0.99
    for wrong, complaint in (
        ([0, 1, 1, 1, 1, 1], "sequence 0 has 1 tokens, so it cannot have 0 keys"),
        ([1, 18, 1, 1, 1, 1], "sequence 1 has 17 tokens, so it cannot have 18 keys"),
        ([1, 2], "keys must be aligned, with one number per sequence"),
        *(
            [([1, 12, 1, 1, 1, 1], "window contains none of its keys")]
            if family == "modernbert"
            else ()
        ),
    ):
        with pytest.raises(InputError, match=complaint):
            encoder.hidden(*arrays, offsets, np.array(wrong))


class TestRealMPNet:
    """all-mpnet-base-v2 on English, up to the longest text that it reads."""

    TEXTS = (*SENTENCES, long_text(150), long_text(500))

    @pytest.fixture(scope="class")
    def theirs(self, mpnet: Path) -> list[np.ndarray]:
        """The last hidden states."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(mpnet)
        model = transformers.MPNetModel.from_pretrained(mpnet, dtype=torch.float32).eval()
        states = []
        for text in self.TEXTS:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
            with torch.inference_mode():
                states.append(model(**inputs).last_hidden_state[0].numpy())
        return states

    @pytest.mark.filterwarnings("ignore:.*longer than 512 tokens")
    def test_hidden_states(self, mpnet: Path, theirs: list[np.ndarray], isa: str) -> None:
        ours = load(mpnet, threads=2, max_length=512).hidden_states(self.TEXTS)
        assert max(map(len, ours)) == 512
        assert largest_difference(ours, theirs) < TOLERANCE

    @pytest.mark.filterwarnings("ignore:.*longer than 512 tokens")
    def test_int8_points_the_same_way(
        self, mpnet: Path, theirs: list[np.ndarray], tmp_path: Path
    ) -> None:
        pack(mpnet, tmp_path / "int8", dtype="int8")
        model = load(tmp_path / "int8", max_length=512)
        vectors = model.embed(self.TEXTS, pooling="mean", normalize=True)
        for vector, states in zip(vectors, theirs, strict=True):
            mean = states.mean(0)
            assert float(vector @ mean / np.linalg.norm(mean)) > 0.99


@pytest.mark.parametrize("tied", [False, None], ids=["untied", "untied by its weights alone"])
@pytest.mark.parametrize("variant", ["dense", "1:2", "1:2 fp32", "1:2 fp32 unpacked"])
@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_an_untied_decoder_has_a_bias_of_its_own(
    tiny_bert: Any, made: Made, tmp_path: Path, family: str, variant: str, tied: bool | None
) -> None:
    """The file has two biases then, and transformers computes with the decoder's."""
    saved = tiny_bert("masked-lm", model_type=family, tie_word_embeddings=False)
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = tied
    known = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(known))
    dense = made(folder, variant)
    ids, types = batch(folder, (7, 20))
    theirs = expected(made(folder, variant.removesuffix(" fp32")), "masked-lm", (7, 20))
    assert largest_difference(load(dense).forward(ids, types), theirs) < TOLERANCE


def test_distilbert_has_one_layer_norm_epsilon(tiny_bert: Any, tmp_path: Path) -> None:
    """transformers fixes it, whatever config.json says."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert(model_type="distilbert"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.5}))
    ids, types = batch(folder, (7, 20))
    theirs = expected(folder, "encoder", (7, 20))
    assert largest_difference(load(folder).forward(ids, types), theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("family", "renamed"),
    [
        ("distilbert", {"dim": "hidden_size", "n_heads": "num_attention_heads"}),
        ("distilbert", {"n_layers": "num_hidden_layers"}),
        ("modernbert", {"local_attention": "sliding_window"}),
    ],
)
def test_sizes_under_the_names_that_transformers_takes_too(
    tiny_bert: Any, tmp_path: Path, family: str, renamed: dict[str, str]
) -> None:
    folder = tmp_path / "model"
    local = {"local_attention": 10} if family == "modernbert" else {}
    shutil.copytree(tiny_bert(model_type=family, **local), folder)
    config = json.loads((folder / "config.json").read_text())
    for own, other in renamed.items():
        size = config.pop(own)
        config[other] = size // 2 if other == "sliding_window" else size
    (folder / "config.json").write_text(json.dumps(config))
    ids, types = batch(folder, (7, 40))
    theirs = expected(folder, "encoder", (7, 40))
    assert largest_difference(load(folder).forward(ids, types), theirs) < TOLERANCE
