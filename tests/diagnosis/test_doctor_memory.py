"""`doctor` on memory: what there is, what training and answering take, and the batch that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsebert as sb
from bert_folders import write_bert
from family_configs import USUAL
from findings import by_kind, the_check
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.config import parse_config
from sparsebert.checkpoint.families import FAMILIES as ENCODERS
from sparsebert.diagnosis import diagnose
from sparsebert.diagnosis.memory import (
    Plan,
    activation_bytes,
    answering_bytes,
    check_memory,
    training_bytes,
)
from sparsebert.diagnosis.system import AvailableMemory, available_memory
from sparsebert.errors import TrainingError
from sparsebert.training.cpu import choose_attention

GIB = 1 << 30


class TestAvailable:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "proc/self").mkdir(parents=True)
        meminfo = f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {9 * GIB // 1024} kB\n"
        (tmp_path / "proc/meminfo").write_text(meminfo)
        return tmp_path

    def test_the_machine(self, root: Path) -> None:
        assert available_memory(root) == AvailableMemory(9 * GIB, 16 * GIB, "machine")

    def test_a_limit_of_a_parent_group(self, root: Path) -> None:
        (root / "proc/self/cgroup").write_text("0::/service/worker\n")
        groups = root / "sys/fs/cgroup/service"
        (groups / "worker").mkdir(parents=True)
        (groups / "worker/memory.max").write_text("max\n")
        (groups / "worker/memory.current").write_text(str(GIB))
        (groups / "memory.max").write_text(f"{4 * GIB}\n")
        (groups / "memory.current").write_text(str(3 * GIB))
        (groups / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
        free = 4 * GIB - 3 * GIB + GIB // 2  # page cache can be dropped
        assert available_memory(root) == AvailableMemory(free, 4 * GIB, "container")

    @pytest.mark.parametrize("place", ["docker/abc", ""])
    def test_version_1(self, root: Path, place: str) -> None:
        (root / "proc/self/cgroup").write_text("4:memory:/docker/abc\n3:cpu:/docker/abc\n")
        group = root / "sys/fs/cgroup/memory" / place
        group.mkdir(parents=True)
        (group / "memory.limit_in_bytes").write_text(str(2 * GIB))
        (group / "memory.usage_in_bytes").write_text(str(3 * GIB))
        assert available_memory(root) == AvailableMemory(0, 2 * GIB, "container")
        (group / "memory.limit_in_bytes").write_text("9223372036854771712")  # none
        assert available_memory(root) == AvailableMemory(9 * GIB, 16 * GIB, "machine")

    def test_this_machine(self) -> None:
        memory = available_memory()
        assert memory is not None
        assert 0 <= memory.free <= memory.total


FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("distilbert", {}),
    ("electra", {"embedding_size": 64}),
    ("mpnet", {}),
    ("gte", {"type_vocab_size": 1}),
    ("modernbert", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    ("deberta-v2", USUAL["deberta-v2"]),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("rows", "tokens"), [(3, 37), (2, 258)])
@pytest.mark.parametrize(("model_type", "changes"), FAMILIES)
def test_activations_are_what_autograd_keeps(
    model_type: str,
    changes: dict[str, Any],
    dropout: float,
    rows: int,
    tokens: int,
    precision: str,
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 96,
        "intermediate_size": 250,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "max_position_embeddings": 300,
    }
    fields = ENCODERS[model_type].fields
    settings = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=50,
        **{fields.get(name, name): size for name, size in sizes.items()},
        **changes,
    )
    for name in settings.to_dict():
        if "dropout" in name:
            setattr(settings, name, dropout)
    model = transformers.AutoModel.from_config(settings).train()
    choose_attention(model, np.full(rows, tokens))
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
        ids = torch.full((rows, tokens), 5)
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    measured = sum(storage.nbytes() for storage in kept.values())
    if precision == "bf16":  # the weights' copies, which are counted elsewhere
        linears = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
        measured -= sum(2 * each.weight.numel() for each in linears)
    raw = {**settings.to_dict(), "architectures": [type(model).__name__]}
    config = parse_config(raw, (), Path("config.json"))
    estimate = activation_bytes(config, rows, tokens, dropout=dropout > 0, precision=precision)
    # Embeddings, norms' statistics and the pooler come on top; here they are a large share.
    assert 0.92 * measured < estimate <= (1.06 if model_type == "distilbert" else 1) * measured
    del output


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    sb.prune(write_bert(tmp_path / "dense"), tmp_path / "sparse")
    return tmp_path / "sparse"


def test_training_bytes_by_hand(sparse: Path) -> None:
    # Embeddings (11 words, 16 positions, 2 types), a norm; 2 layers; the pooler.
    layer = 4 * (64 + 8) + (192 + 24) + (192 + 8) + 4 * 8
    parameters = (11 + 16 + 2) * 8 + 16 + 2 * layer + 72
    masked = 2 * (4 * 64 + 2 * 192)
    checkpoint = open_checkpoint(sparse)

    def fixed(**options: Any) -> int:
        return training_bytes(checkpoint, Plan(4, 10, False, **options))[0] - (500 << 20)

    assert fixed() == 20 * parameters + 5 * masked
    assert fixed(optimizer="sgd") == 16 * parameters + 5 * masked
    assert fixed(optimizer="adafactor") == 12 * parameters + 5 * masked
    assert fixed(embeddings="frozen") == 20 * parameters - 12 * 11 * 8 + 5 * masked
    row = training_bytes(checkpoint, Plan(4, 10, False))[1]
    assert row == round(1.3 * 4 * 10 * 2 * (8 * 8 + 2 * 24 + 2 * 10))
    row = training_bytes(checkpoint, Plan(4, 10, True))[1]
    assert row == round(1.3 * 4 * 10 * 2 * (10 * 8 + 2 * 24 + 3 * 2 * 10))
    assert fixed(precision="bf16") == 22 * parameters + 5 * masked
    row = training_bytes(checkpoint, Plan(4, 10, False, precision="bf16"))[1]
    assert row == round(1.3 * 10 * 2 * (24 * 8 + 4 * 24 + 2 * 2 * 10))


def test_the_largest_batch_that_fits(sparse: Path) -> None:
    plan = Plan(batch_size=100, max_length=16, dropout=False)
    fixed, row = training_bytes(open_checkpoint(sparse), plan)

    def checks(free: int) -> list[Any]:
        return list(check_memory(sparse, plan, AvailableMemory(free, 64 * GIB, "machine")))

    assert by_kind(checks(fixed + 100 * row)) == {}
    assert "100 rows would fit" in the_check(checks(fixed + 100 * row), "training").seen
    found = by_kind(checks(fixed + 100 * row - 1))
    assert set(found) == {"training-memory"}
    assert "at most 99 rows of 16 tokens fit at once" in found["training-memory"].what
    found = by_kind(checks(fixed + row - 1))
    assert set(found) == {"training-memory-one-row"}
    assert set(by_kind(checks(1 << 20))) == {"training-memory-one-row", "answering-memory"}


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"batch_size": -3}, "batch_size must be an integer of at least 1, not -3"),
        ({"batch_size": 2.5}, "batch_size must be an integer, not 2.5"),
        ({"max_length": 4}, "max_length must be an integer of at least 8, not 4"),
    ],
)
def test_sizes_that_no_training_has(sparse: Path, sizes: dict[str, Any], told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        diagnose(sparse, **sizes)


def test_where_nothing_is_known_nothing_is_claimed(sparse: Path) -> None:
    checks = list(check_memory(sparse, Plan(10**6, 16, True), None))
    assert by_kind(checks) == {}
    assert the_check(checks, "available").skipped
    assert "about" in the_check(checks, "training").seen


def test_answering_takes_less_packed(minilm: Path, tmp_path: Path) -> None:
    sb.prune(minilm, tmp_path / "sparse")
    sb.pack(tmp_path / "sparse", tmp_path / "packed", dtype="int8")
    weights = {
        name: answering_bytes(tmp_path / name, threads=2)[0] for name in ("sparse", "packed")
    }
    # A packed folder's weights are those of its file, without the header.
    size = (tmp_path / "packed/packed.safetensors").stat().st_size
    assert 0 <= size - weights["packed"] < 0.01 * size
    file = (tmp_path / "sparse/model.safetensors").stat().st_size
    kept = sb.load(tmp_path / "sparse").nbytes  # the engine's own count, mapped tensors among it
    assert file < weights["sparse"] < file + kept
