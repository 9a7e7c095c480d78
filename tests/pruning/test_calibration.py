"""Pruning calibrated on texts: what layers see and should give, against transformers' own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from family_configs import DISTINCT
from sentences import SENTENCES
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.config import ACTIVATIONS
from sparsebert.checkpoint.disentangled_attention import DisentangledAttention
from sparsebert.checkpoint.families import Head
from sparsebert.errors import CheckpointError, DataError, MissingExtraError
from sparsebert.pruning import prune
from sparsebert.pruning.calibration import Linear, Statistics, prune_layers
from sparsebert.pruning.calibration_set import CalibrationSet, read_calibration_set
from sparsebert.pruning.encoder_arithmetic import activation, distance_buckets, distance_rows
from sparsebert.tasks.division import Division
from sparsebert.tasks.table import get_task
from tiny_models import TinyBert
from tiny_tasks import write_regression, write_rows

TEXTS = [text for text in SENTENCES if len(text.split()) < 30][:20]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*TEXTS, "", "a", "a"]) + "\n", encoding="utf-8")
    return path


def rows_of(folder: Path, source: Path, count: int = 1024, task: str | None = None) -> Any:
    checkpoint = open_checkpoint(folder)
    chosen = get_task(task) if task else None
    return checkpoint, read_calibration_set(checkpoint, source, count=count, task=chosen)


def seen_by(folder: Path, rows: CalibrationSet) -> dict[str, tuple[Any, Any]]:
    """Inputs and outputs in transformers' model, over all tokens, of linear and encoder layers.

    By canonical name, encoder layers as ``encoder.layer.0``.
    """
    model = transformers.AutoModel.from_pretrained(folder).eval()
    config = open_checkpoint(folder).config
    family = config.family
    distances = config.disentangled and config.disentangled.rows
    seen: dict[str, list[tuple[Any, Any]]] = {}

    def watch(module: Any, name: str) -> None:
        def keep(_: Any, given: Any, out: Any) -> None:
            out = out if isinstance(out, torch.Tensor) else out[0]
            if given[0].shape[-2] == distances:  # DeBERTa's, which go through the same layers
                return
            seen.setdefault(name, []).append((given[0].clone(), out.clone()))

        module.register_forward_hook(keep)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            watch(module, family.canonical(f"{name}.weight").removesuffix(".weight"))
    for number in range(model.config.num_hidden_layers):
        watch(model.get_submodule(family.spelled(f"encoder.layer.{number}.").removesuffix(".")),
              f"encoder.layer.{number}")  # fmt: skip
    with torch.inference_mode():
        for start, length in zip(rows.starts, rows.lengths, strict=True):  # one row at a time
            part = slice(start, start + length)
            kinds = {"token_type_ids": torch.from_numpy(rows.type_ids[part])[None]}
            ids = torch.from_numpy(rows.ids[part])[None]
            model(input_ids=ids, **(kinds if family.token_types else {}))
    flat = {}
    for name, calls in seen.items():
        x, y = zip(*calls, strict=True)
        flat[name] = tuple(torch.cat([v.flatten(0, -2) for v in each]).double() for each in (x, y))
    return flat


def assert_statistics(found: Statistics, x: Any, y: Any, has_bias: bool) -> None:
    """As numpy has them from inputs ``[tokens, columns]`` and targets ``[tokens, rows]``."""
    x_mean, y_mean = x.mean(0) * has_bias, y.mean(0) * has_bias
    x0, y0 = x - x_mean, y - y_mean
    for got, expected in (
        (found.inputs, x0.T @ x0 / len(x)),
        (found.targets, y0.T @ x0 / len(x)),
        (found.input_mean, x_mean),
        (found.target_mean, y_mean),
    ):
        scale = expected.abs().max().item()
        assert got.numpy() == pytest.approx(expected.numpy(), abs=2e-4 * scale, rel=1e-3)


def added_to(seen: dict[str, tuple[Any, Any]], layer: str, norm_first: bool) -> Any:
    """What the output of a linear layer is added to; 0 for one that nothing is."""
    stem, _, name = layer.rpartition(".output.dense")
    if name or not stem:
        return 0
    number = ".".join(layer.split(".")[:3])
    if stem.endswith(".attention"):
        return seen[number][0]
    if norm_first:
        return seen[number][0] + seen[f"{number}.attention.output.dense"][1]
    return seen[f"{number}.intermediate.dense"][0]


ODD = {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 52, "num_labels": 3}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"hidden_act": "gelu"}),
    ("bert", {"hidden_act": "relu"}),
    ("bert", {"hidden_act": "gelu_new"}),
    ("roberta", ODD),
    ("xlm-roberta", ODD),
    ("distilbert", ODD),
    ("electra", {**ODD, "embedding_size": 20}),
    ("electra", {"embedding_size": 32}),
    ("mpnet", ODD),
    ("deberta-v2", {**ODD, "position_biased_input": True, "type_vocab_size": 2}),
    (
        "deberta-v2",
        {**ODD, "pos_att_type": ["p2c"], "position_buckets": -1, "max_relative_positions": 30},
    ),
    ("modernbert", {**ODD, "num_hidden_layers": 4, "local_attention": 7}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    ("ernie", {"use_task_id": True}),
    ("nomic_bert", ODD),
    ("gte", {**ODD, "rope_parameters": {"rope_type": "linear", "rope_theta": 500, "factor": 1.3}}),
]


@pytest.mark.parametrize(("model_type", "settings"), MODELS)
def test_each_layer_sees_what_those_pruned_before_it_give(
    tiny_bert: TinyBert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    """Inputs are those of the pruned model, targets the dense one's, residuals made up for."""
    monkeypatch.setattr("sparsebert.pruning.calibration._TOKENS", 50)  # many parts
    folder = tiny_bert("encoder", model_type=model_type, **settings)
    checkpoint = open_checkpoint(folder)
    rows = random_rows(checkpoint)
    names = [layer.name for layer in checkpoint.linear_layers(("encoder", "pooler"))]
    statistics: list[Statistics] = []

    def alter(layer: Linear, found: Statistics) -> Linear:
        statistics.append(found)
        bias = None if layer.bias is None else layer.bias + 0.1
        return Linear(layer.weight * 0.8, bias, layer.mask)

    layers: dict[str, Linear] = {}
    for found in prune_layers(checkpoint, rows, names, alter):
        layers.update(found)
    assert list(layers) == names
    state = {name: torch.tensor(values) for name, values in checkpoint.tensors.items()}
    for name, layer in layers.items():
        state[checkpoint.stored_name[name]] = layer.weight
        if layer.bias is not None:
            state[checkpoint.stored_name[f"{name.removesuffix('weight')}bias"]] = layer.bias
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(state, altered / "model.safetensors", metadata={"format": "pt"})
    dense, pruned = seen_by(folder, rows), seen_by(altered, rows)
    norm_first = checkpoint.config.family.norm_first
    for name, found in zip(names, statistics, strict=True):
        layer = name.removesuffix(".weight")
        x, y = pruned[layer][0], dense[layer][1]
        y = y + added_to(dense, layer, norm_first) - added_to(pruned, layer, norm_first)
        assert_statistics(found, x, y, layers[name].bias is not None)


