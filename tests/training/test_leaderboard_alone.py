"""A leaderboard in which no two policies can be told apart."""

import json

import pytest

from training.leaderboard import LeaderboardConfig, main


@pytest.mark.parametrize("policies", [("adaptive",), ("adaptive", "clairvoyant")])
@pytest.mark.slow
def test_a_leaderboard_works_without_a_pair_to_tell_apart(policies, tmp_path):
    out = tmp_path / "out"
    main(LeaderboardConfig(scenarios=("steady",), policies=policies, episodes=2, out=out, workers=1))
    scenario = json.loads((out / "leaderboard.json").read_text())["scenarios"]["steady"]
    assert set(scenario["policies"]) == set(policies)
    assert (out / "power.png").stat().st_size > 1000


def test_profiles_of_an_earlier_leaderboard_do_not_stay(tmp_path):
    config = LeaderboardConfig(scenarios=("paper",), policies=("adaptive",), out=tmp_path / "out", workers=1)
    main(config)
    (tmp_path / "out" / "profiles.png").write_bytes(b"of learned policies that no longer play")
    main(config)
    assert not (tmp_path / "out" / "profiles.png").exists()
