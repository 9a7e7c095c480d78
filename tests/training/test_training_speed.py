"""What makes training fast, and that it stays training: precision, attention, memory."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from safetensors.numpy import load_file

from short_runs import QUICK
from sparsebert.checkpoint.families import Head
from sparsebert.errors import TrainingError
from sparsebert.tasks.table import Kind
from sparsebert.training import callbacks, cpu, finetune
from sparsebert.training.cpu import (
    autocast,
    fastest_attention,
    native_bf16,
    resolve_precision,
)
from sparsebert.training.objective import TaskObjective
from tiny_models import TinyBert
from tiny_tasks import write_classification

HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
needs_bf16 = pytest.mark.skipif(
    not HAS_BF16, reason="no products in bf16: they need a CPU with AVX-512 BF16 or AMX"
)


class TestPrecision:
    @pytest.mark.parametrize(("native", "found"), [(True, "bf16"), (False, "fp32")])
    def test_auto_is_bf16_where_the_processor_has_it(
        self, native: bool, found: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cpu, "native_bf16", lambda: native)
        assert resolve_precision("auto") == found
        assert resolve_precision("fp32") == "fp32"

    def test_native_bf16_agrees_with_the_processors_flags(self) -> None:
        cpuinfo = Path("/proc/cpuinfo")
        if not cpuinfo.is_file() or torch.cuda.is_available():
            pytest.skip("no /proc/cpuinfo to compare with")
        flags = cpuinfo.read_text().split()
        assert native_bf16() == ("avx512_bf16" in flags or "amx_bf16" in flags)

    def test_bf16_that_cannot_be_had_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpu, "_cpu_can_bf16", lambda: False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(TrainingError, match="does not support bf16: use precision fp32"):
            resolve_precision("bf16")

    @needs_bf16
    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind.head is not Head.ENCODER])
    def test_in_bf16_loss_and_gradients_are_float32_and_close(
        self, kind: Kind, tiny_bert: TinyBert
    ) -> None:
        heads = {
            Kind.QUESTION: ("question-answering", "AutoModelForQuestionAnswering"),
            Kind.TOKENS: ("token-classification", "AutoModelForTokenClassification"),
        }
        sequence = ("sequence-classification", "AutoModelForSequenceClassification")
        head, auto = heads.get(kind, sequence)
        model = getattr(transformers, auto).from_pretrained(tiny_bert(head)).eval()
        ids = torch.randint(5, 60, (6, 11), generator=torch.Generator().manual_seed(1))
        labels = {
            Kind.CLASSIFICATION: torch.tensor([0, 1, 2, 0, 1, 2]),
            Kind.LABEL_SETS: torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]] * 2),
            Kind.REGRESSION: torch.linspace(-1, 1, 6),
            Kind.TOKENS: torch.where(ids % 4 == 3, -100, ids % 3),
            Kind.QUESTION: torch.tensor([[0, 3], [1, 1], [2, 9], [4, 5], [0, 0], [10, 10]]),
        }[kind]
        batch = {
            "input_ids": ids,
            "token_type_ids": torch.zeros_like(ids),
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
            "indices": torch.arange(6),
        }
        gradients: dict[str, Any] = {}
        losses = {}
        for name in ("fp32", "bf16"):
            with autocast(name):
                loss = TaskObjective(kind).loss(model, batch, 6)
            assert loss.dtype == torch.float32
            loss.backward()
            losses[name] = loss.item()
            gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
            assert gradients[name].dtype == torch.float32
            model.zero_grad()
        assert losses["bf16"] != losses["fp32"]  # it did compute otherwise
        assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
        cosine = torch.cosine_similarity(gradients["bf16"], gradients["fp32"], dim=0)
        assert float(cosine) > 0.99

    @needs_bf16
    def test_a_run_says_which_and_scores_in_fp32(
        self, tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = write_classification(tmp_path / "data", train=20, validation=4)
        dtypes: dict[bool, set[Any]] = {True: set(), False: set()}
        linear = torch.nn.functional.linear

        def spy(inputs: Any, *more: Any) -> Any:
            result = linear(inputs, *more)
            dtypes[torch.is_grad_enabled()].add(result.dtype)
            return result

        monkeypatch.setattr(torch.nn.functional, "linear", spy)
        for name in ("bf16", "fp32"):
            options = {**QUICK, "epochs": 1, "precision": name}
            finetune(tiny_bert("encoder"), tmp_path / name, data=data, **options)
            assert json.loads((tmp_path / name / "training.json").read_text())["precision"] == name
            expected = torch.bfloat16 if name == "bf16" else torch.float32
            assert dtypes[True] == {expected}
            assert dtypes[False] == {torch.float32}
            for seen in dtypes.values():
                seen.clear()
        left, right = (load_file(tmp_path / n / "model.safetensors") for n in ("bf16", "fp32"))
        assert all(values.dtype == np.float32 for values in left.values())
        apart = max(float(np.abs(left[key] - right[key]).max()) for key in left)
        assert 0 < apart < 0.02  # three steps at 1e-3


class TestAttention:
    @pytest.mark.parametrize(
        ("lengths", "found"),
        [([12] * 9, "eager"), ([256] * 3, "eager"), ([257] * 3, "sdpa"), ([384, 384, 20], "sdpa")],
    )
    def test_plain_for_short_rows(
        self, lengths: list[int], found: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert fastest_attention(np.array(lengths)) == found

    def test_on_a_gpu_fused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert fastest_attention(np.array([12])) == "sdpa"

    def test_both_agree(self, tiny_bert: TinyBert) -> None:
        folder = tiny_bert("sequence-classification")
        ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(ids)
        mask[1:, 6:] = 0
        gradients = []
        for name in ("eager", "sdpa"):
            auto = transformers.AutoModelForSequenceClassification
            model = auto.from_pretrained(folder, attn_implementation=name).eval()
            model(ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert torch.allclose(*gradients, atol=1e-5)


_FAULTS = """
import ctypes, resource
from sparsebert.training.cpu import kept_memory, release_free_memory

size = 48 << 20  # above the 32 MiB that glibc keeps by itself
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(block)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()

faults()
assert faults() > 0.9 * size
with kept_memory():
    faults()
    assert faults() < 0.1 * size
    release_free_memory()
    assert faults() > 0.9 * size
faults()
assert faults() > 0.9 * size
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_is_kept_inside_and_given_back_after() -> None:
    """In a process of its own, because other tests leave free blocks of this size behind."""
    subprocess.run([sys.executable, "-c", _FAULTS], check=True)


def test_memory_goes_back_where_much_more_is_held_than_a_step_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first step, and each after a release, says what a step takes."""
    held = [100, 120, 149, 151, 180, 260, 280]
    left = iter(held)
    last: list[int] = []
    released: list[int] = []
    monkeypatch.setattr(callbacks, "resident_memory", lambda: last.append(next(left)) or last[-1])
    monkeypatch.setattr(callbacks, "release_free_memory", lambda: released.append(last[-1]))
    watched = callbacks.MemoryCallback()
    for _ in held:
        watched.on_step_end(None, None, None)
    assert released == [151, 280]  # 180 after the first release: up to 270 are kept from then on