def random_rows(checkpoint: Any) -> CalibrationSet:
    """Rows of any ids, the padding's among them, with both types where the model tells them."""
    random = np.random.default_rng(5)
    lengths = sorted([1, 2, 9, 9, 17, 40, checkpoint.config.max_length])
    ids = random.integers(0, checkpoint.config.vocab_size, sum(lengths))
    ids[::19] = checkpoint.config.pad_token_id
    kinds = random.integers(0, checkpoint.config.type_vocab_size, sum(lengths))
    return CalibrationSet(ids, kinds, lengths)


def test_distances_fall_into_the_buckets_of_transformers() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distance = torch.arange(-700, 701)
    expected = MPNetEncoder.relative_position_bucket(distance)
    assert torch.equal(distance_buckets(distance, 32), expected)
    assert len(set(expected.tolist())) == 31  # 'one to the right by nothing' does not occur


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_by_any_of_its_names_is_that_of_transformers(name: str) -> None:
    x = torch.linspace(-9, 9, 2001)
    expected = transformers.activations.ACT2FN[name](x)
    torch.testing.assert_close(activation(ACTIVATIONS[name])(x), expected, atol=2e-6, rtol=0)


def test_layers_that_share_weights_are_pruned_once_on_what_all_of_them_read(
    tiny_bert: TinyBert,
) -> None:
    folder = tiny_bert(
        model_type="albert", num_hidden_layers=5, num_hidden_groups=2, embedding_size=20
    )
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.layer_order == (0, 0, 0, 1, 1)
    rows = random_rows(checkpoint)
    names = [layer.name for layer in checkpoint.linear_layers(("encoder",))]
    found: dict[str, Statistics] = {}

    def keep(layer: Linear, statistics: Statistics) -> Linear:
        found[names[len(found)]] = statistics
        return layer

    pruned = [list(layers) for layers in prune_layers(checkpoint, rows, names, keep)]
    assert pruned == [names[:6], names[6:], []]
    model = transformers.AlbertModel.from_pretrained(folder).eval()
    inputs: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        path = checkpoint.config.family.spelled(name).removesuffix(".weight")
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, given, name=name: inputs[name].append(given[0].flatten(0, -2))
        )
    with torch.inference_mode():
        for start, length in zip(rows.starts, rows.lengths, strict=True):
            part = slice(start, start + length)
            model(
                input_ids=torch.from_numpy(rows.ids[part])[None],
                token_type_ids=torch.from_numpy(rows.type_ids[part])[None],
            )
    for name in names:
        x = torch.cat(inputs[name])
        assert len(x) == sum(rows.lengths) * (3 if name in names[:6] else 2)
        assert found[name].input_mean.numpy() == pytest.approx(x.mean(0).numpy(), abs=1e-4)
        square = found[name].inputs.diagonal() + found[name].input_mean.square()
        assert square.numpy() == pytest.approx(x.square().mean(0).numpy(), abs=1e-3, rel=1e-3)


