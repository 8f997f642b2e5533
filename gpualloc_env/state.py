"""Names of the rows in which a batch keeps its numbers.

B environments of N agents live in packed float64 arrays of which one axis is a list below:
`state[:, :, QUEUE]` is the (B, N) array of queues. In memory that axis comes first, so each name
is a contiguous plane of B · N numbers, one *lane* for each agent of each environment: the
compiled step works on many lanes in one vector instruction. The names are plain integers
because compiled code reads them as constants.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
AnyArray = NDArray[Any]

# What the step just taken did: columns of the outcome.
ARRIVALS = 0  # [requests] exogenous, at the start of the step
QUEUE_END = 1  # [requests] waiting after service
SHARE = 2  # [GPU] held during the step
SERVED = 3  # [requests]
CAPACITY = 4  # [requests] that could have been served
BACKLOG = 5  # [requests] mean over the step of the number waiting
OUTCOME_COLUMNS = 6
# What a record of the episode keeps besides.
DELAY = 6  # [s] from the start of the step to the start of service
LATE = 7  # [requests] whose age passed the service objective while they waited
REALLOCATED = 8  # 1 where a change of share was charged
COLD_START = 9  # 1 where the loading of a model began
HISTORY_COLUMNS = 10

# What the policy sees after the arrivals of the next step, and what the next step needs besides.
QUEUE = 0  # [requests] waiting
INFLOW = 1  # [requests] that have just arrived, exogenous and routed
RATE = 2  # [requests/s] smoothed arrival rate
HELD = 3  # [GPU] share held during the last step
IDLE = 4  # [s] since the agent last held a share
LOADING = 5  # [s] still needed to load the model; 0 when warm
OLDEST_AGE = 6  # [s] that the oldest waiting request has waited
OLDEST = 7  # index of the step in which that request arrived
OLDEST_LEFT = 8  # [requests] of those that arrived in that step that still wait
RECENT = 9  # [requests] that arrived in the last steps, as many as SLO_LAG and this one
MEAN_RATE = 10  # [requests/s] mean total arrival rate of the episode, λ̄
STATE_COLUMNS = 11

# Parameters of the agents, (B, N) each; (1, N) where all episodes have the same.
THROUGHPUT = 0  # [requests/s] T on one whole GPU
KAPPA = 1  # [GPU] of the saturating curve; 0 where throughput is linear
MIN_SHARE = 2  # [GPU] R
PRIORITY = 3  # P
COLD_START_S = 4  # [s] time to start and load the model
SLO_S = 5  # [s] service objective
WEIGHT = 6  # ω = 1/P
SLO_LAG = 7  # whole steps before a request reaches its objective, one less than ⌈slo/dt⌉
AGENT_COLUMNS = 8

# What the step just taken was worth to an environment as a whole, (B,) each.
LATENCY = 0  # [s]
COST = 1
THROUGHPUT_TERM = 2
SLO = 3
SHORTFALL = 4
REWARD = 5
TERM_COLUMNS = 6

# Numbers of an episode as a whole, (B,) each.
PER_WEIGHTED_RATE = 0  # [s/request] 1 / Σ ω λ̄; 0 where nothing is offered
PER_TOTAL_RATE = 1  # [s/request] 1 / Σ λ̄; 0 where nothing is offered
SUMS = 2  # first of the sums over the episode of the five terms and the reward
EPISODE_COLUMNS = 8

TERMS = ("latency", "cost", "throughput", "slo", "shortfall")

# Settings that all environments share, () each.
DT = 0  # [s]
GPUS = 1  # [GPU]
MAX_SHARE = 2  # [GPU]
SLICE = 3  # [GPU]; 0 where shares are continuous
REALLOCATION_S = 4  # [s]
DEADBAND = 5  # [GPU]
KEEP_ALIVE_S = 6  # [s]
PER_DT = 7  # [1/s] 1 / dt
WEIGHTS = 8  # first of the objective's five weights, in the order of TERMS
SETTINGS = 13
