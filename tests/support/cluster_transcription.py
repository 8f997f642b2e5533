"""Design document, section 10, once more in plain Python: slow, and written without the source.

One environment, lists and dictionaries, all times in seconds from the start of the episode. The compiled step
is held against this. The tolerances are those that the source documents for thresholds.
"""

from collections import deque
from math import floor, inf

CLOCK_TOLERANCE = 1e-9
NEGLIGIBLE = 1e-9


class Call:
    """One call, from its issue to its end."""

    def __init__(self, agent, stage, prompt, output, after_s):
        self.agent, self.stage, self.prompt, self.output, self.after_s = agent, stage, prompt, output, after_s
        self.issued = self.finished = inf
        self.gpu = None  # where it is, to which it goes, or where it finished; None: at its agent


class Instance:
    """Agent i on GPU k."""

    def __init__(self):
        self.share = self.idle = self.loading = self.delay = 0.0
        self.resident = False
        self.waiting, self.prefill, self.running, self.coming = deque(), None, [], 0
        self.prefill_left, self.tokens_left = 0.0, {}

    def calls(self):
        return len(self.waiting) + (self.prefill is not None) + len(self.running) + self.coming

    def tokens(self):
        """Tokens of keys and values in use."""
        inside = self.running + ([self.prefill] if self.prefill else [])
        return sum(call.prompt + call.output for call in inside)