def test_distances_take_the_rows_of_transformers() -> None:
    """With the numbers of the published models."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = torch.arange(-700, 701)
    buckets = make_log_bucket_position(distance, 256, 512).long()
    attention = DisentangledAttention(512, 256, 512, ("c2p",), True)
    assert torch.equal(distance_rows(distance, attention), (buckets + 256).clamp(0, 511))


HEADS = [
    *((model_type, "sequence-classification") for model_type in DISTINCT),
    *((model_type, "token-classification") for model_type in ("bert", "modernbert")),
    *((model_type, "question-answering") for model_type in ("distilbert", "modernbert")),
    *((model_type, "masked-lm") for model_type in ("bert", "roberta", "electra", "modernbert")),
]


@pytest.mark.parametrize(("model_type", "head"), HEADS)
def test_every_head_is_pruned_on_what_it_reads(
    tiny_bert: TinyBert, model_type: str, head: str
) -> None:
    settings = {"classifier_pooling": "mean"} if model_type == "modernbert" else {}
    folder = tiny_bert(head, model_type=model_type, **settings)
    checkpoint = open_checkpoint(folder)
    family, rows = checkpoint.config.family, random_rows(checkpoint)
    names = [
        layer.name
        for layer in checkpoint.linear_layers(("pooler", "head"))
        if layer.name in checkpoint.used
    ]
    assert names
    found: dict[str, Statistics] = {}

    def keep(layer: Linear, statistics: Statistics) -> Linear:
        found[names[len(found)]] = statistics
        return layer

    *_, last = prune_layers(checkpoint, rows, names, keep)
    assert list(last) == names
    model = getattr(transformers, family.architecture(Head(head))).from_pretrained(folder).eval()
    inputs: dict[str, list[Any]] = {name: [] for name in names}
    for name in names:
        path = family.parameter(name, Head(head)).removesuffix(".weight")
        model.get_submodule(path).register_forward_hook(
            lambda _, given, out, name=name: inputs[name].append(given[0].flatten(0, -2))
        )
    with torch.inference_mode():
        for start, length in zip(rows.starts, rows.lengths, strict=True):
            part = slice(start, start + length)
            kinds = {"token_type_ids": torch.from_numpy(rows.type_ids[part])[None]}
            given = {"attention_mask": torch.ones(1, length, dtype=torch.int64)}
            given |= kinds if family.token_types else {}
            model(input_ids=torch.from_numpy(rows.ids[part])[None], **given)
    for name in names:
        x = torch.cat(inputs[name])
        assert found[name].input_mean.numpy() == pytest.approx(
            x.mean(0).numpy() * (last[name].bias is not None), abs=1e-4
        )
        square = found[name].inputs.diagonal() + found[name].input_mean.square()
        assert square.numpy() == pytest.approx(x.square().mean(0).numpy(), abs=1e-3, rel=1e-3)


@pytest.mark.parametrize("method", ["wanda", "second-order"])
@pytest.mark.parametrize("pattern", ["1:2", "2:4"])
def test_a_pruned_folder_is_whole_and_says_how(
    tiny_bert: TinyBert, texts: Path, tmp_path: Path, method: str, pattern: str
) -> None:
    folder = tiny_bert("sequence-classification", num_labels=3)
    result = prune(
        folder,
        tmp_path / "sparse",
        method=method,
        pattern=pattern,
        parts=("encoder", "pooler", "head"),
        calibration=texts,
    )
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    checkpoint = open_checkpoint(tmp_path / "sparse")
    masks = read_masks(checkpoint)
    assert len(masks) == 14
    n, m = map(int, pattern.split(":"))
    assert all(set(mask.reshape(-1, m).sum(1).tolist()) == {n} for mask in masks.values())
    step = checkpoint.config.raw["sparsity"]["lineage"][-1]
    assert step["arguments"] == {
        "pattern": pattern,
        "method": method,
        "parts": ["encoder", "pooler", "head"],
        "calibration": "texts.txt",
        "calibration_rows": len(TEXTS) + 2,
        "task": None,
    }
    written = (tmp_path / "sparse" / "README.md").read_text()
    assert f"method={method}" in written
    assert str(tmp_path) not in written + (tmp_path / "sparse" / "config.json").read_text()
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "sparse" / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    weights = {checkpoint.stored_name[name] for name in masks}
    biases = {f"{name.removesuffix('weight')}bias" for name in weights}
    assert changed == (weights if method == "wanda" else weights | biases)
    if method == "wanda":
        assert all(torch.equal(after[name][after[name] != 0], before[name][after[name] != 0])
                   for name in weights)  # fmt: skip
    again = prune(tmp_path / "sparse", tmp_path / "two", method=method, pattern=pattern,
                  calibration=texts)  # fmt: skip
    assert again.pruned == []
    assert len(again.already_sparse) == 12


def test_second_order_changes_outputs_least(
    tiny_bert: TinyBert, texts: Path, tmp_path: Path
) -> None:
    folder = tiny_bert("encoder")
    rows = rows_of(folder, texts)[1]
    dense = seen_by(folder, rows)["encoder.layer.1.output.dense"][1]
    away = {}
    for method in ("magnitude", "wanda", "second-order"):
        given = {} if method == "magnitude" else {"calibration": texts}
        prune(folder, tmp_path / method, method=method, **given)
        found = seen_by(tmp_path / method, rows)["encoder.layer.1.output.dense"][1]
        away[method] = (found - dense).square().mean().item()
    assert away["second-order"] < 0.6 * min(away["wanda"], away["magnitude"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_new_weights_keep_the_stored_type(
    tiny_bert: TinyBert, texts: Path, tmp_path: Path, dtype: Any
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_bert("encoder").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    state = {name: x.to(dtype) for name, x in load_file(source / "model.safetensors").items()}
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    prune(source, tmp_path / "half", method="second-order", calibration=texts)
    wide = {name: x.float() for name, x in state.items()}
    save_file(wide, source / "model.safetensors", metadata={"format": "pt"})
    prune(source, tmp_path / "full", method="second-order", calibration=texts)
    half = load_file(tmp_path / "half" / "model.safetensors")
    full = load_file(tmp_path / "full" / "model.safetensors")
    for name, values in full.items():
        assert half[name].dtype == dtype
        assert torch.equal(half[name], values.to(dtype)), name  # rounded as torch rounds


class TestRows:
    def test_a_fixed_selection_shortest_first(self, tiny_bert: TinyBert, texts: Path) -> None:
        rows = rows_of(tiny_bert("encoder"), texts, 7)[1]
        assert len(rows) == 7
        assert rows.lengths == sorted(rows.lengths)
        assert sum(rows.lengths) == len(rows.ids)
        assert rows_of(tiny_bert("encoder"), texts, 7)[1].ids.tolist() == rows.ids.tolist()
        for tokens in (1, 20, 64, 10_000):
            parts = list(rows.parts(tokens))
            assert [n for _, groups in parts for count, n in groups for _ in range(count)] == (
                rows.lengths
            )
            assert parts[0][0].start == 0
            assert parts[-1][0].stop == len(rows.ids)
            for (part, groups), following in zip(parts, [*parts[1:], None], strict=True):
                assert part.stop - part.start == sum(count * n for count, n in groups)
                assert following is None or following[0].start == part.stop
                assert groups[0][0] == len(groups) == 1 or part.stop - part.start <= tokens

    def test_pairs_are_read_as_the_model_reads_them(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        data = write_regression(tmp_path / "data", train=9)
        pairs = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
        together = rows_of(tiny_bert("sequence-classification"), data, task="stsb")[1]
        assert len(together) == 9
        assert together.type_ids.max() == 1
        apart = rows_of(tiny_bert("encoder"), data, task="stsb")[1]
        distinct = {row[name] for row in pairs for name in ("sentence1", "sentence2")}
        assert len(apart) == len(distinct)
        assert apart.type_ids.max() == 0
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert("encoder"))
        ids = sorted(tokenizer(sorted(distinct))["input_ids"])
        starts = apart.starts.tolist()
        found = [apart.ids[a : a + n].tolist() for a, n in zip(starts, apart.lengths, strict=True)]
        assert sorted(found) == ids

    def test_rows_held_out_of_the_models_training_are_left_out(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        data = write_rows(
            tmp_path / "tickets.jsonl",
            [{"text": " ".join("ab"[row >> bit & 1] for bit in range(5))} for row in range(20)],
        )
        model = shutil.copytree(tiny_bert("encoder"), tmp_path / "model")
        assert len(rows_of(model, data)[1]) == 20
        Division.of(data, 20, 0.2, [3, 7, 11, 19]).write(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        texts = [json.loads(line)["text"] for line in data.read_text().splitlines()]
        seen = [text for row, text in enumerate(texts) if row not in (3, 7, 11, 19)]
        expected = np.concatenate(tokenizer(seen)["input_ids"])
        assert rows_of(model, data)[1].ids.tolist() == expected.tolist()
        folder = tmp_path / "folder"  # with nothing else in it
        folder.mkdir()
        shutil.copy(data, folder / "other.jsonl")
        assert len(rows_of(model, folder)[1]) == 16
        write_rows(data, [{"text": text} for text in texts[:8]])  # another file of that name
        assert len(rows_of(model, data)[1]) == 8

    def test_long_texts_are_cut(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        write_rows(tmp_path / "train.jsonl", [{"text": "a b c " * 100}])
        assert rows_of(tiny_bert("encoder"), tmp_path)[1].lengths == [64]


def test_columns_of_ones_own(tiny_bert: TinyBert, tmp_path: Path) -> None:
    rows = ["label,sentence1,sentence2"] + [f"{i % 2},The wall {i} fell,No {i}" for i in range(9)]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    made = {}
    for task in ("custom", "CUSTOM", None):
        out = tmp_path / str(task)
        prune(tiny_bert("encoder"), out, method="wanda", calibration=tmp_path, task=task)
        made[task] = (out / "model.safetensors").read_bytes()
    assert made["custom"] == made["CUSTOM"] == made[None]


def test_texts_too_few_are_told(tiny_bert: TinyBert, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a b c\n")
    for method in ("second-order", "wanda"):
        out = tmp_path / method
        found = prune(tiny_bert("encoder"), out, method=method, calibration=tmp_path / "one.txt")
        (note,) = found.notes
        assert note.startswith("calibrated on 1 text with 5 tokens in all, fewer than the ")
    widest = max(layer.columns for layer in open_checkpoint(out).linear_layers(("encoder",)))
    assert f"fewer than the {widest} inputs of the widest layer" in note
    (tmp_path / "many.txt").write_text("".join(f"a b c {row}\n" for row in range(widest)))
    out = tmp_path / "many"
    found = prune(tiny_bert("encoder"), out, method="wanda", calibration=tmp_path / "many.txt")
    assert found.notes == []
    assert prune(tiny_bert("encoder"), tmp_path / "none").notes == []


def test_texts_too_few_for_layers_that_read_one_vector_per_text(
    tiny_bert: TinyBert, tmp_path: Path
) -> None:
    """Even if these texts have tokens enough for all others."""
    folder, source = tiny_bert("sequence-classification"), tmp_path / "texts.txt"
    hidden = open_checkpoint(folder).config.hidden_size
    for count in (hidden - 1, hidden):
        source.write_text("".join(f"a b c d e f g h {row}\n" for row in range(count)))
        told = {
            parts: prune(folder, tmp_path / "out", method="wanda", parts=parts, force=True,
                         calibration=source).notes
            for parts in (("encoder",), ("encoder", "pooler"), ("head",))
        }  # fmt: skip
        layers = {("encoder", "pooler"): "pooler.dense", ("head",): "classifier"}
        for parts, notes in told.items():
            if count == hidden or parts not in layers:
                assert notes == []
                continue
            (note,) = notes
            assert note.startswith(f"calibrated on {count} texts, fewer than the {hidden} inputs ")
            assert f"of '{layers[parts]}.weight', which reads one vector per text: " in note
    folder = tiny_bert("token-classification")  # whose head reads every token
    found = prune(
        folder, tmp_path / "token", method="wanda", parts=("head",), calibration=source,
        calibration_rows=hidden - 1,
    )  # fmt: skip
    assert found.notes == []


def test_inputs_far_from_zero_that_hardly_vary(tiny_bert: TinyBert, tmp_path: Path) -> None:
    """Their covariance is not lost in the rounding of their squares."""
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny_bert("encoder").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    state = load_file(source / "model.safetensors")
    state["embeddings.LayerNorm.bias"][::3] = 3000.0
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(source)
    rows = random_rows(checkpoint)
    statistics: list[Statistics] = []

    def keep(layer: Linear, found: Statistics) -> Linear:
        statistics.append(found)
        return layer

    names = [layer.name for layer in checkpoint.linear_layers(("encoder",))][:3]
    next(iter(prune_layers(checkpoint, rows, names, keep)))
    seen = seen_by(source, rows)
    for name, found in zip(names, statistics, strict=True):
        assert_statistics(found, *seen[name.removesuffix(".weight")], has_bias=True)


def test_equal_texts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    """Layers that read one vector per text get the same inputs from all of them."""
    source, out = tmp_path / "texts.txt", tmp_path / "out"
    source.write_text("a b c d\n" * 3)
    prune(
        tiny_bert("sequence-classification"), out, method="second-order", parts=("pooler", "head"),
        calibration=source,
    )  # fmt: skip
    masks = read_masks(open_checkpoint(out))
    assert sorted(masks) == ["classifier.weight", "pooler.dense.weight"]


class TestErrors:
    @pytest.mark.parametrize("method", ["wanda", "second-order"])
    def test_no_texts(self, tiny_bert: TinyBert, tmp_path: Path, method: str) -> None:
        with pytest.raises(DataError, match=f"method {method} calibrates on texts: pass a file"):
            prune(tiny_bert("encoder"), tmp_path / "out", method=method)

    def test_texts_for_a_method_that_needs_none(
        self, tiny_bert: TinyBert, texts: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="magnitude does not calibrate: leave"):
            prune(tiny_bert("encoder"), tmp_path / "out", method="magnitude", calibration=texts)
        with pytest.raises(DataError, match="does not calibrate: leave calibration_rows out, or"):
            prune(tiny_bert("encoder"), tmp_path / "out", calibration_rows=8)
        with pytest.raises(DataError, match="magnitude does not calibrate: leave the task 'sst2'"):
            prune(tiny_bert("encoder"), tmp_path / "out", task="sst2")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.txt", " \n\n", "contains no text"),
            ("none.jsonl", '{"text": ""}\n', "contains no text"),
            ("odd.csv", "a,b\n1,2\n", "has no text column: its columns are a, b"),
            ("odd.pdf", "x", "has an unknown file type"),
            ("latin.txt", b"caf\xe9\n", "cannot be read: it is not UTF-8 text"),
        ],
    )
    def test_files_without_texts(
        self, tiny_bert: TinyBert, tmp_path: Path, name: str, content: Any, message: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(DataError, match=message):
            prune(tiny_bert("encoder"), tmp_path / "out", method="wanda", calibration=path)
        assert not (tmp_path / "out").exists()

    def test_folders_without_texts(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="neither a file for the train split nor any .txt"):
            rows_of(tiny_bert("encoder"), tmp_path)
        with pytest.raises(DataError, match="does not exist"):
            rows_of(tiny_bert("encoder"), tmp_path / "nowhere")
        write_rows(tmp_path / "train.jsonl", [{"text": "a"}])
        with pytest.raises(DataError, match="lacks the columns 'sentence1', 'sentence2'"):
            rows_of(tiny_bert("encoder"), tmp_path, task="stsb")

    def test_no_rows_asked_for(self, tiny_bert: TinyBert, texts: Path) -> None:
        with pytest.raises(DataError, match="at least one row, not 0"):
            rows_of(tiny_bert("encoder"), texts, 0)

    def test_no_tokenizer(self, tiny_bert: TinyBert, texts: Path, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((tiny_bert("encoder") / name).read_bytes())
        with pytest.raises(CheckpointError, match="has no tokenizer.json and no vocabulary"):
            rows_of(tmp_path, texts)

    @pytest.mark.parametrize("method", ["wanda", "second-order"])
    def test_activations_that_overflow(
        self, tiny_bert: TinyBert, texts: Path, tmp_path: Path, method: str
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for path in tiny_bert("encoder").iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        state = load_file(source / "model.safetensors")
        state["embeddings.LayerNorm.weight"][:] = 3e38  # finite, as every weight must be
        save_file(state, source / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            CheckpointError, match=r"layer.0.attention.self.query' inputs .* not finite"
        ):
            prune(source, tmp_path / "out", method=method, calibration=texts)
        assert not (tmp_path / "out").exists()

    def test_without_torch(
        self, tiny_bert: TinyBert, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tiny_bert("encoder")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingExtraError, match=r"second-order pruning needs the \[train\]"):
            prune(folder, tmp_path / "out", method="second-order", calibration=texts)


def test_narrow_is_the_inverse_of_widen() -> None:
    from sparsebert.checkpoint.dtypes import narrow, widen

    values = np.array([0, -0.0, 1, 1.00390625, 1.01171875, 3e38, -1e-40, np.pi], np.float32)
    for name, dtype in (("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)):
        expected = torch.from_numpy(np.clip(values, -6e4, 6e4)).to(dtype).float().numpy()
        found = widen(narrow(np.clip(values, -6e4, 6e4), name), name)
        assert found.tobytes() == expected.tobytes()
