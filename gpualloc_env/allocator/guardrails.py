"""What an allocator holds its input and its decision against, row by row in one compiled pass."""

import math

from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.observation import Packed, encode_packed
from gpualloc_env.simulation.state import AnyArray

TOLERANCE = 1e-6  # of shares that are rounded
SOUND, NOT_FINITE, OUT_OF_RANGE, BAD_DECISION = 0, 1, 2, 3


@compiled
def check_observation(observation: AnyArray, problems: AnyArray) -> int:
    """Note in (B,) problems which observations, (B, N, F), are not finite or not in [0, 1].

    A problem that is noted already, of the view behind the observation, stays.

    Returns:
        How many observations have a problem.
    """
    count = 0
    for b in range(observation.shape[0]):
        if problems[b] != SOUND:
            count += 1
            continue
        for i in range(observation.shape[1]):
            for k in range(observation.shape[2]):
                value = observation[b, i, k]
                if not 0.0 <= value <= 1.0 and problems[b] != NOT_FINITE:
                    problems[b] = OUT_OF_RANGE if math.isfinite(value) else NOT_FINITE
        count += problems[b] != SOUND
    return count


@compiled
def check_view(packed: Packed, problems: AnyArray) -> None:
    """Note in (B,) problems which of a packed view's rows hold numbers that are not finite or negative.

    Throughput, priority, service objective, dt and G must be above 0; a model that is never unloaded
    is kept alive for an infinite time. Shares, which are in GPUs, must not exceed what one agent can
    hold, nor G in sum. The observation cannot tell: it shows a share that is no number as a whole one.
    """
    platform = packed.settings[0]
    common = _worse(_problem(platform.dt, True), _problem(platform.gpus, True))
    common = _worse(common, _problem(platform.max_share, False))
    common = _worse(common, _problem(platform.slice, False))
    common = _worse(common, _problem(platform.reallocation_s, False))
    common = _worse(common, _problem(platform.deadband, False))
    if platform.keep_alive_s != math.inf:
        common = _worse(common, _problem(platform.keep_alive_s, False))
    for b in range(packed.state.shape[0]):
        worst, held = common, 0.0
        for i in range(packed.state.shape[1]):
            now, agent = packed.state[b, i], packed.agents[b, i]
            worst = _worse(worst, _problem(now.queue, False))
            worst = _worse(worst, _problem(now.inflow, False))
            worst = _worse(worst, _problem(now.rate, False))
            worst = _worse(worst, _problem(now.share, False))
            held += now.share
            if now.share > min(platform.max_share, platform.gpus) * (1.0 + TOLERANCE):
                worst = _worse(worst, OUT_OF_RANGE)
            worst = _worse(worst, _problem(now.idle, False))
            worst = _worse(worst, _problem(now.loading, False))
            worst = _worse(worst, _problem(now.oldest_age, False))
            worst = _worse(worst, _problem(agent.throughput, True))
            worst = _worse(worst, _problem(agent.kappa, False))
            worst = _worse(worst, _problem(agent.min_share, False))
            worst = _worse(worst, _problem(agent.priority, True))
            worst = _worse(worst, _problem(agent.cold_start, False))
            worst = _worse(worst, _problem(agent.slo, True))
        if held > platform.gpus * (1.0 + TOLERANCE):
            worst = _worse(worst, OUT_OF_RANGE)
        problems[b] = worst


@compiled
def encode_checked(packed: Packed, observation: AnyArray, problems: AnyArray) -> int:
    """Write the observations of a packed view, (B, N, F), and note the problems of either, (B,).

    Returns:
        How many rows have a problem.
    """
    encode_packed(packed, observation)
    check_view(packed, problems)
    return check_observation(observation, problems)


@compiled
def enforce(shares: AnyArray, min_shares: AnyArray, problems: AnyArray) -> int:
    """Clip shares, (B, N), to [0, 1], hold minimum shares, (N,), and scale to the capacity, in place.

    An agent below its minimum is raised to it; what the others hold above theirs is scaled down
    where the capacity requires it. Rows that are not finite are noted in (B,) problems.

    Returns:
        How many rows have a problem, of these or of those noted before.
    """
    count = 0
    for b in range(shares.shape[0]):
        row, least, above, finite = shares[b], 0.0, 0.0, True
        for i in range(row.shape[0]):
            finite = finite and math.isfinite(row[i])
            row[i] = max(min_shares[i], min(1.0, row[i]))
            least += min_shares[i]
            above += row[i] - min_shares[i]
        if not finite and problems[b] == SOUND:
            problems[b] = BAD_DECISION
        count += problems[b] != SOUND
        if least + above > 1.0:
            scale = max(0.0, 1.0 - least) / above if above > 0.0 else 0.0
            for i in range(row.shape[0]):
                row[i] = min_shares[i] + (row[i] - min_shares[i]) * scale
    return count


@compiled
def _problem(value: float, positive: bool) -> int:
    if not math.isfinite(value):
        return NOT_FINITE
    return OUT_OF_RANGE if value < 0.0 or (positive and value == 0.0) else SOUND


@compiled
def _worse(one: int, other: int) -> int:
    """Of two problems the one to tell of: not being a number comes first."""
    if one == SOUND or other == NOT_FINITE:
        return other
    return one
