"""The engine's int8 steps as torch functions with straight-through gradients.

In the forward pass, each computes what `src/native/int8` does: values are rounded to integers,
their products are summed exactly, and everything else is float32. In the backward pass, rounding is
treated as the identity (the straight-through estimator; Bengio, Leonard and Courville 2013,
arXiv:1308.3432), and the factors of a product are the rounded ones that the forward pass used:

    y = W^ x^ + b:   dx = W^^T dy,   dW = dy x^^T,   db = dy

Each row is quantised over its own current range. So nothing saturates, no gradient is cut off, and
scales and zero points, which cancel apart from the rounding, have no gradient of their own. (The
largest value of a row may be clipped by half a step, if value and zero point both round up.)

Under `autocast`, the forward pass is the same, and the backward products use autocast's type: bf16
represents every int8 and uint8 exactly, so only gradients lose precision.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SMALLEST = 1e-30  # lower bound of a scale: rows of smaller numbers are treated as zeros
_SMALLEST_VALUE_SCALE = 1e-12  # lower bound of a value's scale in attention, which divides by it
_CHUNK = 1 << 18  # elements that a chain of operations processes at a time, to stay in cache


def quantize_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32 ``[..., features]`` as uint8, with scale and zero point ``[..., 1]`` as floats.

    x ~ scale (q - zero), from the minimum and maximum of the row, with the range extended to 0.
    """
    low = x.amin(-1, keepdim=True).clamp_(max=0)
    scale = (x.amax(-1, keepdim=True).clamp_(min=0) - low) / 255
    inverse = scale.clamp(min=_SMALLEST).reciprocal_()
    zero = (-low * inverse).round_()
    # No lower clamp: the minimum rounds to exactly minus the zero point, and so q to 0.
    q = (x * inverse).round_().add_(zero).clamp_(max=255)
    return q.to(torch.uint8), scale, zero


def quantize_signed(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 ``[..., features]`` as integers from -127 to 127, and scale ``[..., 1]``.

    The engine rounds queries, keys and values in this way: it multiplies by the inverse scale.
    """
    scale = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)) / 127
    return (x * scale.clamp(min=_SMALLEST).reciprocal_()).round_(), scale


def quantize_weight(weight: Tensor, small_pairs: bool = False) -> tuple[Tensor, Tensor]:
    """float32 ``[..., columns]`` as `sparsebert.quantized.quantize_rows` packs it, q in float32."""
    if small_pairs:
        padded = functional.pad(weight, (0, -weight.shape[-1] % 4)) / 127
        high = torch.maximum(padded[..., ::2], padded[..., 1::2]).clamp_(min=0)
        low = torch.minimum(padded[..., ::2], padded[..., 1::2]).clamp_(max=0)
        most = high[..., ::2] + high[..., 1::2]
        least = low[..., ::2] + low[..., 1::2]
        largest = torch.maximum(most.amax(-1, keepdim=True), -least.amin(-1, keepdim=True))
        scale = largest.abs()
    else:
        largest = torch.maximum(weight.amax(-1, keepdim=True), -weight.amin(-1, keepdim=True))
        scale = largest.abs() / 127
    divisor = scale.masked_fill(scale == 0, torch.inf)
    return (weight / divisor).round_().clamp_(-127, 127), scale


class Int8Linear(Function):
    """y = W^ x^ + b for x [..., columns], ``weight`` [rows, columns], ``bias`` [rows] or None.

    ``small_pairs`` as for `quantize_weight`: False for a decoder, which is packed as a table.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, small_pairs: bool
    ) -> Tensor:
        ctx.gradient_dtype = _gradient_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            q, scale, zero = quantize_tokens(x.float().flatten(0, -2))
            w, weight_scale = quantize_weight(weight, small_pairs)
            w, weight_scale = w.to(torch.int8), weight_scale.T
            ctx.save_for_backward(q, scale, zero, w, weight_scale)
            y = integer_product(q, zero, w).mul_(scale * weight_scale)
            y = y if bias is None else y.add_(bias)
            return y.view(*x.shape[:-1], len(w))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, scale, zero, w, weight_scale = ctx.saved_tensors
        dtype = ctx.gradient_dtype
        dy = gradient.flatten(0, -2)
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = ((dy * weight_scale).to(dtype) @ w.to(dtype)).float()
            dx = dx.view(*gradient.shape[:-1], w.shape[1])
        if ctx.needs_input_grad[1]:
            centred = q.to(dtype).sub_(zero.to(dtype))
            dw = ((dy * scale).to(dtype).T @ centred).float()
        if ctx.needs_input_grad[2]:
            db = dy.sum(0)
        return dx, dw, db, None


