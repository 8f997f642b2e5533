"""The exported file: it decides as the trained model does, and says what it is."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from stable_baselines3 import PPO
from support.graph_runs import graph_outputs
from support.trained_run import TRAINED, torch_policy, torch_shares

from gpualloc_env import OBSERVATION_FEATURES, load_scenario
from gpualloc_env.allocator.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.file import Manifest, read
from gpualloc_env.sb3 import sb3_vec_env
from training.artifacts.policies import AgentsError, load_policy
from training.cli import call
from training.compare import CompareConfig
from training.compare import main as compare
from training.evaluation.evaluate import evaluate
from training.export import ExportConfig, main
from training.learning.allocators import allocator_policy
from training.learning.allocators.allocator_policy import AllocatorPolicy

FORMS = ("npz", "onnx")
AGENTS = ("coordinator", "nlp", "vision", "reasoning")


@pytest.fixture(scope="module")
def model(trained_run):
    return PPO.load(trained_run / "model.zip", device="cpu")


def observations(count):
    """Half of them as episodes show them, half anywhere in the space."""
    env = sb3_vec_env(100, load_scenario("serverless", steps=100), seed=3)
    rng = np.random.default_rng(0)
    played = [env.reset()]
    while len(played) < count // 200:
        played.append(env.step(rng.normal(size=(100, 5)).astype(np.float32))[0])
    return np.concatenate([*played, rng.random((count // 2, *played[0].shape[1:]), dtype=np.float32)])


def shares_of(file, seen):
    """What an exported file decides: an .npz by the package, an .onnx by a runtime."""
    return graph_outputs(file, seen) if file.suffix == ".onnx" else Allocator.load(file)(seen)


def test_it_decides_as_the_trained_model_on_ten_thousand_observations(exported, trained_run):
    seen = observations(10_000)
    assert seen.shape == (10_000, 4, 26)
    trained = torch_shares(trained_run, seen)
    allocator = Allocator.load(exported["npz"])
    shares = allocator(seen)
    assert np.abs(shares - trained).max() <= 1e-6
    assert np.abs(graph_outputs(exported["onnx"], seen) - trained).max() <= 1e-6
    assert np.ptp(trained, axis=0).min() > 1e-3  # the observations matter
    assert not allocator.fallbacks and allocator.decisions == 10_000
    alone = np.stack([allocator(one) for one in seen[:50]])
    assert np.abs(alone - shares[:50]).max() <= 1e-6


def test_it_reaches_the_same_objective(exported, trained_run):
    scenario = load_scenario("serverless", steps=60)
    trained = evaluate("trained", torch_policy(trained_run, scenario), scenario, 8, 7)
    taken = evaluate("taken", load_policy(str(exported["npz"]), scenario), scenario, 8, 7)
    assert taken.objective == pytest.approx(trained.objective, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_clipped_as_in_training(trained_run, tmp_path, form):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    model = PPO.load(run / "model.zip", device="cpu")
    # Far outside the bounds, without steepness that would magnify the rounding of float32.
    model.policy.action_net.bias.data += torch.tensor([9.0, -9.0, 9.0, -9.0, 0.0])
    model.save(run / "model.zip")
    main(ExportConfig(run, out=tmp_path / f"steep.{form}", episodes=1))
    seen = observations(1000)
    with torch.no_grad():
        assert (model.policy.most_likely(torch.as_tensor(seen)).abs() > 6).float().mean() > 0.5
    assert np.abs(shares_of(tmp_path / f"steep.{form}", seen) - torch_shares(run, seen)).max() <= 1e-6


class OtherPerceptron(allocator_policy.Perceptron):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.more = torch.nn.Linear(1, 1)


# As after a move, when what the model names is no longer there, and as after a change of the network.
MOVED = sys.modules, AllocatorPolicy.__module__, None
CHANGED = vars(allocator_policy), "Perceptron", OtherPerceptron


@pytest.mark.parametrize("change", [MOVED, CHANGED], ids=["moved", "changed"])
def test_a_run_of_another_version_is_refused_with_the_remedy(
    change, trained_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(*change)
    with pytest.raises(SystemExit):
        call(main, ExportConfig(trained_run, out=tmp_path / "a.npz"))
    error = capsys.readouterr().err
    assert "was trained by another version of this package" in error and "export it with that" in error
    assert len(error) < 500 and not list(tmp_path.iterdir())


def test_the_manifest_says_what_the_file_is(exported, trained_run):
    manifest = Allocator.load(exported["npz"]).manifest
    config = json.loads((trained_run / "config.json").read_text())
    assert manifest.agents == AGENTS and manifest.features == OBSERVATION_FEATURES
    assert manifest.network["kind"] == "mlp" and manifest.network["layers"] == [104, 64, 64, 5]
    assert manifest.network["actions"] == {"kind": "simplex", "bound": 6.0, "idle_bias": -3.4}
    command = manifest.training.pop("command")
    assert manifest.training == config
    assert command.startswith("python -m training.train --scenario serverless --steps 20 ")
    assert " --allocator ppo " in command
    assert "--hidden 64 64 " in command and "--no-progress" in command and "--load" not in command
    validation = manifest.validation
    assert (validation.scenario, validation.episodes) == ("serverless", 4)
    assert (validation.first_seed, validation.last_seed) == (1_000_000, 1_000_003)
    scenario = load_scenario("serverless", steps=TRAINED["steps"])
    again = evaluate("again", Allocator.load(exported["npz"]).decide, scenario, 4, 1_000_000)
    assert validation.objective == pytest.approx(again.objective.mean(), rel=1e-12)
    assert validation.largest_difference <= 1e-6 and validation.compared_observations == 10_000


def test_both_forms_have_the_same_manifest_and_are_small(exported):
    (entry,) = onnx.load(exported["onnx"]).metadata_props
    assert entry.key == "manifest" and Manifest.model_validate_json(entry.value) == read(exported["npz"])[0]
    assert all(path.stat().st_size < 60_000 for path in exported.values())


def test_the_npz_holds_plain_arrays(exported):
    with np.load(exported["npz"], allow_pickle=False) as file:
        assert sorted(file.files) == sorted(
            ["manifest", "mean", "mean_rest", "scale"]
            + [f"{part}_{k}" for part in ("weight", "bias") for k in range(3)]
        )
        assert {file[name].dtype for name in file.files if name != "manifest"} == {np.dtype(np.float32)}
        assert json.loads(file["manifest"].item())["format"] == "gpualloc-allocator"


def test_the_onnx_decides_without_the_package(exported):
    seen = observations(10_000)
    shares = Allocator.load(exported["npz"])(seen)
    assert np.abs(graph_outputs(exported["onnx"], seen) - shares).max() <= 1e-6


def test_deciding_imports_neither_torch_nor_pickled_code(exported):
    program = f"""
