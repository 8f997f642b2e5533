import pytest
from support.examples import example

minari = pytest.importorskip("minari")
pytest.importorskip("jax")

from baselines import POLICIES, lower_bounds  # noqa: E402
from gpualloc_env import evaluate, load_scenario  # noqa: E402
from training.cli import call  # noqa: E402
from training.record import RecordConfig, main  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_recorded_set_is_loaded_scored_and_cloned_from_below_algorithm_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    call(main, RecordConfig(episodes=30, reference_episodes=3))
    name = "gpualloc/serverless/receding-horizon-v0"
    assert name in capsys.readouterr().out
    data = minari.load_dataset(name)
    assert (data.total_episodes, data.total_steps) == (30, 30 * 300)
    episode = next(data.iterate_episodes())
    assert episode.infos["agent_reward"].shape == (301, 4) and episode.infos["objective"].shape == (301,)
    assert -episode.rewards.mean() == pytest.approx(episode.infos["objective"][-1])
    scores = data.storage.metadata
    algorithm_1 = evaluate(POLICIES["adaptive"], "serverless", 3)["objective"]
    assert scores["ref_min_score"] == pytest.approx(-300 * algorithm_1)
    bound = lower_bounds(load_scenario("serverless"), 3, 10000, workers=1).mean()
    assert scores["ref_max_score"] == pytest.approx(-300 * bound)
    with pytest.raises(SystemExit):
        call(main, RecordConfig(episodes=1, reference_episodes=1))
    assert f"data set {name!r} exists" in capsys.readouterr().err
    cloned = float(example("offline_cloning.py", MINARI_DATASETS_PATH=str(tmp_path)).split()[-1])
    assert cloned < evaluate(POLICIES["adaptive"], "serverless", 20)["objective"]
