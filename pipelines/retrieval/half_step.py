"""One half-step of alternating least squares that pulls every factor towards a prior instead of towards zero.

The prior is the factor a person's profile predicts, so somebody with three decisions is mostly profile and somebody
with three hundred mostly decisions. Conjugate gradients over blocks of people: no matrix per person is ever built,
and each block is solved alone, so the result does not depend on the number of threads.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float32]
_BLOCK_DECISIONS = 100_000
_BLOCK_PEOPLE = 20_000
_TINY = 1e-20
_CLOSE = 1e-11  # of the squared size of what is solved for: more is rounding
EXACT = 40
"""Steps after which a fold-in and a half-step agree to rounding."""


def half_step(
    matrix: sparse.csr_matrix,
    others: Floats,
    prior: Floats,
    start: Floats,
    *,
    regularization: float,
    steps: int,
    threads: int = 1,
    gram: Floats | None = None,
) -> Floats:
    """Return factors float32[m, d] of the matrix's m rows, with the factors of its columns held fixed.

    `matrix` holds signed confidences [m, n], `others` float32[n, d]; `prior` and `start` are float32[m, d]; `gram` is
    `gram_of(others)`, for callers who come with the same others again. Each row
    solves (Y'Y + sum (|c|-1) y y' + lambda I) x = sum_liked c y + lambda prior.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    out = np.array(start, dtype=np.float32)
    with threadpool_limits(limits=1, user_api="blas"):
        left = (gram_of(others) if gram is None else gram).copy()
        left[np.diag_indices_from(left)] += np.float32(regularization)

        def solve(block: slice) -> None:
            aim = np.float32(regularization) * prior[block]
            out[block] = _descend(matrix[block], others, left, aim, out[block], steps=steps)

        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(solve, _blocks(matrix.indptr)))
    return out


def gram_of(factors: Floats) -> Floats:
    """Return Y'Y, summed in double precision a block at a time: a million people in doubles take half a gigabyte."""
    total = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), _BLOCK_PEOPLE):
        part = factors[start : start + _BLOCK_PEOPLE].astype(np.float64)
        total += part.T @ part
    return total.astype(np.float32)


def _descend(
    matrix: sparse.csr_matrix, others: Floats, gram: Floats, aim: Floats, start: Floats, *, steps: int
) -> Floats:
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    met = others[matrix.indices]
    extra = np.abs(matrix.data) - np.float32(1.0)

    def weighted(values: Floats) -> Floats:
        sums = sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape) @ others
        return np.asarray(sums, dtype=np.float32)

    def applied(x: Floats) -> Floats:
        return np.asarray(x @ gram + weighted(np.einsum("nd,nd->n", met, x[row]) * extra), dtype=np.float32)

    x = start.copy()
    wanted = weighted(np.maximum(matrix.data, np.float32(0.0))) + aim
    close = np.float32(_CLOSE) * np.einsum("nd,nd->n", wanted, wanted)
    residual = wanted - applied(x)
    direction = residual.copy()
    size = np.einsum("nd,nd->n", residual, residual)
    for _ in range(steps):
        if not (size > close).any():
            break
        moved = applied(direction)
        stride = size / np.maximum(np.einsum("nd,nd->n", direction, moved), _TINY)
        x += stride[:, None] * direction
        residual -= stride[:, None] * moved
        left = np.einsum("nd,nd->n", residual, residual)
        direction = residual + (left / np.maximum(size, _TINY))[:, None] * direction
        size = left
    return x


def _blocks(indptr: npt.NDArray[np.int32]) -> list[slice]:
    """Cut the rows so that no block holds many people or many decisions."""
    blocks, first, last = [], 0, len(indptr) - 1
    while first < last:
        upto = int(np.searchsorted(indptr, indptr[first] + _BLOCK_DECISIONS, side="right")) - 1
        stop = min(max(upto, first + 1), first + _BLOCK_PEOPLE, last)
        blocks.append(slice(first, stop))
        first = stop
    return blocks