import pickle, sys
def refuse(*args, **kwargs): raise AssertionError("something was unpickled")
import gpualloc_env.allocator.allocator, numpy as np
gpualloc_env.allocator.Allocator.load  # everything that compiles is imported
from gpualloc_env import Batch, load_scenario
batch = Batch(load_scenario("serverless"), 1)
batch.seed(0); batch.reset()
path = {str(exported["npz"])!r}
allocator = gpualloc_env.allocator.Allocator.load(path)  # numba reads its own cache with pickle
pickle.load = pickle.loads = pickle.Unpickler = refuse
allocator = gpualloc_env.allocator.Allocator.load(path)
allocator(batch.observation), allocator.decide(batch.view)
print(*sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "gpualloc_env" in loaded
    assert not loaded & {"torch", "stable_baselines3", "baselines", "training", "cloudpickle"}
    assert not loaded & {"onnx", "onnxruntime"}


def test_pickled_arrays_are_refused(exported, tmp_path):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return marker.touch, ()

    with np.load(exported["npz"]) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["bias_0"] = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "trap.npz", **arrays)
    with pytest.raises(AllocatorError, match=r"trap\.npz is damaged"):
        Allocator.load(tmp_path / "trap.npz")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    # An installed package has the command `gpualloc` and no module `training`.
    remedy = r"export it again with gpualloc export <run> --out <file>"
    with pytest.raises(AllocatorError, match=rf"bare\.npz is damaged or no \.npz file; {remedy}"):
        Allocator.load(tmp_path / "bare.npz")
    assert not marker.exists()


def test_an_exported_allocator_is_compared_by_its_file(exported, trained_run, tmp_path, caplog):
    policies = ("adaptive", str(exported["npz"]), str(trained_run))
    compare(CompareConfig(policies=policies, steps=20, episodes=3, out=tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["policies"]
    means = {name: entry["objective"]["mean"] for name, entry in summary.items()}
    assert set(means) == {"adaptive", "allocator", trained_run.name}
    assert means["allocator"] == pytest.approx(means[trained_run.name], rel=1e-6)
    (warning,) = caplog.messages
    assert str(trained_run) in warning and "can run any code" in warning and "training.export" in warning


def test_it_is_left_out_where_the_agents_are_others(exported):
    words = (
        "was trained for the agents coordinator, nlp, vision, reasoning, scenario 'fleet' has coordinator-1"
    )
    with pytest.raises(AgentsError, match=words):
        load_policy(str(exported["npz"]), load_scenario("fleet"))


@pytest.mark.parametrize(
    ("run", "out", "changes", "words"),
    [
        (".", "a.pt", {}, "a.pt must end in .npz or .onnx"),
        (".", "none/a.npz", {}, "none; make it first"),
        (".", "folder.npz", {}, "is a directory; give the name of a file"),
        (".", "a.npz", {"episodes": 0}, "episodes must be at least 1, got 0"),
        ("missing", "a.npz", {}, "missing is not the directory of a training run"),
        ("tensorboard", "a.npz", {}, "holds no finished training run: model.zip is missing"),
    ],
)
def test_a_mistake_ends_with_one_line_and_leaves_nothing(
    trained_run, tmp_path, capsys, run, out, changes, words
):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(SystemExit) as stopped:
        call(main, ExportConfig(trained_run / run, out=tmp_path / out, **changes))
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and words in message and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


def test_a_network_of_another_kind_is_refused_and_the_earlier_file_stays(trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    env = sb3_vec_env(1, load_scenario("serverless"), seed=0)
    import torch

    PPO("MlpPolicy", env, n_steps=64, policy_kwargs={"activation_fn": torch.nn.ReLU}, device="cpu").save(
        run / "model.zip"
    )
    (tmp_path / "a.npz").write_text("earlier")
    with pytest.raises(SystemExit):
        call(main, ExportConfig(run, out=tmp_path / "a.npz"))
    assert "only an allocator's policy can be exported, got ActorCriticPolicy" in capsys.readouterr().err
    assert (tmp_path / "a.npz").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "run"]
