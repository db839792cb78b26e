"""The layer as the system that Kasmina replaces designed it: one Triton program for each row and seed, loads
through pointers, blocks of the next power of two of the chunk, six floats of raw telemetry stored by every
program, and parameter gradients added up with atomics.

What that system then still had to do, reducing the raw telemetry over the rows, is not done here.
"""

import triton
import triton.language as tl

DORMANT: tl.constexpr = tl.constexpr(0)
RESIDUAL: tl.constexpr = tl.constexpr(1)
EXPANSION: tl.constexpr = tl.constexpr(2)
# As in layer.py, whose values a kernel cannot take.
EPSILON: tl.constexpr = tl.constexpr(1e-8)
LIMIT: tl.constexpr = tl.constexpr(1e6)
DEAD: tl.constexpr = tl.constexpr(1e-8)

# Floats that a program stores: n, mean, M2, min, max, dead forward; n, mean, M2, max|g| backward.
TELEMETRY: tl.constexpr = tl.constexpr(6)
GRADIENT_TELEMETRY: tl.constexpr = tl.constexpr(4)


@triton.jit
def is_finite(x):
    # False for NaN, too.
    return tl.abs(x) < float("inf")


@triton.jit
def moments(x, finite):
    """Of one row of a chunk: n, mean and M2 of what is finite."""
    n = tl.sum(finite.to(tl.float32), axis=0)
    mean = tl.sum(tl.where(finite, x, 0.0), axis=0) / tl.maximum(n, 1.0)
    deviation = tl.where(finite, x - mean, 0.0)
    return n, mean, tl.sum(deviation * deviation, axis=0)


@triton.jit
def sanitize(x):
    """Guarded x, and where its gradient passes."""
    known = tl.where(x == x, x, 0.0)
    flushed = tl.where(tl.abs(known) < EPSILON, 0.0, known)
    value = tl.minimum(tl.maximum(flushed, -LIMIT), LIMIT)
    return value, is_finite(x) & (value == flushed)


@triton.jit
def forward(
    x_ptr, y_ptr, raw_ptr, weight_ptr, scale_ptr, alpha_ptr,
    seeds, chunk, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program // seeds
    seed = program % seeds
    lane = tl.arange(0, BLOCK)
    mask = lane < chunk
    column = seed * chunk + lane
    at = row.to(tl.int64) * seeds * chunk + column
    stored = tl.load(x_ptr + at, mask=mask, other=0.0)
    x = stored.to(tl.float32)

    finite = is_finite(x) & mask
    n, mean, m2 = moments(x, finite)
    raw = raw_ptr + program.to(tl.int64) * TELEMETRY
    tl.store(raw, n)
    tl.store(raw + 1, mean)
    tl.store(raw + 2, m2)
    tl.store(raw + 3, tl.min(tl.where(finite, x, float("inf")), axis=0))
    tl.store(raw + 4, tl.max(tl.where(finite, x, -float("inf")), axis=0))
    tl.store(raw + 5, tl.sum(((tl.abs(x) <= DEAD) & mask).to(tl.float32), axis=0))

    if KIND == DORMANT:
        tl.store(y_ptr + at, stored, mask=mask)
    else:
        weight = tl.load(weight_ptr + column, mask=mask, other=0.0)
        scale = tl.load(scale_ptr + seed)
        alpha = tl.load(alpha_ptr + seed)
        guarded, _ = sanitize(x)
        if KIND == RESIDUAL:
            transformed = guarded + scale * weight
        else:
            transformed = scale * tl.maximum(guarded * weight, 0.0)
        y = alpha * transformed + (1.0 - alpha) * guarded
        y = tl.minimum(tl.maximum(y, -LIMIT), LIMIT)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def backward_expansion(
    x_ptr, g_ptr, grad_x_ptr, raw_ptr, weight_ptr, scale_ptr, alpha_ptr,
    grad_weight_ptr, grad_scale_ptr, grad_alpha_ptr,
    seeds, chunk, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program // seeds
    seed = program % seeds
    lane = tl.arange(0, BLOCK)
    mask = lane < chunk
    column = seed * chunk + lane
    at = row.to(tl.int64) * seeds * chunk + column
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(g_ptr + at, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=mask, other=0.0)
    scale = tl.load(scale_ptr + seed)
    alpha = tl.load(alpha_ptr + seed)

    finite = is_finite(g) & mask
    n, mean, m2 = moments(g, finite)
    raw = raw_ptr + program.to(tl.int64) * GRADIENT_TELEMETRY
    tl.store(raw, n)
    tl.store(raw + 1, mean)
    tl.store(raw + 2, m2)
    tl.store(raw + 3, tl.max(tl.where(finite, tl.abs(g), 0.0), axis=0))

    guarded, passes = sanitize(x)
    product = guarded * weight
    on = product > 0.0
    transformed = tl.where(on, scale * product, 0.0)
    y = alpha * transformed + (1.0 - alpha) * guarded
    through = tl.where(tl.abs(y) <= LIMIT, g, 0.0)
    branch = tl.where(on, alpha * through, 0.0)
    grad_x = tl.where(passes, branch * scale * weight + (1.0 - alpha) * through, 0.0)
    tl.store(grad_x_ptr + at, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)

    # Relaxed: nothing is ordered by these sums, and a stronger order costs.
    tl.atomic_add(grad_weight_ptr + column, scale * branch * guarded, mask=mask, sem="relaxed")
    tl.atomic_add(grad_scale_ptr + seed, tl.sum(branch * product, axis=0), sem="relaxed")
    by_alpha = tl.sum(through * (transformed - guarded), axis=0)
    tl.atomic_add(grad_alpha_ptr + seed, by_alpha, sem="relaxed")
