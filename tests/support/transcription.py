"""Design document, sections 2 and 3, once more in plain Python: slow, and written without the source.

Lists of floats, one environment, requests as first-in-first-out cohorts. The compiled step is
held against this. The tolerances are those that the source documents for thresholds.
"""

from collections import deque
from math import exp, floor

SLICE_TOLERANCE = 1e-6
CLOCK_TOLERANCE = 1e-9
NEGLIGIBLE = 1e-9
RATE_TIME_CONSTANT_S = 10.0


def traffic_equations(external, routing):
    """λ_i = external_i + Σ_j λ_j W_ji, by following every request to its end."""
    total, visiting = list(external), list(external)
    while routing and max(visiting) > 1e-18 * max(total):
        visiting = [
            sum(visiting[j] * routing[j][i] for j in range(len(external))) for i in range(len(external))
        ]
        total = [old + more for old, more in zip(total, visiting, strict=True)]
    return total


def speedup(agent, share):
    """f(g): linear, or g (1 + κ) / (g + κ)."""
    if agent.kappa is None:
        return share
    return share * (1 + agent.kappa) / (share + agent.kappa)


def granted(platform, requested):
    """Clip, scale to the platform, cap at max_share, round down to whole slices."""
    clipped = [min(1.0, max(0.0, u)) for u in requested]
    total = sum(clipped)
    fractions = [u / total for u in clipped] if total > 1 else clipped
    shares = [min(u * platform.gpus, platform.max_share) for u in fractions]
    if platform.slice is None:
        return shares
    return [floor(g / platform.slice * (1 + SLICE_TOLERANCE)) * platform.slice for g in shares]


