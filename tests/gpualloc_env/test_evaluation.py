from threading import Lock

import numpy as np
import pytest
from support.episodes import started

from baselines import POLICIES
from gpualloc_env import View, evaluate, load_scenario
from gpualloc_env.scenario.held_out import held_out_scenario
from training.artifacts.policies import kind_of, load_policy, named
from training.cli import call
from training.compare import CompareConfig, main
from training.evaluation.evaluate import evaluate as evaluated

AGENT = """
from threading import Lock
import numpy as np
from gpualloc_env import View

def seen(observation):
    return observation[:, 0] / 4

def by_queue(view):
    return view.queue / max(view.queue.sum(), 1e-9)

class Remembers:
    def __init__(self):
        self.steps = 0

    def __call__(self, v: View):
        self.steps += 1
        return np.eye(4)[self.steps % 4]

def for_three(view):
    return [0.2, 0.2, 0.2]

def undefined(view):
    return np.where(view.queue > 0, view.queue, np.nan)

number = 3

class Locked:
    def __init__(self):
        self.lock = Lock()

    def __call__(self, view):
        return np.full(4, 0.25)
"""


@pytest.fixture
def agents(tmp_path, monkeypatch):
    (tmp_path / "my_own_agent.py").write_text(AGENT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_own_agent  # pyright: ignore

    return my_own_agent


@pytest.mark.parametrize("name", ["adaptive", "receding-horizon", "autoscaler"])
def test_a_baseline_is_judged_as_it_is_by_compare(name):
    scenario = load_scenario("serverless", steps=40)
    ours = evaluate(POLICIES[name], "serverless", 3, 10000, steps=40)
    theirs = evaluated(name, POLICIES[name], scenario, 3, 10000)
    assert ours["objective"] == pytest.approx(theirs.objective.mean(), rel=1e-12)
    assert ours["latency_p95_s"] == pytest.approx(np.mean([each["latency_p95_s"] for each in theirs.metrics]))


def test_of_a_log_the_held_out_windows_are_played_each_once_at_most(azure_log):
    held = held_out_scenario("trace", trace=azure_log, steps=5)
    assert held.trace.split == "eval" and 1 < held.windows.episodes < 30
    windows = held.windows.episodes
    theirs = evaluated("adaptive", POLICIES["adaptive"], held, windows, 10000).objective.mean()
    for episodes in (windows, windows + 7):
        ours = evaluate(POLICIES["adaptive"], "trace", episodes, trace=azure_log, steps=5)
        assert ours["objective"] == pytest.approx(theirs, rel=1e-12)
    trained = evaluate(POLICIES["adaptive"], "trace", 3, trace=azure_log, steps=5, split="train")
    assert trained["objective"] != pytest.approx(
        evaluate(POLICIES["adaptive"], "trace", 3, trace=azure_log, steps=5)["objective"]
    )


class Locked:
    """Has a lock, which nothing can copy."""

    def __init__(self):
        self.lock, self.steps = Lock(), 0

    def __call__(self, view):
        self.steps += 1
        return np.eye(4)[self.steps % 4]


class Renewed(Locked):
    """Begins an episode without memory."""

    def fresh(self):
        """Another one."""
        return Renewed()


def test_a_policy_that_cannot_be_copied_says_how_it_begins_an_episode():
    with pytest.raises(TypeError, match=r"cannot be copied .*lock.*; give it a method fresh\(\)"):
        evaluate(Locked(), "serverless", 1, steps=5)
    policy = Renewed()
    each = [evaluate(policy, "serverless", 1, seed, steps=5)["objective"] for seed in (0, 1)]
    assert evaluate(policy, "serverless", 2, 0, steps=5)["objective"] == pytest.approx(np.mean(each))
    assert policy.steps == 0


@pytest.mark.parametrize("name", ["seen", "by_queue", "Remembers"])
def test_a_policy_of_ones_own_is_judged_by_compare_as_by_evaluate(agents, name):
    scenario, given = load_scenario("serverless", steps=20), f"my_own_agent:{name}"
    own = getattr(agents, name)
    alone = evaluate(own() if name == "Remembers" else own, scenario, 3)
    beside = evaluated(name, load_policy(given, scenario), scenario, 3, 10000)
    assert alone["objective"] == pytest.approx(beside.objective.mean(), rel=1e-12)
    assert kind_of(given) == "online" and named(["static", given]) == {"static": "static", given: given}


def test_what_is_no_policy_is_refused_by_its_name(agents):
    scenario = load_scenario("serverless")
    for name, message in {
        "no_such_module:decide": "cannot import module 'no_such_module'",
        "my_own_agent:other": "there is no 'other' in 'my_own_agent'",
        "my_own_agent:number": "must be a function, got int",
        "my_own_agent:Locked": r"cannot be copied .*; give it a method fresh\(\)",
    }.items():
        with pytest.raises(ValueError, match=f"policy '{name}'.*{message}"):
            load_policy(name, scenario)
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(agents.seen, episodes=0)
    with pytest.raises(TypeError, match=r"must be a function, got 'adaptive'; gpualloc_env\.policy makes"):
        evaluate("adaptive")
    with pytest.raises(ValueError, match=r"an \.onnx file is for other runtimes; export the run as"):
        load_policy("mine.onnx", scenario)
    with pytest.raises(
        ValueError, match=r"ppo-paper holds 5 exported allocators .*; give a file of it: .*seed-0\.npz"
    ):
        load_policy("ppo-paper", load_scenario("paper"))


def test_wrong_shares_name_the_policy_that_gave_them(agents):
    view = started(load_scenario("paper", steps=3)).view
    with pytest.raises(ValueError, match=r"for_three' must .* shape \(4,\), got \[0\.2, 0\.2, 0\.2\]"):
        load_policy("my_own_agent:for_three", load_scenario("paper"))(view)
    batch = started(load_scenario("serverless"), 2)
    with pytest.raises(ValueError, match="'my_own_agent:undefined' returned a share that is NaN, got array"):
        for _ in range(50):
            batch.step(load_policy("my_own_agent:undefined", batch.scenario)(batch.view))


def test_compare_lists_it_beside_the_baselines(agents, tmp_path, capsys):
    config = CompareConfig(
        policies=("static", "my_own_agent:by_queue"), episodes=2, steps=5, out=tmp_path / "out"
    )
    call(main, config)
    assert "my_own_agent:by_queue" in capsys.readouterr().out
    assert View._fields[0] == "queue"