class Int8Rows(Function):
    """Rows of a table ``[..., columns]``, each rounded to int8 with its own scale."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        q, scale = quantize_weight(rows)
        return q.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class SignedRows(Function):
    """Queries or keys ``[..., size]``, rounded as for the products in attention."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            q, scale = quantize_signed(rows.float())
            return q.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class QuickGelu(Function):
    """The engine's GELU, x (1/2 + c P(c^2)) with c = clamp(x, -4, 4), and exact GELU's gradient."""

    COEFFICIENTS = (
        2.258821048e-8,
        -1.588827278e-6,
        4.776389039e-5,
        -8.121875197e-4,
        8.763691277e-3,
        -6.455441303e-2,
        3.978702671e-1,
    )

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x = x.contiguous()
        y = torch.empty_like(x)
        step = max(1, _CHUNK // x.shape[-1])
        flat, into = x.flatten(0, -2), y.flatten(0, -2)
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            c = part.clamp(-4, 4)
            square = c * c
            p = torch.full_like(c, QuickGelu.COEFFICIENTS[0])
            for coefficient in QuickGelu.COEFFICIENTS[1:]:
                p.mul_(square).add_(coefficient)
            torch.mul(part, p.mul_(c).add_(0.5), out=into[start : start + step])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx: Tensor = torch.ops.aten.gelu_backward(gradient, x)
        return dx


def quick_exp2(x: Tensor) -> Tensor:
    """2^x for x <= 0 by the engine's polynomial (relative error 8e-6); ``x`` is overwritten."""
    whole = x.clamp_(min=-126).round()
    fraction = x.sub_(whole)
    p = torch.full_like(x, 9.670788948e-3)
    for coefficient in (5.587568397e-2, 2.402221131e-1, 6.931272467e-1, 1.0):
        p.mul_(fraction).add_(coefficient)
    return p.mul_(whole.exp2_())


class Int8Attention(Function):
    """Softmax attention of ``query``, ``key``, ``value`` float32 ``[batch, heads, tokens, size]``.

    With q, k, v the rounded rows, s_q, s_k, s_v their scales and m_i the maximum of row i:

        S_ij = scale s_q s_k q_i k_j + b_ij
        p_ij = exp(S_ij + ln s_v - m_i),   P = round(255 p),   N_i = sum_j p_ij / s_v
        C_i  = sum_j P_ij v_j / (255 N_i)

    ``allowed`` is bool, broadcast to ``[batch, heads, tokens, tokens]``, or None: p is 0 where it
    is False. ``bias``, b, is float32 ``[batch or 1, heads, tokens, tokens]`` or None, ``scale``
    1 / sqrt(size) if None. ``dropout`` is the share of P that is dropped, drawn from ``seed``. In
    the backward pass, with the attention weights a = p / (s_v N) and v^ = s_v v:

        dv^_j = sum_i P_ij / (255 s_v N_i) dC_i,   dS_ij = a_ij (dC_i v^_j - dC_i C_i)

    dS is passed on to q^ and k^ as in any product, and to b unchanged. p is recomputed there rather
    than stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None,
        bias: Tensor | None,
        dropout: float,
        seed: int,
        scale: float | None = None,
    ) -> Tensor:
        ctx.gradient_dtype = _gradient_dtype(query)
        ctx.dropout, ctx.seed = dropout, seed
        ctx.scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        with torch.autocast(query.device.type, enabled=False):
            heads = [quantize_signed(each.float()) for each in (query, key, value)]
            context = torch.empty_like(heads[0][0])
            for rows in _row_chunks(query.shape):
                chosen = [(q[rows], s[rows]) for q, s in heads]
                part = _AttentionRows(chosen, _at(allowed, rows), _at(bias, rows), ctx.scale)
                dropped = part.drop(part.rounded(), dropout, seed + rows.start)
                torch.mul(dropped @ part.values, part.factor, out=context[rows])
        ctx.save_for_backward(
            *(q.to(torch.int8) for q, _ in heads), *(s for _, s in heads), context, allowed, bias
        )
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *scales, context, allowed, bias = ctx.saved_tensors
        whole, dtype = (q, k, v), ctx.gradient_dtype
        found = [torch.empty_like(context) for _ in whole]
        db = torch.zeros_like(bias) if ctx.needs_input_grad[4] else None
        for rows in _row_chunks(context.shape):
            heads = [(i[rows].float(), s[rows]) for i, s in zip(whole, scales, strict=True)]
            part = _AttentionRows(heads, _at(allowed, rows), _at(bias, rows), ctx.scale)
            dc = gradient[rows]
            (q_scale, k_scale, v_scale) = (scale for _, scale in heads)
            kept = part.drop(part.rounded(), ctx.dropout, ctx.seed + rows.start)
            dv = kept.mul_(part.factor).to(dtype).transpose(-1, -2) @ dc.to(dtype)
            torch.div(dv, v_scale.clamp(min=_SMALLEST_VALUE_SCALE), out=found[2][rows])
            da = (dc.to(dtype) @ (part.values * v_scale).to(dtype).transpose(-1, -2)).float()
            da = part.drop(da, ctx.dropout, ctx.seed + rows.start)
            ds = da.sub_((dc * context[rows]).sum(-1, keepdim=True)).mul_(part.softmax())
            if db is not None:
                into = _at(db, rows)
                into += ds if len(db) > 1 else ds.sum(0, keepdim=True)
            ds = ds.mul_(ctx.scale).to(dtype)
            found[0][rows] = ds @ (part.keys * k_scale).to(dtype)
            found[1][rows] = ds.transpose(-1, -2) @ (part.queries * q_scale).to(dtype)
        return *found, None, db, None, None, None


class _AttentionRows:
    """The forward pass of `Int8Attention` for some rows."""

    def __init__(
        self,
        heads: list[tuple[Tensor, Tensor]],
        allowed: Tensor | None,
        bias: Tensor | None,
        scale: float,
    ) -> None:
        (self.queries, q_scale), (self.keys, k_scale), (self.values, v_scale) = heads
        self.v_scale = v_scale.clamp(min=_SMALLEST_VALUE_SCALE).transpose(-1, -2)
        # The factor log2 e turns the exponential into powers of two.
        k_scale = k_scale.transpose(-1, -2) * (math.log2(math.e) * scale)
        scores = (self.queries @ self.keys.transpose(-1, -2)).mul_(q_scale).mul_(k_scale)
        if bias is not None:
            scores.add_(bias, alpha=math.log2(math.e))
        scores.add_(self.v_scale.log2())
        if allowed is not None:
            scores.masked_fill_(~allowed, -torch.inf)
        self.powers = quick_exp2(scores.sub_(scores.amax(-1, keepdim=True)))
        if allowed is not None:
            self.powers.masked_fill_(~allowed, 0)  # the polynomial never gets below 2^-126
        self.total = self.powers @ self.v_scale.reciprocal().transpose(-1, -2)
        self.factor = (self.total * 255).reciprocal_()

    def rounded(self) -> Tensor:
        """P."""
        return (self.powers * 255).round_()

    def softmax(self) -> Tensor:
        """The attention weights a, which overwrite the powers."""
        return self.powers.div_(self.total).div_(self.v_scale)

    @staticmethod
    def drop(x: Tensor, share: float, seed: int) -> Tensor:
        """Dropout in place: set a ``share`` of ``x`` to 0 and scale up the rest."""
        if not share:
            return x
        generator = torch.Generator(x.device).manual_seed(seed)
        kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
        return x.mul_(kept).mul_(1 / (1 - share))


def integer_product(q: Tensor, zero: Tensor, w: Tensor) -> Tensor:
    """(q - zero) W^T, float32 ``[tokens, rows]``: uint8 ``q``, int8 ``w``, integers in ``zero``.

    Exact in both branches: in int32, and in float32 while sums stay below 2^24 (518 products of 127
    and 255, all of one sign; above that, float32 rounds as usual).
    """
    if q.device.type == "cpu" and _multiplies_int8_exactly():
        sums = torch._int_mm(q, w.T)
        return sums.sub_(zero.int() * w.sum(1, dtype=torch.int32)).float()
    return functional.linear(q.float().sub_(zero), w.float())


@cache
def _multiplies_int8_exactly() -> bool:
    """Whether torch's product of uint8 and int8, which is several times faster, is exact here.

    On CPUs without VNNI, sums of two products saturate at 2^15.
    """
    q = torch.full((16, 64), 255, dtype=torch.uint8)
    w = torch.full((16, 64), 127, dtype=torch.int8)
    try:
        return bool((torch._int_mm(q, w.T) == 64 * 255 * 127).all())
    except (AttributeError, RuntimeError):  # private: other versions may lack it or reject uint8
        return False


def _gradient_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32


def _row_chunks(shape: torch.Size) -> list[slice]:
    rows, heads, tokens, _ = shape
    step = max(1, _CHUNK // (heads * tokens * tokens))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _at(values: Tensor | None, rows: slice) -> Any:
    """The values of some rows; all of them if one row is broadcast to all."""
    return values[rows] if values is not None and len(values) > 1 else values