class Transcription:
    """One episode, from the arrivals of its T + 1 rows and its mean external rates."""

    def __init__(self, scenario, arrivals, external_rates):
        self.scenario = scenario
        self.agents = scenario.agents
        self.arrivals = [[float(x) for x in row] for row in arrivals]
        self.routing = scenario.routing or ()
        self.mean_rate = traffic_equations([float(x) for x in external_rates], self.routing)
        count = len(self.agents)
        platform = scenario.platform
        self.cold_start = [
            platform.container_start_s + agent.model_mb / platform.load_mb_per_s for agent in self.agents
        ]
        self.t = 0
        self.cohorts = [deque() for _ in self.agents]  # (arrival time [s], requests)
        self.share = [0.0] * count
        self.idle = [0.0] * count
        self.loading = [0.0] * count if scenario.warm else list(self.cold_start)
        self.served = [0.0] * count
        self.inflows = []  # one row for each step
        self.arrive()

    def queue(self, i):
        return sum(requests for _, requests in self.cohorts[i])

    def arrive(self):
        now = self.t * self.scenario.dt
        row = []
        for i in range(len(self.agents)):
            routed = sum(self.served[j] * self.routing[j][i] for j in range(len(self.routing)))
            inflow = self.arrivals[self.t][i] + routed
            if inflow > 0:
                self.cohorts[i].append((now, inflow))
            row.append(inflow)
        self.inflows.append(row)

    def smoothed_rate(self, i):
        """Mean of the past inflows per second, weighted by exp(−age / 10 s)."""
        dt = self.scenario.dt
        weights = [exp(-(self.t - k) * dt / RATE_TIME_CONSTANT_S) for k in range(self.t + 1)]
        total = sum(w * row[i] / dt for w, row in zip(weights, self.inflows, strict=True))
        return total / sum(weights)

    def oldest_age(self, i):
        waiting = 0.0
        for arrival, requests in self.cohorts[i]:
            waiting += requests
            if waiting > NEGLIGIBLE:
                return self.t * self.scenario.dt - arrival
        return 0.0

    def view(self):
        """The fields of the view that change, by name."""
        everyone = range(len(self.agents))
        return {
            "queue": [self.queue(i) for i in everyone],
            "inflow": list(self.inflows[-1]),
            "rate": [self.smoothed_rate(i) for i in everyone],
            "share": list(self.share),
            "idle": list(self.idle),
            "loading": list(self.loading),
            "oldest_age": [self.oldest_age(i) for i in everyone],
        }

    def late(self, i, delay, rate, served):
        """Requests that reach their service objective in this step before they leave."""
        dt = self.scenario.dt
        start, end = self.t * dt, (self.t + 1) * dt
        ahead, late = 0.0, 0.0
        for arrival, requests in self.cohorts[i]:
            crossing = arrival + self.agents[i].slo_s
            tolerance = CLOCK_TOLERANCE * dt
            if start + tolerance < crossing <= end + tolerance:
                departed = min(served, rate * max(0.0, crossing - start - delay))
                late += min(requests, max(0.0, ahead + requests - departed))
            ahead += requests
        return late if late > NEGLIGIBLE else 0.0

    def depart(self, i, amount):
        cohorts = self.cohorts[i]
        while amount > 0 and cohorts:
            arrival, requests = cohorts.popleft()
            if requests > amount:
                cohorts.appendleft((arrival, requests - amount))
            amount -= requests

    def serve(self, i, delay):
        """Serve agent i: capacity, requests served, mean backlog over the step and late requests."""
        dt, agent, queue = self.scenario.dt, self.agents[i], self.queue(i)
        rate = agent.throughput_rps * speedup(agent, self.share[i])
        busy = dt - delay
        capacity = rate * busy
        served = min(queue, capacity)
        if queue <= capacity:
            emptied = queue / rate if queue > 0 else 0.0
            integral = queue * delay + queue * emptied / 2
        else:
            integral = queue * delay + busy * (queue + queue - capacity) / 2
        late = self.late(i, delay, rate, served)
        if queue <= capacity:
            self.cohorts[i].clear()
        else:
            self.depart(i, served)
        return capacity, served, integral / dt, late

    def step(self, requested):
        """One step; returns what `info` and the record hold for it, by name."""
        platform, dt = self.scenario.platform, self.scenario.dt
        shares = granted(platform, requested)
        had_work = [self.queue(i) > 0 for i in range(len(self.agents))]
        outcome = {
            name: []
            for name in ("capacity", "served", "backlog", "late", "delay", "reallocated", "cold_start")
        }
        for i, share in enumerate(shares):
            change, holds = abs(share - self.share[i]), share > 0
            charged = self.t > 0 and holds and change > platform.deadband + NEGLIGIBLE
            self.share[i] = share
            delay = min(dt, (platform.reallocation_s if charged else 0.0) + self.loading[i])
            capacity, served, backlog, late = self.serve(i, delay)
            begins = holds and self.loading[i] > 0 and self.loading[i] == self.cold_start[i]
            if holds:
                self.idle[i] = 0.0
                self.loading[i] = max(0.0, self.loading[i] - dt)
            else:
                self.idle[i] += dt
                if self.idle[i] >= platform.keep_alive_s - CLOCK_TOLERANCE:
                    self.loading[i] = self.cold_start[i]
            row = (capacity, served, backlog, late, delay, float(charged), float(begins))
            for name, value in zip(outcome, row, strict=True):
                outcome[name].append(value)
        outcome["arrivals"] = list(self.arrivals[self.t])
        outcome["share"] = shares
        outcome["queue"] = [self.queue(i) for i in range(len(self.agents))]
        everyone = range(len(self.agents))
        outcome["reward_terms"] = self.reward_terms(outcome, had_work, everyone)
        parts = [self.reward_terms(outcome, had_work, [i]) for i in everyone]
        outcome["agent_reward"] = [self.reward(part) for part in parts]
        outcome["reward"] = self.reward(outcome["reward_terms"])
        self.served = outcome["served"]
        self.t += 1
        self.arrive()
        return outcome

    def reward_terms(self, outcome, had_work, members):
        """The table of section 3, with what some agents add to it."""
        dt, gpus = self.scenario.dt, self.scenario.platform.gpus
        weight = [1 / agent.priority for agent in self.agents]
        weighted_rate = sum(w * rate for w, rate in zip(weight, self.mean_rate, strict=True))
        total_rate = sum(self.mean_rate)
        least = [agent.min_share if work else 0.0 for agent, work in zip(self.agents, had_work, strict=True)]
        missing = sum(max(0.0, least[i] - outcome["share"][i]) for i in members)

        def weighted(name):
            return sum(weight[i] * outcome[name][i] for i in members)

        return {
            "latency": weighted("backlog") / weighted_rate,
            "cost": sum(outcome["share"][i] for i in members) / gpus,
            "throughput": sum(outcome["served"][i] for i in members) / (dt * total_rate),
            "slo": weighted("late") / (dt * weighted_rate),
            "shortfall": missing / sum(least) if sum(least) > 0 else 0.0,
            "task": 0.0,
        }

    def reward(self, terms):
        price = self.scenario.objective
        return -(
            price.latency * terms["latency"]
            + price.cost * terms["cost"]
            - price.throughput * terms["throughput"]
            + price.slo * terms["slo"]
            + price.shortfall * terms["shortfall"]
        )
