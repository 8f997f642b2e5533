import pytest
from support.examples import example

pytest.importorskip("d3rlpy")
pytest.importorskip("minari")

from training.cli import call
from training.record import RecordConfig, main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_it_learns_from_a_recorded_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    call(main, RecordConfig(episodes=2, reference_episodes=1))
    said = example("d3rlpy_td3_bc.py", "--updates", 20, "--episodes", 1, MINARI_DATASETS_PATH=str(tmp_path))
    assert float(said.split()[-1]) > 0
