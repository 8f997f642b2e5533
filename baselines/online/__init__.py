"""Policies that decide on what they see: the paper's baselines, and the rules of queueing theory and control.

Each is one module that cites its source: a function from a `View` to fractions of the platform, or a
frozen dataclass that is called like one and whose fields are its constants. What several of them do is in
`rows`, the call of a compiled kernel, and in `water_filling`.
"""

from baselines.online.adaptive import adaptive, adaptive_smoothed
from baselines.online.autoscaler import Autoscaler
from baselines.online.cmu import cmu
from baselines.online.drift_plus_penalty import DriftPlusPenalty
from baselines.online.generalised_cmu import GeneralisedCmu
from baselines.online.hysteresis import Hysteresis
from baselines.online.knative import Knative
from baselines.online.kubernetes_hpa import KubernetesHpa
from baselines.online.least_slack import LeastSlack
from baselines.online.max_min_fair import MaxMinFair
from baselines.online.max_weight import max_weight
from baselines.online.proportional_fair import ProportionalFair
from baselines.online.queue_aware import QueueAware
from baselines.online.receding_horizon import RecedingHorizon, RecedingHorizonBatch
from baselines.online.round_robin import round_robin
from baselines.online.square_root_capacity import SquareRootCapacity
from baselines.online.square_root_staffing import SquareRootStaffing
from baselines.online.static import static

__all__ = [
    "Autoscaler",
    "DriftPlusPenalty",
    "GeneralisedCmu",
    "Hysteresis",
    "Knative",
    "KubernetesHpa",
    "LeastSlack",
    "MaxMinFair",
    "ProportionalFair",
    "QueueAware",
    "RecedingHorizon",
    "RecedingHorizonBatch",
    "SquareRootCapacity",
    "SquareRootStaffing",
    "adaptive",
    "adaptive_smoothed",
    "cmu",
    "max_weight",
    "round_robin",
    "static",
]
