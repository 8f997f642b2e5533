"""The environments' own random numbers: one xoshiro256++ generator per environment.

Generators are rows of a (B, 4) uint64 array, so that an environment draws the same numbers
alone and in a batch of any size. Source: Blackman and Vigna, "Scrambled linear pseudorandom
number generators", ACM TOMS 47(4), 2021, seeded by splitmix64 as they advise.
"""

from math import exp, floor, lgamma, log

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.state import AnyArray


@compiled
def seed_generator(generator: AnyArray, seed: int) -> None:
    """Fill one generator, (4,) uint64, from an integer seed."""
    counter = np.uint64(seed)
    for word in range(4):
        counter += np.uint64(0x9E3779B97F4A7C15)
        mixed = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        generator[word] = mixed ^ (mixed >> np.uint64(31))


@compiled
def uniform(generator: AnyArray) -> float:
    """The next number of one generator, uniform in (0, 1), in steps of 2⁻⁵³."""
    first, second, third, fourth = generator[0], generator[1], generator[2], generator[3]
    total = first + fourth
    result = ((total << np.uint64(23)) | (total >> np.uint64(41))) + first
    shifted = second << np.uint64(17)
    third ^= first
    fourth ^= second
    second ^= third
    first ^= fourth
    third ^= shifted
    fourth = (fourth << np.uint64(45)) | (fourth >> np.uint64(19))
    generator[0], generator[1], generator[2], generator[3] = first, second, third, fourth
    # Half a step above zero keeps the logarithm of an exponential draw finite.
    return (float(result >> np.uint64(11)) + 0.5) * 2.0**-53


@compiled
def exponential(generator: AnyArray, mean: float) -> float:
    """An exponentially distributed number of the given mean."""
    return -mean * log(uniform(generator))


@compiled
def poisson_quantile(probability: float, mean: float, cache: AnyArray, i: int) -> float:
    """The smallest k with P(X ≤ k) ≥ `probability` for a Poisson X: inversion of its distribution.

    One uniform number gives one count, which never falls when the mean rises, so two loads
    can share their randomness. The search starts at the mode, O(√mean); column i of `cache`,
    (4, N), keeps the distribution there for the next draw of the same mean. It must start as NaN.
    """
    if mean <= 0.0:
        return 0.0
    if cache[0, i] != mean:
        _cache_mode(mean, cache, i)
    count, mass, cumulative = cache[1, i], cache[2, i], cache[3, i]
    if probability <= cumulative:
        inverse = 1.0 / mean
        while count > 0.0 and cumulative - mass >= probability:
            cumulative -= mass
            mass *= count * inverse
            count -= 1.0
        return count
    # Rounding can leave the sum of all masses just short of a probability close to one.
    while cumulative < probability and mass > 1e-20:
        count += 1.0
        mass *= mean / count
        cumulative += mass
    return count


@compiled
def _cache_mode(mean: float, cache: AnyArray, i: int) -> None:
    """Keep the mean, its mode m, P(X = m) and P(X ≤ m)."""
    mode = floor(mean)
    count = mode
    if mean < 16.0:
        largest = exp(-mean)
        for k in range(1, int(mode) + 1):
            largest *= mean / k
    else:
        largest = exp(mode * log(mean) - mean - lgamma(mode + 1.0))
    mass = largest
    cumulative = largest
    while count > 0.0 and mass > 1e-20:
        mass *= count / mean
        cumulative += mass
        count -= 1.0
    cache[0, i], cache[1, i], cache[2, i], cache[3, i] = mean, mode, largest, cumulative
