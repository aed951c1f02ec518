"""Triton kernels of shifted-window attention, called by `extract.kernels.window_attention`.

Queries, keys and values are read token by token from where the projection wrote them, and results are written
back there. Padding, roll, partition, normalisation, position bias and shift mask cost no pass over memory of
their own.

Letters in tensor names: T tokens of a window, of which I are queries at a time and J keys, D channels of a
head.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
"""Logits come times log2(e), and softmax is computed with powers of two, as the hardware does."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Python, on a CPU."""


@triton.jit
def attend_small(
    qkv,
    mixed,
    table,
    factors,
    qkv_bias,
    gather,
    regions,
    first_window,
    images,
    length,
    HEADS: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    SPLIT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    MORE_KEYS: tl.constexpr,
    MASKED: tl.constexpr,
    SMALLEST_NORM: tl.constexpr,
):
    """One head of one window: keys and values stay in one tile or two for all its queries."""
    tokens: tl.constexpr = HIGH * WIDE
    channels: tl.constexpr = HEADS * CHANNELS
    program = tl.program_id(0)
    head = program % HEADS  # heads that lie side by side in memory run side by side
    image = (program // HEADS % images).to(tl.int64)
    window = first_window + program // HEADS // images
    rows, out, table, qkv_bias, gather, regions = _at(
        qkv, mixed, table, qkv_bias, gather, regions, window, image, head, length, HEADS, HIGH, WIDE, CHANNELS
    )
    query_factor, key_factor = _factors(factors, head, HEADS)

    j = tl.arange(0, KEYS)
    k_JD, v_JD = _keys_and_values(
        rows, qkv_bias, gather, length, j, key_factor, tokens, channels, CHANNELS, PADDED, SMALLEST_NORM
    )
    if MORE_KEYS:
        more_j = KEYS + tl.arange(0, MORE_KEYS)
        more_k_JD, more_v_JD = _keys_and_values(
            rows,
            qkv_bias,
            gather,
            length,
            more_j,
            key_factor,
            tokens,
            channels,
            CHANNELS,
            PADDED,
            SMALLEST_NORM,
        )
    for start in range(0, tokens, QUERIES):
        i = start + tl.arange(0, QUERIES)
        place_I = _places(gather, i, length, tokens)
        q_ID = _normalised(_rows(rows, place_I, length, channels, CHANNELS), query_factor, SMALLEST_NORM)
        logits = _logits(q_ID, k_JD, table, regions, i, j, HIGH, WIDE, SPLIT, QUERIES, KEYS, MASKED)
        largest = tl.max(logits, 1)
        if MORE_KEYS:
            both: tl.constexpr = KEYS + MORE_KEYS
            more_logits = _logits(
                q_ID, more_k_JD, table, regions, i, more_j, HIGH, WIDE, SPLIT, QUERIES, both, MASKED
            )
            largest = tl.maximum(largest, tl.max(more_logits, 1))
        p = tl.exp2(logits - largest[:, None])
        total = tl.sum(p, 1)
        mixed_ID = tl.dot(p.to(v_JD.dtype), v_JD)
        if MORE_KEYS:
            p = tl.exp2(more_logits - largest[:, None])
            total += tl.sum(p, 1)
            mixed_ID = tl.dot(p.to(v_JD.dtype), more_v_JD, mixed_ID)
        _store(out, place_I, length, mixed_ID / total[:, None], channels, CHANNELS)


@triton.jit
def attend_large(
    qkv,
    mixed,
    table,
    factors,
    qkv_bias,
    gather,
    regions,
    first_window,
    images,
    length,
    HEADS: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    SPLIT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    MASKED: tl.constexpr,
    SMALLEST_NORM: tl.constexpr,
):
    """Some queries of one head of one window: keys and values are streamed, tile by tile."""
    tokens: tl.constexpr = HIGH * WIDE
    channels: tl.constexpr = HEADS * CHANNELS
    parts: tl.constexpr = (tokens + QUERIES - 1) // QUERIES
    program = tl.program_id(0)
    i = program % parts * QUERIES + tl.arange(0, QUERIES)  # parts that share their keys run side by side
    head = program // parts % HEADS
    image = (program // parts // HEADS % images).to(tl.int64)
    window = first_window + program // parts // HEADS // images
    rows, out, table, qkv_bias, gather, regions = _at(
        qkv, mixed, table, qkv_bias, gather, regions, window, image, head, length, HEADS, HIGH, WIDE, CHANNELS
    )
    query_factor, key_factor = _factors(factors, head, HEADS)

    place_I = _places(gather, i, length, tokens)
    q_ID = _normalised(_rows(rows, place_I, length, channels, CHANNELS), query_factor, SMALLEST_NORM)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed_ID = tl.zeros((QUERIES, CHANNELS), tl.float32)
    for start in range(0, tokens, KEYS):
        j = start + tl.arange(0, KEYS)
        k_JD, v_JD = _keys_and_values(
            rows, qkv_bias, gather, length, j, key_factor, tokens, channels, CHANNELS, PADDED, SMALLEST_NORM
        )
        logits = _logits(q_ID, k_JD, table, regions, i, j, HIGH, WIDE, SPLIT, QUERIES, KEYS, MASKED)
        before = largest
        largest = tl.maximum(largest, tl.max(logits, 1))
        p = tl.exp2(logits - largest[:, None])
        shrink = tl.exp2(before - largest)
        total = total * shrink + tl.sum(p, 1)
        mixed_ID = tl.dot(p.to(v_JD.dtype), v_JD, mixed_ID * shrink[:, None])
    _store(out, place_I, length, mixed_ID / total[:, None], channels, CHANNELS)


@triton.jit
def _at(
    qkv,
    mixed,
    table,
    qkv_bias,
    gather,
    regions,
    window,
    image,
    head,
    length,
    HEADS: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Where a head of a window of an image begins in each of the first six."""
    channels: tl.constexpr = HEADS * CHANNELS
    first_token, first_channel = window * (HIGH * WIDE), head * CHANNELS
    return (
        qkv + image * length * (3 * channels) + first_channel,
        mixed + image * length * channels + first_channel,
        table + head * ((2 * HIGH - 1) * (2 * WIDE - 1)),
        qkv_bias + first_channel,
        gather + first_token,
        regions + first_token,
    )


@triton.jit
def _factors(factors, head, HEADS: tl.constexpr):
    """What normalised queries, whose logits are powers of two, and normalised keys are multiplied by."""
    return tl.load(factors + head) * LOG2_E, tl.load(factors + HEADS + head)


@triton.jit
def _logits(
    q_ID,
    k_JD,
    table,
    regions,
    i,
    j,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLIT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """With position bias and shift mask, times log2(e); -inf beyond the window.

    Args: KEYS: the tiles up to and with this one hold so many, or a multiple of them.
    """
    tokens: tl.constexpr = HIGH * WIDE
    if tokens % QUERIES:
        i = tl.minimum(i, tokens - 1)
    inside_J = j < tokens
    if tokens % KEYS:
        j = tl.minimum(j, tokens - 1)
    # `extract.swin.position_bias.offset_index`, apart into what follows from the query and from the key.
    row: tl.constexpr = 2 * WIDE - 1
    table_I = table + (i // WIDE * row + i % WIDE + (HIGH - 1) * row + WIDE - 1)
    j_offset = j // WIDE * row + j % WIDE
    if INTERPRETED:
        bias_IJ = tl.load(table_I[:, None] - j_offset[None, :])
    else:
        # Read where the product needs them. Triton would read them in another order and send them through
        # shared memory, which takes longer than everything else here.
        bias_IJ = tl.inline_asm_elementwise(
            "{ .reg .b64 at; mad.wide.s32 at, $2, -4, $1; ld.global.nc.f32 $0, [at]; }",
            "=f,l,r",
            [table_I.to(tl.int64)[:, None], j_offset[None, :]],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    logits = tl.dot(q_ID, tl.trans(k_JD)) + bias_IJ
    if SPLIT:
        apart_IJ = tl.load(regions + i)[:, None] != tl.load(regions + j)[None, :]
        logits = tl.where(apart_IJ, logits + MASKED * LOG2_E, logits)
    if tokens % KEYS:
        logits = tl.where(inside_J[None, :], logits, float("-inf"))
    return logits


@triton.jit
def _keys_and_values(
    rows,
    qkv_bias,
    gather,
    length,
    j,
    factor,
    tokens: tl.constexpr,
    channels: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    SMALLEST_NORM: tl.constexpr,
):
    """Normalised keys and the values. A padding token has what a projection makes of zeros: its bias."""
    place_J = _places(gather, j, length, tokens)
    k_JD = _rows(rows + channels, place_J, length, channels, CHANNELS)
    v_JD = _rows(rows + 2 * channels, place_J, length, channels, CHANNELS)
    if PADDED:
        d = tl.arange(0, CHANNELS)
        padding_JD = ((place_J >= length) & (j < tokens))[:, None]
        k_JD = tl.where(padding_JD, tl.load(qkv_bias + channels + d)[None, :], k_JD)
        v_JD = tl.where(padding_JD, tl.load(qkv_bias + 2 * channels + d)[None, :], v_JD)
    return _normalised(k_JD, factor, SMALLEST_NORM), v_JD


@triton.jit
def _places(gather, t, length, tokens: tl.constexpr):
    """int32: where tokens of the window stand in the map; `length` for padding and beyond the window."""
    return tl.load(gather + t, mask=t < tokens, other=length).to(tl.int32)


@triton.jit
def _rows(rows, place_T, length, channels: tl.constexpr, CHANNELS: tl.constexpr):
    """(T, D) of a map of 3 x channels; zeros for padding."""
    at = place_T[:, None] * (3 * channels) + tl.arange(0, CHANNELS)[None, :]
    return tl.load(rows + at, mask=(place_T < length)[:, None], other=0.0)


@triton.jit
def _store(out, place_I, length, mixed_ID, channels: tl.constexpr, CHANNELS: tl.constexpr):
    at = place_I[:, None] * channels + tl.arange(0, CHANNELS)[None, :]
    tl.store(out + at, mixed_ID.to(out.dtype.element_ty), mask=(place_I < length)[:, None])


@triton.jit
def _normalised(x_TD, factor, SMALLEST_NORM: tl.constexpr):
    """In float32: in float16 the smallest norm would be 0, and a square may overflow."""
    x = x_TD.to(tl.float32)
    norm_T = tl.maximum(tl.sqrt(tl.sum(x * x, 1)), SMALLEST_NORM)
    return (x * (factor / norm_T)[:, None]).to(x_TD.dtype)
