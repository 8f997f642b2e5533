"""Tables of nodes and of their network."""

import pytest

from gpualloc_env import CLUSTERS, SCENARIOS, Node, ScenarioError, load_scenario
from gpualloc_env.scenario.registry import register

FILE = """
service = "requests"
[[agents]]
name = "a"
model = "llama-2-7b"
gpu = "h100"
kv_tokens = 10000
prompt_tokens = 500
output_tokens = 100
[platform]
sleep_after_s = 5
wake_s = 0.3
wake_mb_per_s = 20000
[[nodes]]
gpus = 2
gpu = "a100"
host_memory_mb = 64000
usd_per_gpu_hour = 2.5
[[nodes]]
memory_mb = 24000
speed = 0.25
[network]
hop_s = 0.01
network_mb_per_s = 1200
[traffic]
rates_rps = [1]
load = 0.5
"""

OWN_TIMES = """model_mb = 13480
iteration_s = 0.01
iteration_s_per_call = 0.0001
prefill_s_per_token = 0.0001"""


def read(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_scenario(path)


def test_a_file_of_nodes_and_their_network(tmp_path):
    scenario = read(tmp_path, FILE)
    fast, slow = scenario.nodes
    assert (fast.gpus, fast.memory_mb, fast.host_memory_mb) == (2, 80_000, 64_000)
    assert fast.speed == pytest.approx(2.0 / 3.35)
    assert (slow.gpus, slow.memory_mb, slow.speed, slow.host_memory_mb) == (1, 24_000, 0.25, 0)
    assert scenario.num_gpus == 3 and scenario.capacity == pytest.approx(2 * 2.0 / 3.35 + 0.25)
    assert scenario.network.hop_s == 0.01 and scenario.platform.wake_mb_per_s == 20_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('gpu = "a100"', 'gpu = "t4"', "gpu = 't4' is not in the catalogue, which has h100, a100, a40"),
        ("speed = 0.25", "", "nodes.1.speed' is missing"),
        ("speed = 0.25", "speed = 0", "nodes.1.speed = 0"),
        ("memory_mb = 24000", "memory = 24000", "did you mean 'memory_mb'"),
        ("gpus = 2", "gpus = 0", "nodes.0.gpus = 0"),
        ("hop_s", "hops", "did you mean 'hop_s'"),
        ('service = "requests"', "", "add service = 'requests'"),
        ("[platform]", "[platform]\ngpus = 5", "platform.gpus = 5, but the nodes have 3 GPUs; leave it out"),
        ("[platform]", "[platform]\nmax_share = 2", "give at most 1"),
        ("sleep_after_s = 5", "sleep_after_s = -1", "platform.sleep_after_s = -1"),
    ],
)
def test_a_wrong_table_is_refused_by_name(tmp_path, old, new, message):
    assert old in FILE
    with pytest.raises(ScenarioError, match=None) as error:
        read(tmp_path, FILE.replace(old, new, 1))
    assert message in str(error.value)


@pytest.mark.parametrize("gpu", ["a100", "a40"])
def test_the_speed_of_a_node_is_for_agents_measured_on_the_reference_gpu(tmp_path, gpu):
    text = FILE.replace('gpu = "h100"', f'gpu = "{gpu}"')
    message = f"agent 'a' has the times of gpu = '{gpu}', but nodes.0 has a speed relative to 'h100', 0.597"
    with pytest.raises(ScenarioError, match=message):
        read(tmp_path, text)
    # A speed of its own is for the agents that there are.
    assert (
        read(tmp_path, text.replace('gpu = "a100"\nhost', 'speed = 1\ngpu = "a100"\nhost')).nodes[0].speed
        == 1
    )
    own = text.replace(f'model = "llama-2-7b"\ngpu = "{gpu}"', OWN_TIMES)
    assert read(tmp_path, own).agents[0].gpu is None


def test_a_network_needs_nodes(tmp_path):
    alone = FILE.replace("[[nodes]]", "[[ignored]]")
    alone = alone[: alone.index("[[ignored]]")] + alone[alone.index("[network]") :]
    with pytest.raises(ScenarioError, match=r"a network needs nodes; add a table of \[\[nodes\]\]"):
        read(tmp_path, alone)


def test_the_number_of_agents_of_a_cluster_cannot_be_changed():
    with pytest.raises(ScenarioError, match="has nodes for its 8 agents"):
        load_scenario("cluster-small", agents=4)


def test_clusters_are_registered_apart_and_names_are_taken_once():
    assert set(CLUSTERS) == {"cluster-small", "cluster-fleet", "cluster-nodes"} and not set(CLUSTERS) & set(
        SCENARIOS
    )
    with pytest.raises(ScenarioError, match="registered already"):
        register(load_scenario("llm").model_copy(update={"name": "cluster-small"}))
    mine = CLUSTERS["cluster-small"].model_copy(
        update={"name": "mine", "nodes": (Node(memory_mb=1, speed=1),)}
    )
    try:
        register(mine)
        assert load_scenario("mine").key == "mine" and "mine" not in SCENARIOS
    finally:
        del CLUSTERS["mine"]


def test_memory_of_the_registered_clusters():
    small = CLUSTERS["cluster-small"]
    need = sum(agent.model_mb + agent.kv_tokens * agent.kv_mb_per_token for agent in small.agents)
    # Every GPU could hold half of the agents.
    assert need / small.nodes[0].memory_mb == pytest.approx(2, abs=0.02)
    rates = CLUSTERS["cluster-fleet"].traffic.rates_rps
    assert len(rates) == 64 and rates[0] / rates[9] == pytest.approx(10**1.1)
