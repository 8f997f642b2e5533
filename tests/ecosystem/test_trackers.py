"""The code of the TensorBoard page, run with the trackers themselves, offline."""

import os
import shutil
import subprocess
import sys

import pytest
from support.pages import blocks
from support.places import ROOT

WANDB, MLFLOW = blocks(ROOT / "docs" / "tensorboard.md", "python")
SHORT = "total_steps=1, validation_episodes=2, steps=20"

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_weights_and_biases_keeps_every_curve_of_a_training_run(tmp_path):
    pytest.importorskip("wandb")
    out = 'out=Path("runs/long-ppo")'
    assert out in WANDB
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    code = WANDB.replace(out, f"{out}, {SHORT}")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for curve in ("long-ppo", "adaptive"):
        assert f"{curve}/serverless training/1 J in validation".encode() in record.read_bytes()


def test_mlflow_takes_the_metrics_of_a_comparison(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    shutil.copy(ROOT / "training" / "results" / "serverless.json", tmp_path / "summary.json")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    names = {}
    exec(compile(MLFLOW, "tensorboard.md", "exec"), names)
    with mlflow.start_run() as run:
        names["log_comparison"](tmp_path, mlflow.log_metrics)
    kept = mlflow.get_run(run.info.run_id).data.metrics
    assert kept["serverless/adaptive/objective"] > kept["serverless/ppo-residual/objective"] > 0
