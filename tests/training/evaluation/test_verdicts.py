import numpy as np
import pytest

from training.evaluation.statistics import episodes_needed, interval
from training.evaluation.verdicts import Entry, best_online, headroom_closed, verdict
from training.reporting.leaderboard_report import (
    Board,
    boards_json,
    summary_rows,
    write_csv,
    write_markdown,
)


def entry(name, objective, kind="online"):
    metrics = {"latency_p95_s": 1.0, "cost_usd": 0.1, "slo_attainment": 0.9}
    return Entry(name, kind, np.atleast_2d(np.asarray(objective, dtype=float)), metrics)


def noise(count, seed=0):
    return np.random.default_rng(seed).lognormal(0, 1, count)


def test_two_copies_of_one_policy_tie():
    first, second = entry("a", noise(100)), entry("b", noise(100))
    assert verdict(first, second, 1) == ("ties", (0.0, 0.0, 0.0))


def test_a_small_steady_difference_is_told_apart_under_large_common_noise():
    common = 100 * noise(200)
    reference = entry("reference", common)
    assert verdict(entry("better", common - 0.1 * noise(200, 1)), reference, 30)[0] == "wins"
    assert verdict(entry("worse", common + 0.1 * noise(200, 1)), reference, 30)[0] == "loses"
    shuffled = np.random.default_rng(2).permutation(common)
    assert verdict(entry("other", shuffled), reference, 30)[0] == "ties"


def test_more_comparisons_widen_the_interval():
    first, second = entry("a", noise(40)), entry("b", noise(40, 1))
    widths = [
        difference.high - difference.low
        for difference in (verdict(first, second, comparisons)[1] for comparisons in (1, 10, 100))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_false_winners_are_as_rare_as_promised():
    # 200 pairs of policies that are equally good, in families of ten: a twentieth of the families may err.
    generator = np.random.default_rng(0)
    families = [
        any(
            verdict(entry("a", generator.normal(size=60)), entry("b", generator.normal(size=60)), 10)[0]
            != "ties"
            for _ in range(10)
        )
        for _ in range(20)
    ]
    assert sum(families) <= 4


def test_one_training_seed_has_the_interval_of_its_episodes():
    values = np.random.default_rng(0).normal(10, 3, size=(1, 400))
    mean, low, high = interval(values)
    # ± 1.96 · 3 / √400
    assert mean == values.mean() and (high - low) / 2 == pytest.approx(0.294, rel=0.1)


def test_training_seeds_that_differ_widen_the_interval():
    generator = np.random.default_rng(1)
    alike = generator.normal(10, 3, size=(5, 400))
    different = alike + np.array([-4.0, -2.0, 0.0, 2.0, 4.0])[:, None]
    narrow, wide = (interval(values) for values in (alike, different))
    # Five seeds of deviation √10 around their mean, of which little is known: ± 2.78 · 3.16 / √5 = 3.9.
    assert (wide.high - wide.low) / 2 == pytest.approx(3.93, rel=0.1)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_intervals_are_the_same_at_every_call():
    values = np.random.default_rng(0).normal(size=(3, 50))
    assert interval(values) == interval(values) and interval(values[:1]) == interval(values[:1])


def test_the_interquartile_mean_leaves_out_the_best_and_the_worst_training_seed():
    runs = np.repeat([[1.0], [2.0], [3.0], [100.0]], 7, axis=1)
    assert entry("ppo", runs, "learned").interquartile_mean == 2.5


def test_headroom_is_zero_at_algorithm_1_and_one_at_the_bound():
    assert headroom_closed(4.0, adaptive=4.0, bound=1.0) == 0
    assert headroom_closed(1.0, adaptive=4.0, bound=1.0) == 1
    assert headroom_closed(7.0, adaptive=4.0, bound=1.0) == -1
    assert np.isnan(headroom_closed(4.0, adaptive=4.0, bound=4.0))


def test_the_best_baseline_is_neither_learned_nor_privileged():
    entries = [
        entry("a", [2.0]),
        entry("b", [1.0]),
        entry("ppo", [0.5], "learned"),
        entry("c", [0.1], "privileged"),
    ]
    assert best_online(entries).name == "b"


def test_power_is_what_repeated_experiments_find():
    generator = np.random.default_rng(3)
    sample = generator.normal(0, 1, 10_000)
    needed = episodes_needed(sample, effect=0.4, comparisons=1)
    # ((1.96 + 0.84) / 0.4)² = 49, and more for the episode that was not drawn.
    assert 49 <= needed <= 98
    reference = entry("reference", np.zeros(needed))
    found = [
        verdict(entry("a", generator.normal(0.4, 1, needed)), reference, 1)[0] == "loses" for _ in range(200)
    ]
    assert np.mean(found) >= 0.8 - 0.08


@pytest.fixture
def boards():
    adaptive = 4 + noise(30)
    entries = [
        entry("static", adaptive + 5),
        entry("adaptive", adaptive),
        entry("cmu", adaptive - 2),
        entry("ppo", np.stack([adaptive - 3 + 0.01 * k for k in range(5)]), "learned"),
    ]
    constant = [entry("static", [4.0]), entry("adaptive", [3.0]), entry("cmu", [3.0])]
    return {
        "random": Board(adaptive - 4, entries),
        "constant": Board(np.array([3.0]), constant, varies=False),
    }


def test_the_json_says_who_wins_against_whom(boards):
    scenarios = boards_json(boards)["scenarios"]
    random = scenarios["random"]
    assert random["best_baseline"] == "cmu" and random["episodes"] == 30
    # Three others against adaptive, three others against cmu.
    assert random["comparisons"] == 6
    verdicts = {
        name: (policy["against_adaptive"], policy["against_best_baseline"])
        for name, policy in random["policies"].items()
    }
    assert verdicts == {
        "ppo": ("wins", "wins"),
        "cmu": ("wins", "ties"),
        "adaptive": ("ties", "loses"),
        "static": ("loses", "loses"),
    }
    assert random["policies"]["cmu"]["headroom_closed"] == pytest.approx(0.5)
    assert random["policies"]["ppo"]["training_seeds"] == 5
    constant = scenarios["constant"]["policies"]
    assert constant["static"]["against_adaptive"] == "loses" and constant["cmu"]["against_adaptive"] == "ties"
    assert constant["static"]["headroom_closed"] is None


def test_the_files_hold_every_policy_of_every_scenario(boards, tmp_path):
    write_csv(tmp_path / "a.csv", boards)
    write_markdown(tmp_path / "a.md", boards, seed=7)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 + 3 and all(line.count(",") == lines[0].count(",") for line in lines)
    text = (tmp_path / "a.md").read_text()
    assert "seeds from 7 on" in text and text.count("\n## ") == 2 and "ppo (5 seeds)" in text
    (random, constant) = summary_rows(boards)
    assert random["best online baseline"] == f"cmu {boards['random'].best_baseline.mean:.3f} (50 %)"
    assert random["learned against baseline"] == "wins" and constant["best learned policy"] == ""


def test_a_policy_below_the_bound_is_an_error_and_not_a_record():
    adaptive = entry("adaptive", [2.0, 3.0])
    Board(np.array([2.0, 3.0]), [adaptive])
    with pytest.raises(ValueError, match=r"adaptive has J = .*3\.0.* in episode 1, below the bound .*3\.1"):
        Board(np.array([2.0, 3.1]), [adaptive])
