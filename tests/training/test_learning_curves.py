"""Learning curves over steps and over seconds."""

import json
import shutil

import numpy as np
import pytest

from training.artifacts.training_record import read_record
from training.learning_curves import LearningCurvesConfig, main, read_curve


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "my-ppo")


def test_the_numbers_are_those_of_the_runs(run, tmp_path):
    shutil.copytree(run, tmp_path / "two" / "seed-0")
    shutil.copytree(run, tmp_path / "two" / "seed-1")
    out = tmp_path / "curves.png"
    main(LearningCurvesConfig((run, tmp_path / "two"), out))
    assert out.stat().st_size > 10_000 and out.with_suffix(".svg").exists()
    content, record = json.loads(out.with_suffix(".json").read_text()), read_record(run)
    assert content["baselines"] == record.levels
    assert [*content["curves"]] == ["my-ppo", "two"]
    one, two = content["curves"].values()
    points = list(zip(one["steps"], one["objective"][0], strict=True))
    assert points == [(step, round(objective, 5)) for step, objective in record.curve]
    assert two["objective"] == one["objective"] * 2
    (seconds,) = one["seconds"]
    assert seconds[0] == 0.0 and (np.diff(seconds) > 0.0).all() and seconds[-1] < 600.0


def test_a_run_that_was_interrupted_has_no_seconds(run):
    assert read_curve([run]).seconds is not None
    (events,) = (run / "tensorboard" / "my-ppo").glob("events*")
    shutil.copy(events, events.with_name(events.name + ".1"))
    curve = read_curve([run])
    assert curve.seconds is None and len(curve.steps) == curve.objective.shape[1]


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    out = tmp_path / "curves.png"
    other = shutil.copytree(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["config"]["scenario"] = "bursty"
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"on one scenario alone, got .*my-ppo on .*other on bursty"):
        main(LearningCurvesConfig((run, other), out))
    (other / "result.json").unlink()
    with pytest.raises(ValueError, match="other holds no finished training run"):
        main(LearningCurvesConfig((run, other), out))
    with pytest.raises(ValueError, match="must be a figure's name"):
        main(LearningCurvesConfig((run,), tmp_path / "curves"))
    seeds = [shutil.copytree(run, tmp_path / "seeds" / f"seed-{k}") for k in range(2)]
    result = json.loads((seeds[1] / "result.json").read_text())
    result["validation"]["curve"][-1]["step"] += 1
    (seeds[1] / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="were not validated at the same steps"):
        read_curve(seeds)
    assert not out.exists()
