"""The records in which a batch keeps its numbers: name, unit and shape of every column, once.

B environments of N agents are arrays of the records below, such as `state`, (B, N) of `STATE`:
`state["queue"]` are the queues of all agents, `state[b, i].queue` in compiled code is one of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
AnyArray = NDArray[Any]
Records = Any
"""An array of records which compiled code indexes by what it reads from other records."""


def names_of(records: np.dtype[Any]) -> tuple[str, ...]:
    """Names of the columns of records, in order."""
    return records.names or ()


STATE = np.dtype(
    [  # (B, N), after the arrivals of a step and before its decision
        ("queue", np.float64),  # [requests] waiting, this step's arrivals included
        ("inflow", np.float64),  # [requests] that have just arrived, exogenous and routed
        ("rate", np.float64),  # [requests/s] smoothed arrival rate, time constant 10 s
        ("share", np.float64),  # [GPU] held during the last step
        ("idle", np.float64),  # [s] since the agent last held a share
        ("loading", np.float64),  # [s] still needed to load the model; 0 when warm
        ("oldest_age", np.float64),  # [s] that the oldest waiting request has waited
        # Of servers of calls; zeros in the fluid.
        ("running", np.float64),  # fraction of the batch's places in which calls run
        ("waiting", np.float64),  # [calls] whose prefill has not begun
        ("prefill", np.float64),  # [s] of a whole GPU that their prefill will take
        ("kv_used", np.float64),  # fraction of the KV cache that is taken
        # What the next step needs besides; no policy sees it.
        ("oldest", np.int64),  # the step in which the oldest waiting request arrived
        ("oldest_left", np.float64),  # [requests] of those that arrived in that step that still wait
        ("recent", np.float64),  # [requests] that arrived in the last `slo_lag` steps and this one
        ("mean_rate", np.float64),  # [requests/s] λ̄, mean total arrival rate of the episode
    ]
)

OBSERVATION = np.dtype(
    [  # (B, N), what a policy sees, in [0, 1]; without a natural bound as x / (1 + x)
        ("queue", np.float32),  # time to serve it on one whole GPU, q/T [s]
        ("inflow", np.float32),  # GPUs that would serve it within the step, inflow/(T dt)
        ("rate", np.float32),  # GPUs that would keep up with it, rate/T
        ("share", np.float32),  # fraction of the platform held
        ("idle", np.float32),  # fraction of the keep-alive time that has passed
        ("loading", np.float32),  # [s]
        ("oldest_age", np.float32),  # as a multiple of the service objective
        ("throughput", np.float32),  # [requests in 20 ms]
        ("kappa", np.float32),  # [GPU]; 1 where throughput is linear
        ("min_share", np.float32),  # [GPU]
        ("priority", np.float32),  # weight 1/P
        ("cold_start", np.float32),  # [s]
        ("slo", np.float32),  # [s]
        ("gpus", np.float32),  # [GPU]
        ("dt", np.float32),  # [s]
        ("reallocation", np.float32),  # fraction of a step lost when a share changes
        ("deadband", np.float32),  # [GPU] of change that costs nothing
        ("max_share", np.float32),  # [GPU]
        ("slice", np.float32),  # [GPU]; 0 where shares are continuous
        # Of servers of calls; zeros in the fluid.
        ("running", np.float32),  # fraction of the batch's places in which calls run
        ("waiting", np.float32),  # [calls] whose prefill has not begun
        ("prefill", np.float32),  # [s] of a whole GPU that their prefill will take
        ("kv_used", np.float32),  # fraction of the KV cache that is taken
        ("iteration", np.float32),  # a [10 ms]
        ("batch_slope", np.float32),  # c/a, what one more call adds to an iteration
        ("prefill_per_token", np.float32),  # e [0.1 ms]
    ]
)

AGENT = np.dtype(
    [  # (B, N), or (1, N) where all episodes have the same agents
        ("throughput", np.float64),  # [requests/s] T on one whole GPU
        ("kappa", np.float64),  # [GPU] of the saturating curve; 0 where throughput is linear
        ("min_share", np.float64),  # [GPU] R
        ("priority", np.float64),  # P
        ("cold_start", np.float64),  # [s] to start and load the model
        ("slo", np.float64),  # [s] service objective
        # Of servers of calls; zeros in the fluid.
        ("iteration", np.float64),  # [s] a, decoding a token of one call on a whole GPU takes a + c
        ("iteration_per_call", np.float64),  # [s] c, what each call of the batch adds to an iteration
        ("prefill_per_token", np.float64),  # [s] e, of a whole GPU
        # Derived from these, or hidden from policies.
        ("weight", np.float64),  # ω = 1/P
        ("max_batch", np.int64),  # B, calls that run at most
        ("kv_tokens", np.int64),  # K, capacity of the KV cache in tokens
        ("model_mb", np.float64),  # [MB] M, of the weights
        ("need_mb", np.float64),  # [MB] of these and of a KV cache of K tokens
        ("slo_lag", np.int64),  # whole steps before a request reaches its objective, ⌈slo/dt⌉ − 1
        ("observed", OBSERVATION),  # its row of the observation, the columns that last for the episode
    ],
    align=True,
)

OUTCOME = np.dtype(
    [  # (B, N), what a step has done; the record of an episode is (B, T, N)
        ("arrivals", np.float64),  # [requests] exogenous, at the start of the step
        ("queue", np.float64),  # [requests] waiting after service
        ("share", np.float64),  # [GPU] held during the step
        ("served", np.float64),  # [requests]
        ("capacity", np.float64),  # [requests] that could have been served
        ("backlog", np.float64),  # [requests] mean over the step of the number waiting
        ("agent_reward", np.float64),  # the agent's part of the reward
        # Not in `info`: what the metrics of an episode need besides.
        ("delay", np.float64),  # [s] from the start of the step to the start of service
        ("late", np.float64),  # [requests] that missed their SLO in this step, while they waited
        ("reallocated", np.float64),  # 1 where a change of share was charged
        ("cold_start", np.float64),  # 1 where the loading of a model began
    ]
)
INFO = names_of(OUTCOME)[:7]
"""Columns of the outcome that `info` shows."""

TERMS = ("latency", "cost", "throughput", "slo", "shortfall", "task")
"""Terms of the objective, in the order of `gpualloc_env.scenario.objective.Objective`."""

_SUMMED = (  # the terms of a step and the reward that they make
    ("latency", np.float64),  # [s] Σ ω·backlog / Σ ω·λ̄
    ("cost", np.float64),  # Σ g / G
    ("throughput", np.float64),  # Σ s / (dt Σ λ̄)
    ("slo", np.float64),  # Σ ω·late / (dt Σ ω·λ̄)
    ("shortfall", np.float64),  # Σ max(0, R − g) / Σ R, over agents with work
    ("task", np.float64),  # [s] tasks in the system / λ̄_task; 0 in the fluid
    ("reward", np.float64),
)

WORTH = np.dtype(
    [  # (B,), what a step was worth
        *_SUMMED,
        ("objective", np.float64),  # J so far: the mean of −reward over the steps taken; 0 before the first
    ]
)

REWARD = names_of(WORTH).index("reward")
"""Which column of WORTH the reward is."""

EPISODE = np.dtype(
    [  # (B,)
        ("per_weighted_rate", np.float64),  # [s/request] 1 / Σ ω·λ̄; 0 where nothing is offered
        ("per_total_rate", np.float64),  # [s/request] 1 / Σ λ̄; 0 where nothing is offered
        ("per_task_rate", np.float64),  # [s/task] 1 / λ̄_task; 0 where there are none
        ("total", np.dtype([*_SUMMED])),  # sums over the steps taken
    ]
)

SETTINGS = np.dtype(
    [  # (1,), the same for all environments
        ("dt", np.float64),  # [s]
        ("gpus", np.float64),  # [GPU] G
        ("max_share", np.float64),  # [GPU] that one agent can hold
        ("slice", np.float64),  # [GPU] granularity of a share; 0 where shares are continuous
        ("reallocation_s", np.float64),  # [s] lost when a share changes
        ("deadband", np.float64),  # [GPU] of change that costs nothing
        ("keep_alive_s", np.float64),  # [s] idle before a model is unloaded
        ("price", np.dtype([(term, np.float64) for term in TERMS])),  # weights of the objective
        # Derived from these: a division costs as much as ten of the other operations of a step.
        ("per_dt", np.float64),  # [1/s] 1 / dt
        ("per_gpu", np.float64),  # [1/GPU] 1 / G
        ("per_keep_alive", np.float64),  # [1/s] 1 / keep-alive time, which counts as one step at least
    ]
)


def plain(records: AnyArray) -> Array:
    """Records whose columns take eight bytes each as float64, (…, columns) for (…), in the same memory."""
    return records.view(np.float64).reshape(*records.shape, -1)
