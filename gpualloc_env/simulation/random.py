"""The environments' own random numbers: one xoshiro256++ generator per environment.

Generators are rows of a (B, 4) uint64 array, so that an environment draws the same numbers
alone and in a batch of any size. Source: Blackman and Vigna, "Scrambled linear pseudorandom
number generators", ACM TOMS 47(4), 2021, seeded by splitmix64 as they advise.
"""

from math import exp, floor, lgamma, log, log1p, pi, sqrt

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def seed_generator(generator: AnyArray, seed: np.uint64) -> None:
    """Fill one generator, (4,) uint64, from a seed."""
    counter = seed
    for word in range(4):
        counter += np.uint64(0x9E3779B97F4A7C15)
        mixed = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        generator[word] = mixed ^ (mixed >> np.uint64(31))


@inlined
def random_bits(generator: AnyArray) -> np.uint64:
    """The next 64 random bits of one generator."""
    first, second, third, fourth = generator[0], generator[1], generator[2], generator[3]
    total = first + fourth
    bits = ((total << np.uint64(23)) | (total >> np.uint64(41))) + first
    shifted = second << np.uint64(17)
    third ^= first
    fourth ^= second
    generator[1] = second ^ third
    generator[0] = first ^ fourth
    generator[2] = third ^ shifted
    generator[3] = (fourth << np.uint64(45)) | (fourth >> np.uint64(19))
    return bits


@compiled
def uniform(generator: AnyArray) -> float:
    """The next number of one generator, uniform in (0, 1), in steps of 2⁻⁵³."""
    # Half a step above zero keeps the logarithm of an exponential draw finite.
    return (float(random_bits(generator) >> np.uint64(11)) + 0.5) * 2.0**-53


@compiled
def exponential(generator: AnyArray, mean: float) -> float:
    """An exponentially distributed number of the given mean."""
    return -mean * log(uniform(generator))


@compiled
def poisson_quantile(probability: float, mean: float) -> float:
    """The smallest k with P(X ≤ k) ≥ `probability` for a Poisson X: inversion of its distribution.

    One uniform number gives one count, which never falls when the mean rises, so two loads
    can share their randomness. O(√mean) above a mean of 81, O(mean) below.
    """
    if mean <= 0.0:
        return 0.0
    count = _lowest(mean)
    mass = _mass(count, mean)
    cumulative = mass
    # Rounding can leave the sum of all masses just short of a probability close to one.
    while cumulative < probability and (mass > 1e-20 or count < mean):
        count += 1.0
        mass *= mean / count
        cumulative += mass
    return count


@inlined
def tabulate_poisson(mean: float, table: Array) -> int:
    """Write P(X ≤ k) for k = 0, 1, …, summed as `poisson_quantile` sums them, for many draws of one mean.

    Returns:
        How many it has written: all but one in a thousand draws need no more.
    """
    mass = exp(-mean)
    cumulative = mass if _lowest(mean) == 0.0 else 0.0  # zeros send every draw to `poisson_quantile`
    for k in range(table.shape[0]):
        if k > 0:
            mass *= mean / k
            cumulative += mass if cumulative > 0.0 else 0.0
        table[k] = cumulative
        # Eight are compared at once.
        if k % 8 == 7 and cumulative > 0.999:
            return k + 1
    return table.shape[0]


@inlined
def tabulated_quantile(probability: float, mean: float, table: AnyArray) -> float:
    """`poisson_quantile`, bit for bit, by a look into the table of its mean."""
    below = 0
    for k in range(table.shape[0]):
        below += 1 if table[k] < probability else 0
    return float(below) if below < table.shape[0] else poisson_quantile(probability, mean)


@inlined
def _lowest(mean: float) -> float:
    """A count below which less than 1e-17 of the probability lies: nine standard deviations down."""
    return max(0.0, floor(mean - 9.0 * sqrt(mean)))


@inlined
def _mass(count: float, mean: float) -> float:
    """P(X = count)."""
    if count == 0.0:
        return exp(-mean)
    if count < 16.0:
        return exp(count * log(mean) - mean - lgamma(count + 1.0))
    # Loader's saddle-point form: the logarithm of a factorial is too coarse where the mean is large.
    inverse = 1.0 / (count * count)
    stirling = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - inverse / 1680.0) * inverse) * inverse) / count
    excess = (mean - count) / count
    return exp(count * (log1p(excess) - excess) - stirling) / sqrt(2.0 * pi * count)
