"""Views made by hand: what a policy would see, without an environment."""

import numpy as np

from gpualloc_env.simulation.observation import ARRAY_FIELDS, View

SETTINGS = {
    "dt": 1.0,
    "gpus": 1.0,
    "max_share": 1.0,
    "slice": 0.0,
    "reallocation_s": 0.0,
    "deadband": 0.0,
    "keep_alive_s": 10.0,
}


def view(**given):
    """A view of the numbers given; agents are warm, linear, hold nothing, serve 10 requests/s, weigh 1."""
    shape = np.broadcast_shapes(*(np.shape(value) for key, value in given.items() if key not in SETTINGS))
    columns = {name: np.zeros(shape) for name in ARRAY_FIELDS}
    columns.update(throughput=np.full(shape, 10.0), priority=np.ones(shape), slo=np.ones(shape))
    for name, value in given.items():
        if name not in SETTINGS:
            columns[name] = np.broadcast_to(np.asarray(value, dtype=float), shape).copy()
    return View(**columns, **{name: float(given.get(name, value)) for name, value in SETTINGS.items()})


def random_view(shape, seed, **settings):
    """A view of busy and idle, linear and saturating, warm and loading agents."""
    rng = np.random.default_rng(seed)
    busy = rng.random(shape) < 0.8
    count = shape[-1]
    platform = {"reallocation_s": 0.1, "deadband": 0.02, **settings}
    return view(
        queue=busy * rng.gamma(1.0, 20.0, shape),
        inflow=busy * rng.gamma(1.0, 5.0, shape),
        rate=busy * rng.gamma(1.0, 5.0, shape),
        share=rng.dirichlet(np.ones(count), shape[:-1]) * min(1.0, platform.get("gpus", 1.0)),
        loading=(rng.random(shape) < 0.2) * rng.uniform(0.1, 4.0, shape),
        oldest_age=busy * rng.integers(0, 9, shape),
        throughput=rng.uniform(20, 120, shape),
        kappa=(rng.random(shape) < 0.7) * rng.uniform(0.2, 2.0, shape),
        min_share=rng.uniform(0, 1.0 / count, shape),
        priority=rng.integers(1, 4, shape),
        cold_start=rng.uniform(1, 5, shape),
        **platform,
    )


def chosen(whole, index):
    """The view of some agents, in some order: `index` picks from the last axis, or rows by a number."""
    return whole._replace(**{name: getattr(whole, name)[index] for name in ARRAY_FIELDS})
