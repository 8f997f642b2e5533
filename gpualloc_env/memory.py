"""Whether the arrays of a batch fit into the memory of this machine."""

import os

import numpy as np

from gpualloc_env.scenario.scenario import Scenario, ScenarioError
from gpualloc_env.simulation.calls import BYTES_PER_CALL, BYTES_PER_PLACE, BYTES_PER_TASK, LEDGER, SERVER
from gpualloc_env.simulation.placement import INSTANCE_ROW
from gpualloc_env.simulation.residency import INSTANCE
from gpualloc_env.simulation.state import AGENT, OBSERVATION, OUTCOME, STATE


def check_memory(scenario: Scenario, num_envs: int, *, record: bool) -> None:
    """Refuse a batch that no memory of this machine can hold, before anything is allocated.

    Raises:
        ValueError: `num_envs` is no whole number of at least 1.
        ScenarioError: it needs more than the machine has; the message names what to lower.
    """
    if not isinstance(num_envs, int | np.integer) or num_envs < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"num_envs must be a whole number of at least 1, got {num_envs!r}")
    needed, there = bytes_needed(scenario, num_envs, record=record), physical_memory()
    if there is None or needed <= there:
        return
    one, two = (bytes_needed(scenario, count, record=record) for count in (1, 2))
    most = 1 + (there - one) // (two - one)
    remedy = f"lower num_envs to {most}" if most >= 1 else "lower steps"
    agents = f" and {len(scenario.agents)} agents" if len(scenario.agents) > 1 else ""
    raise ScenarioError(
        f"scenario {scenario.name!r}: num_envs = {num_envs}, steps = {scenario.steps}{agents} need "
        f"{needed / 1e9:,.3g} GB of memory, and this machine has {there / 1e9:.3g} GB; {remedy}, or agents"
        + (", or record no episodes" if record and num_envs > 1 else "")
    )


def bytes_needed(scenario: Scenario, num_envs: int, *, record: bool) -> int:
    """Bytes of the arrays of a batch and of what its episodes are drawn from."""
    agents, steps = len(scenario.agents), scenario.steps + 1
    number, step = 8, 8 * (1 if scenario.routing is None else 2)
    once = STATE.itemsize + 2 * (OUTCOME.itemsize + OBSERVATION.itemsize)
    if scenario.agent_spread > 0:
        once += AGENT.itemsize
    if scenario.service == "requests":
        once, step = once + LEDGER.itemsize + SERVER.itemsize + 2 * number, 2 * number
    # Of a cluster an agent has a server on each GPU; two rows of the observation are there while it steps.
    instance = SERVER.itemsize + number + INSTANCE.itemsize + 2 * (INSTANCE_ROW.itemsize + number + 1)
    once += scenario.num_gpus * instance
    if record:
        step += OUTCOME.itemsize
    profile = 3 * number * steps * agents if scenario.traffic is not None else 0
    return profile + num_envs * agents * (once + step * steps)


def most_calls(limit: int) -> int:
    """Calls of one episode that the memory of this machine holds, but no more than a limit."""
    there = physical_memory()
    return limit if there is None else min(limit, there // (BYTES_PER_CALL + BYTES_PER_PLACE))


def check_calls(scenario: Scenario, num_envs: int, needs: tuple[int, ...], most: int) -> None:
    """Refuse episodes of so many tasks and calls, where no memory of this machine can hold them.

    Args:
        scenario: what they are drawn from.
        num_envs: environments, each with arrays for the longest episode.
        needs: tasks, calls, and calls that can run at once, of the longest episode.
        most: calls of one episode that can be had at all.

    Raises:
        ScenarioError: the message names what to lower.
    """
    tasks, calls, places = needs
    each = tasks * BYTES_PER_TASK + calls * BYTES_PER_CALL + places * BYTES_PER_PLACE
    needed, there = num_envs * each, physical_memory()
    if calls < most and (there is None or needed <= there):
        return
    memory = "" if there is None else f" and this machine has {there / 1e9:.3g} GB;"
    raise ScenarioError(
        f"scenario {scenario.name!r}: an episode of {scenario.steps} steps has some {calls:,} calls, "
        f"num_envs = {num_envs} of them need {needed / 1e9:,.3g} GB of memory,{memory} lower num_envs, "
        "steps or the load"
    )


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say.

    What is free at the moment says less: the system gives up its caches where memory is asked for.
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