class ClusterTranscription:
    """One episode of a scenario with nodes, from its tasks and the rates of its traffic."""

    def __init__(self, scenario, tasks, mean_rate, task_rate):
        self.scenario, self.agents, self.platform = scenario, scenario.agents, scenario.platform
        self.mean_rate, self.task_rate = mean_rate, task_rate
        self.gpus = [(n, node) for n, node in enumerate(scenario.nodes) for _ in range(node.gpus)]
        self.instances = [[Instance() for _ in self.gpus] for _ in self.agents]
        self.hosts = [{} for _ in scenario.nodes]  # agent → [step at which it was put to sleep, idle time]
        self.tasks = []
        for m, time in enumerate(tasks.time):
            own = range(tasks.first[m], tasks.first[m + 1])
            columns = (tasks.agent, tasks.stage, tasks.prompt, tasks.output, tasks.after_s)
            calls = [Call(*(column[c].item() for column in columns)) for c in own]
            stages = [[call for call in calls if call.stage == s] for s in sorted({x.stage for x in calls})]
            for s, stage in enumerate(stages):
                for call in stage:
                    call.place = (m, s)
            self.tasks.append({"time": float(time), "stages": stages, "left": 0, "finished": inf})
        self.next_task, self.due, self.orders = 0, [], 0
        self.held = [[] for _ in self.agents]
        self.issued = [[] for _ in self.agents]
        self.t = 0
        if scenario.warm:
            self.place_at_reset()

    # Sizes and times.

    def need(self, i):
        agent = self.agents[i]
        return agent.model_mb + agent.kv_tokens * agent.kv_mb_per_token

    def cold_s(self, i):
        return self.platform.container_start_s + self.agents[i].model_mb / self.platform.load_mb_per_s

    def wake_s(self, i):
        return self.platform.wake_s + self.agents[i].model_mb / self.platform.wake_mb_per_s

    def sleep_after_s(self):
        given = self.platform.sleep_after_s
        return self.platform.keep_alive_s if given is None else given

    def taken(self, k):
        return sum(self.need(i) for i in range(len(self.agents)) if self.instances[i][k].resident)

    def host_taken(self, n):
        return sum(self.agents[i].model_mb for i in self.hosts[n])

    def speedup(self, i, share):
        kappa = self.agents[i].kappa
        return share if kappa is None else share * (1 + kappa) / (share + kappa)

    # Residency.

    def place_at_reset(self):
        everyone = range(len(self.agents))
        for k, (_, node) in enumerate(self.gpus):
            own = list(everyone)[k :: len(self.gpus)]
            for i in own + [j for j in everyone if j not in own]:
                if self.taken(k) + self.need(i) > node.memory_mb:
                    break
                self.instances[i][k].resident = True
        for n, node in enumerate(self.scenario.nodes):
            mine = [k for k, (number, _) in enumerate(self.gpus) if number == n]
            for i in everyone:
                if any(self.instances[i][k].resident for k in mine):
                    continue
                if self.host_taken(n) + self.agents[i].model_mb > node.host_memory_mb:
                    break
                self.hosts[n][i] = [0, 0.0]

    def leave(self, i, k, step):
        instance, n = self.instances[i][k], self.gpus[k][0]
        instance.resident = False
        lost = ([instance.prefill] if instance.prefill else []) + instance.running
        instance.prefill, instance.running, instance.tokens_left = None, [], {}
        for call in lost:
            call.gpu = None
        self.held[i] += lost
        if instance.idle >= self.platform.keep_alive_s - CLOCK_TOLERANCE:
            return
        room, size = self.scenario.nodes[n].host_memory_mb, self.agents[i].model_mb
        if size > room:
            return
        if i not in self.hosts[n]:
            while self.host_taken(n) + size > room:
                longest = min(self.hosts[n], key=lambda j: (self.hosts[n][j][0], j))
                del self.hosts[n][longest]
        self.hosts[n][i] = [step, instance.idle]

    def settle(self, wanted, counts):
        """Memory, GPU by GPU and in order of agents."""
        for k, (n, node) in enumerate(self.gpus):
            for i in range(len(self.agents)):
                if not wanted[i][k] or self.instances[i][k].resident:
                    continue
                spare = [
                    j for j in range(len(self.agents)) if self.instances[j][k].resident and not wanted[j][k]
                ]
                kept = self.taken(k) - sum(self.need(j) for j in spare)
                if kept + self.need(i) > node.memory_mb:
                    counts["refused"] += 1
                    continue
                spare.sort(key=lambda j: (-self.instances[j][k].idle, j))
                while self.taken(k) + self.need(i) > node.memory_mb:
                    self.leave(spare.pop(0), k, self.t)
                    counts["evictions"] += 1
                instance = self.instances[i][k]
                instance.resident = True
                if i in self.hosts[n]:
                    del self.hosts[n][i]
                    instance.loading = self.wake_s(i)
                    counts["wakes"] += 1
                else:
                    instance.loading = self.cold_s(i)
                    counts["cold_starts"] += 1

    def shares(self, action):
        """Granted shares [GPU]."""
        clipped = [[min(1.0, max(0.0, u)) for u in row] for row in action]
        totals = [sum(column) for column in zip(*clipped, strict=True)]
        granted = [[0.0] * len(self.gpus) for _ in self.agents]
        for i in range(len(self.agents)):
            for k in range(len(self.gpus)):
                if self.instances[i][k].resident:
                    share = min(clipped[i][k] / max(1.0, totals[k]), self.platform.max_share)
                    if self.platform.slice is not None:
                        share = floor(share / self.platform.slice * (1 + 1e-6)) * self.platform.slice
                    granted[i][k] = share
        return granted

    # Calls.

    def dispatch(self, call, time):
        i = call.agent
        offers = []
        for k, (_, node) in enumerate(self.gpus):
            instance = self.instances[i][k]
            if instance.share > 0:
                loading = instance.loading > time - self.t * self.scenario.dt + CLOCK_TOLERANCE
                offers.append((loading, (instance.calls() + 1) / (instance.share * node.speed), k))
        if not offers:
            call.gpu = None
            self.held[i].append(call)
            return
        k = min(offers)[2]
        call.gpu = k
        m, s = call.place
        stages = self.tasks[m]["stages"]
        near = s == 0 or any(self.gpus[x.gpu][0] == self.gpus[k][0] for x in stages[s - 1])
        network = self.scenario.network
        hop = network.hop_s + call.prompt * 4 / 1e6 / network.network_mb_per_s
        if not near:
            self.counts["hops"] += 1
        if near or hop == 0:
            self.instances[i][k].waiting.append(call)
        else:
            self.instances[i][k].coming += 1
            self.postpone(time + hop, call)

    def postpone(self, time, call):
        self.due.append((time, self.orders, call))
        self.orders += 1

    def issue_stage(self, m, s, time):
        task = self.tasks[m]
        task["left"] = len(task["stages"][s])
        for call in task["stages"][s]:
            if call.after_s > 0:
                self.postpone(time + call.after_s, call)
            else:
                self.begin(call, time)

    def begin(self, call, time):
        """A call is issued, or has come to its node."""
        if call.issued == inf:
            call.issued = time
            self.issued[call.agent].append(call)
            self.dispatch(call, time)
            return
        instance = self.instances[call.agent][call.gpu]
        instance.coming -= 1
        if instance.share > 0:
            instance.waiting.append(call)
        else:
            self.dispatch(call, time)

    def start_prefills(self):
        for i, agent in enumerate(self.agents):
            for instance in self.instances[i]:
                if instance.prefill is None and instance.waiting and len(instance.running) < agent.max_batch:
                    first = instance.waiting[0]
                    if instance.tokens() + first.prompt + first.output <= agent.kv_tokens:
                        instance.prefill = instance.waiting.popleft()
                        instance.prefill_left = agent.prefill_s_per_token * first.prompt

    def rates(self, i, k):
        """Speed of prefill, and tokens a second of each running call, while the instance works."""
        instance, node, agent = self.instances[i][k], self.gpus[k][1], self.agents[i]
        iteration = agent.iteration_s + agent.iteration_s_per_call * len(instance.running)
        decode = self.speedup(i, instance.share) * node.speed
        return instance.share * node.speed, decode / iteration if instance.running and iteration else inf

    def next_end(self, i, k, now):
        """When the instance's next prefill or call ends, and nothing else happens before."""
        instance = self.instances[i][k]
        if instance.share == 0 or instance.delay >= self.scenario.dt:
            return inf
        at = max(now, self.t * self.scenario.dt + instance.delay)
        prefill, decode = self.rates(i, k)
        if instance.prefill is not None:
            return at + max(0.0, instance.prefill_left) / prefill
        if instance.running:
            return at + max(0.0, min(instance.tokens_left.values())) / decode
        return inf

    def advance(self, before, now):
        """Let all instances work between two times."""
        for i in range(len(self.agents)):
            for k in range(len(self.gpus)):
                instance = self.instances[i][k]
                if instance.share == 0 or instance.delay >= self.scenario.dt:
                    continue
                work = now - max(before, self.t * self.scenario.dt + instance.delay)
                prefill, decode = self.rates(i, k)
                if work > 0 and instance.prefill is not None:
                    instance.prefill_left -= work * prefill
                elif work > 0:
                    for call in instance.running:
                        instance.tokens_left[call] -= work * decode

    def complete(self, i, k, time):
        instance = self.instances[i][k]
        done = []
        if instance.prefill is not None:
            call, instance.prefill = instance.prefill, None
            if call.output > 1:
                instance.running.append(call)
                instance.tokens_left[call] = call.output - 1.0
            else:
                done = [call]
        else:
            least = min(instance.tokens_left.values())
            done = [call for call in instance.running if instance.tokens_left[call] <= least + 1e-9]
            for call in done:
                instance.running.remove(call)
                del instance.tokens_left[call]
        for call in done:
            call.finished = time
            self.served[i] += 1
        self.start_prefills()
        for call in done:
            m, s = call.place
            task = self.tasks[m]
            task["left"] -= 1
            if task["left"] == 0:
                if s + 1 < len(task["stages"]):
                    self.issue_stage(m, s + 1, time)
                else:
                    task["finished"] = time

    def present(self, i):
        return sum(call.finished == inf for call in self.issued[i])

    def tasks_present(self):
        return sum(task["finished"] == inf for task in self.tasks[: self.next_task])

    def play(self):
        """All events of the step; returns ∫ calls of each agent, and ∫ tasks."""
        now, end = self.t * self.scenario.dt, (self.t + 1) * self.scenario.dt
        areas, tasks = [0.0] * len(self.agents), 0.0
        pairs = [(i, k) for i in range(len(self.agents)) for k in range(len(self.gpus))]
        while True:
            self.start_prefills()
            ends = {pair: self.next_end(*pair, now) for pair in pairs}
            pair = min(pairs, key=lambda each: ends[each])
            arrival = self.tasks[self.next_task]["time"] if self.next_task < len(self.tasks) else inf
            first_due = min(self.due, key=lambda entry: entry[:2], default=(inf, 0, None))
            begins = min(arrival, first_due[0])
            ended = ends[pair] <= begins and ends[pair] <= end + CLOCK_TOLERANCE
            time = min(end, ends[pair]) if ended else min(begins, end)
            for i in range(len(self.agents)):
                areas[i] += self.present(i) * (time - now)
            tasks += self.tasks_present() * (time - now)
            self.advance(now, time)
            now = time
            if ended:
                self.complete(*pair, time)
            elif begins > end:
                return areas, tasks
            elif arrival <= first_due[0]:
                self.next_task += 1
                self.issue_stage(self.next_task - 1, 0, time)
            else:
                self.due.remove(first_due)
                self.begin(first_due[2], time)

    # One step.

    def step(self, action):
        """Hold the fractions of each GPU, (N, K), for one step; returns what `info` holds, by name."""
        dt, everyone = self.scenario.dt, range(len(self.agents))
        start, end = self.t * dt, (self.t + 1) * dt
        had_work = [self.present(i) > 0 for i in everyone]
        issued_before = [len(self.issued[i]) for i in everyone]
        self.counts = dict.fromkeys(("refused", "cold_starts", "wakes", "evictions", "hops"), 0)
        self.settle([[u > 0 for u in row] for row in action], self.counts)
        granted = self.shares(action)
        for i in everyone:
            for k in range(len(self.gpus)):
                instance, share = self.instances[i][k], granted[i][k]
                moved = abs(share - instance.share) > self.platform.deadband + NEGLIGIBLE
                charge = self.platform.reallocation_s if moved and share > 0 and self.t > 0 else 0.0
                instance.delay = min(dt, charge + instance.loading)
                instance.share = share
                if share == 0:
                    for call in instance.waiting:
                        call.gpu = None
                    self.held[i] += instance.waiting
                    instance.waiting.clear()
        for i in everyone:
            held, self.held[i] = sorted(self.held[i], key=self.issued[i].index), []
            for call in held:
                self.dispatch(call, start)
        self.served = [0] * len(self.agents)
        areas, tasks = self.play()
        outcome = {
            "share": granted,
            "queue": [self.present(i) for i in everyone],
            "served": self.served,
            "backlog": [area / dt for area in areas],
            "arrivals": [
                sum(call.place[1] == 0 for call in self.issued[i][issued_before[i] :]) for i in everyone
            ],
            "capacity": [self.capacity(i) for i in everyone],
        }
        outcome["terms"] = self.terms(outcome, had_work, tasks / dt, self.late(start, end))
        self.age()
        outcome["resident"] = [[instance.resident for instance in row] for row in self.instances]
        self.t += 1
        return {**outcome, **self.counts}

    def capacity(self, i):
        total = 0.0
        for k, (_, node) in enumerate(self.gpus):
            instance = self.instances[i][k]
            rate = self.agents[i].throughput_rps * node.speed * self.speedup(i, instance.share)
            total += rate * (self.scenario.dt - instance.delay)
        return total

    def late(self, start, end):
        late = []
        for i, agent in enumerate(self.agents):
            limits = [(call, call.issued + agent.slo_s) for call in self.issued[i]]
            late.append(sum(start < limit <= end and call.finished > limit for call, limit in limits))
        return late

    def terms(self, outcome, had_work, tasks, late):
        """The table of section 3, where a share is the sum over the GPUs."""
        weight = [1 / agent.priority for agent in self.agents]
        weighted_rate = sum(w * rate for w, rate in zip(weight, self.mean_rate, strict=True))
        held = [sum(row) for row in outcome["share"]]
        promised = [
            agent.min_share if work else 0.0 for agent, work in zip(self.agents, had_work, strict=True)
        ]
        missing = sum(max(0.0, least - share) for least, share in zip(promised, held, strict=True))
        dt = self.scenario.dt
        return {
            "latency": sum(w * x for w, x in zip(weight, outcome["backlog"], strict=True)) / weighted_rate,
            "cost": sum(held) / len(self.gpus),
            "throughput": sum(outcome["served"]) / (dt * sum(self.mean_rate)),
            "slo": sum(w * x for w, x in zip(weight, late, strict=True)) / (dt * weighted_rate),
            "shortfall": missing / sum(promised) if missing > 0 else 0.0,
            "task": tasks / self.task_rate,
        }

    def age(self):
        dt = self.scenario.dt
        for host in self.hosts:
            for i in list(host):
                host[i][1] += dt
                if host[i][1] >= self.platform.keep_alive_s - CLOCK_TOLERANCE:
                    del host[i]
        for k in range(len(self.gpus)):
            for i in range(len(self.agents)):
                instance = self.instances[i][k]
                if instance.share > 0:
                    instance.idle, instance.loading = 0.0, max(0.0, instance.loading - dt)
                else:
                    instance.idle += dt
                    if instance.resident and instance.idle >= self.sleep_after_s() - CLOCK_TOLERANCE:
                        self.leave(i, k, self.t + 1)

    def seen(self):
        """What a policy sees of the instances, in raw units."""
        rows = {"calls": [], "kv_used": [], "loading": [], "asleep": [], "idle": []}
        for i, agent in enumerate(self.agents):
            row = self.instances[i]
            asleep = [i in self.hosts[n] for n, _ in self.gpus]
            elsewhere = [self.wake_s(i) if sleeps else self.cold_s(i) for sleeps in asleep]
            pairs = zip(row, elsewhere, strict=True)
            rows["calls"].append([each.calls() for each in row])
            rows["kv_used"].append([each.tokens() / agent.kv_tokens for each in row])
            rows["loading"].append([each.loading if each.resident else other for each, other in pairs])
            rows["asleep"].append(asleep)
            rows["idle"].append([each.idle for each in row])
        return rows
