"""What is possible at best in small markets: the linear programme itself, and the equilibrium with transfers."""

import numpy as np
import numpy.typing as npt

from pipelines.retrieval.exposure.errors import UnsolvedMarket

Floats = npt.NDArray[np.float64]


def best_exposure(match_probability: Floats, capacity: Floats, k: int) -> tuple[Floats, float]:
    """Return the optimal exposure float64[m, n] of the linear programme in `prices`, and its expected matches.

    `match_probability` float64[m, n] is zero where a pair does not fit. Dense: for markets of some hundred people.

    Raises:
        UnsolvedMarket: the solver gave up.

    """
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    m, n = match_probability.shape
    of_requester = kron(eye_array(m), np.ones((1, n)))
    of_person = kron(np.ones((1, m)), eye_array(n))
    found = linprog(  # type: ignore[call-overload]  # the stubs know dense constraints only
        -match_probability.ravel(),
        A_ub=vstack([of_requester, of_person], format="csr"),
        b_ub=np.concatenate([np.full(m, float(k)), capacity]),
        bounds=(0.0, 1.0),
        method="highs",
    )
    if found.x is None:
        raise UnsolvedMarket(f"The market of {m} x {n} people was not solved: {found.message}")
    return found.x.reshape(m, n), float(-found.fun)


def transferable_utility_matching(
    surplus: Floats, *, scale: float, sizes: tuple[Floats, Floats] | None = None, rounds: int = 500
) -> Floats:
    """Return how often each pair forms in the equilibrium with transferable utility, float64[m, n].

    The model of Choo and Siow (2006), solved by iterated proportional fitting (Galichon and Salanie 2022); as a
    recommender: show by these numbers, which know that everybody can be matched only so often (Tomita et al. 2022).

    Args:
        surplus: float64[m, n], the joint utility of each pair; minus infinity where a pair does not fit.
        scale: of the unobserved taste; the smaller, the sharper.
        sizes: how many partners each person of the first and of the second side takes at most; default one.
        rounds: of the fixed point; it contracts.

    """
    first, second = sizes or (np.ones(surplus.shape[0]), np.ones(surplus.shape[1]))
    kernel = np.exp(surplus / (2.0 * scale))
    alone_first, alone_second = np.ones(surplus.shape[0]), np.ones(surplus.shape[1])
    for _ in range(rounds):
        half = kernel @ alone_second / 2.0
        alone_first = np.sqrt(half * half + first) - half
        half = alone_first @ kernel / 2.0
        alone_second = np.sqrt(half * half + second) - half
    return np.asarray(alone_first[:, None] * kernel * alone_second[None, :])
