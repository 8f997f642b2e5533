"""Gradient steps shared by processes: the same weights as in one process, and nothing that is left behind."""

import base64
import json
import multiprocessing
import os
import pickletools
import signal
import zipfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from gpualloc_env import load_scenario
from training.learning import parallel_ppo
from training.learning.allocators.allocator_policy import tanh
from training.learning.allocators.exploration import Gaussian
from training.learning.learner import make_learner, rollout_size, update_device, with_defaults
from training.learning.parallel_ppo import Adam, ParallelPPO
from training.train import TrainConfig, check

KINDS = [("serverless", "ppo"), ("serverless", "ppo-shared"), ("cluster-small", "ppo-cluster")]
SMALL = {"num_envs": 4, "rollout_steps": 16, "batch_size": 32, "epochs": 2, "hidden": (8, 8), "device": "cpu"}
FORKS = pytest.mark.skipif(torch.accelerator.is_available(), reason="torch cannot differentiate in a fork")


@pytest.fixture(autouse=True)
def one_thread():
    """As `training.train` has it: on two, torch waits for the other core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learner(scenario="serverless", allocator="ppo", *, helpers=True, **settings):
    loaded = load_scenario(scenario, steps=20)
    config = with_defaults(TrainConfig(allocator=allocator, **(SMALL | settings)), loaded.key)
    model, _ = make_learner(config, loaded, helpers)
    model.lr_schedule = lambda _: 0.01
    return model, rollout_size(config)


def weights(model):
    return np.concatenate([each.detach().numpy().ravel() for each in model.policy.parameters()])


def trained(*arguments, rollouts=3, **settings):
    model, size = learner(*arguments, **settings)
    model.learn(rollouts * size)
    return weights(model)


@FORKS
@pytest.mark.parametrize(("scenario", "allocator"), KINDS)
def test_weights_do_not_depend_on_who_computes_the_shards(scenario, allocator, monkeypatch):
    monkeypatch.setattr(parallel_ppo, "_cores", lambda: 2)
    shared = trained(scenario, allocator, shards=2)
    alone = trained(scenario, allocator, shards=2, helpers=False)
    assert (shared == alone).all()
    monkeypatch.setattr(parallel_ppo, "_cores", lambda: 1)
    assert (trained(scenario, allocator, shards=2) == alone).all()


def test_shards_change_nothing_but_rounding():
    one, three = trained(shards=1), trained(shards=3)
    assert (one != three).any()
    assert three == pytest.approx(one, abs=1e-4)


@pytest.mark.parametrize("actor_learns", [True, False])
def test_an_update_is_that_of_stable_baselines3(actor_learns, monkeypatch):
    # All transitions in one minibatch, so that their order does not matter.
    model, size = learner(shards=2, batch_size=64, epochs=3)
    for parameter in model.policy.actor_parameters:
        parameter.requires_grad_(actor_learns)
    compared = []

    def both():
        start = deepcopy(model.policy.state_dict())
        ParallelPPO.train(model)
        ours = weights(model)
        model.policy.load_state_dict(start)
        model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), eps=1e-5)
        model.policy.optimizer.zero_grad()
        PPO.train(model)
        compared.append((ours, weights(model)))

    monkeypatch.setattr(model, "train", both)
    before = weights(model)
    model.learn(size)
    ((ours, theirs),) = compared
    assert np.abs(ours - before).max() > 1e-3
    assert ours == pytest.approx(theirs, abs=2e-6)


def test_no_helper_outlives_the_learning():
    before = multiprocessing.active_children()
    trained(shards=2)
    assert multiprocessing.active_children() == before


def files_open_in(pid):
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since the folder was listed
            yield os.readlink(entry)


@FORKS
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
def test_a_helper_holds_no_file_of_the_run_and_so_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel_ppo, "_cores", lambda: 2)
    model, size = learner(shards=2)
    held, open_there, others = tmp_path / "config.json", [], multiprocessing.active_children()

    class Watched(parallel_ppo.Team):
        def shuffle(self, batch_size):
            super().shuffle(batch_size)
            (helper,) = (each for each in multiprocessing.active_children() if each not in others)
            open_there.append(list(files_open_in(helper.pid)))

    monkeypatch.setattr(parallel_ppo, "Team", Watched)
    with held.open("w"):
        model.learn(size)
    # The first time the helper may not have got so far.
    assert len(open_there) == model.n_epochs and str(held) not in open_there[-1]


@FORKS
def test_the_death_of_a_helper_ends_the_learning(monkeypatch):
    monkeypatch.setattr(parallel_ppo, "_cores", lambda: 2)
    model, size = learner(shards=2)
    others = multiprocessing.active_children()

    class Deadly(parallel_ppo.Team):
        def shuffle(self, batch_size):
            super().shuffle(batch_size)
            for child in multiprocessing.active_children():
                if child not in others:
                    os.kill(child.pid, signal.SIGKILL)

    monkeypatch.setattr(parallel_ppo, "Team", Deadly)
    with pytest.raises(ChildProcessError, match="a helper of the gradient steps has ended"):
        model.learn(size)


def test_losses_that_are_no_numbers_end_the_learning():
    model, size = learner()
    with torch.no_grad():
        model.policy.value_net.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="training diverged: after 64 steps"):
        model.learn(size)


def test_the_optimiser_is_torchs():
    one, other = (torch.nn.Linear(3, 2) for _ in range(2))
    other.load_state_dict(one.state_dict())
    pairs = [(one, Adam(one.parameters(), lr=0.1)), (other, torch.optim.Adam(other.parameters(), lr=0.1))]
    for layer, optimiser in pairs:
        for k in range(5):
            optimiser.zero_grad()
            layer(torch.full((4, 3), float(k))).square().sum().backward()
            optimiser.step()
    assert one.weight.detach().numpy() == pytest.approx(other.weight.detach().numpy(), abs=1e-6)
    loaded = Adam(one.parameters(), lr=0.1)
    loaded.load_state_dict(pairs[1][1].state_dict())


@pytest.mark.parametrize(("scenario", "allocator"), KINDS)
def test_exploration_is_as_likely_as_pytorch_has_it(scenario, allocator):
    model, _ = learner(scenario, allocator)
    seen = torch.as_tensor(model.env.reset())
    with torch.no_grad():
        model.policy.log_std.copy_(
            torch.linspace(-1.0, 0.5, model.policy.log_std.numel()).view_as(model.policy.log_std)
        )
        torch.manual_seed(0)
        actions, values, log_prob = model.policy(seen)
        again, likely, entropy = model.policy.evaluate_actions(seen, actions)
    noise = model.policy.get_distribution(seen)
    normal = torch.distributions.Normal(noise.mean, noise.log_std.exp())
    turned = getattr(noise, "_turned", lambda each: each)(actions)
    assert torch.allclose(values, again) and torch.allclose(log_prob, likely)
    assert torch.allclose(log_prob, normal.log_prob(turned).sum(dim=1), atol=1e-4)
    assert torch.allclose(entropy, normal.entropy().sum(dim=1), atol=1e-4)
    _, by_mean, by_log_std = noise.log_prob_and_slopes(actions)
    slopes = torch.autograd.grad(normal.log_prob(turned).sum(), (noise.mean, noise.log_std))
    assert torch.allclose(by_mean, slopes[0], atol=1e-4)
    assert torch.allclose(by_log_std.sum(dim=0), slopes[1], atol=1e-3)


def test_the_actions_explored_vary_as_the_noise_says():
    noise = Gaussian(3).proba_distribution(torch.ones(100_000, 3), torch.tensor([-2.0, 0.0, 1.0]))
    torch.manual_seed(0)
    actions = noise.sample()
    assert actions.mean(dim=0).numpy() == pytest.approx(1.0, abs=0.03)
    assert actions.std(dim=0).log().numpy() == pytest.approx([-2.0, 0.0, 1.0], abs=0.02)
    assert torch.equal(noise.mode(), noise.mean)


def test_the_hyperbolic_tangent_and_its_slope():
    values = torch.linspace(-50.0, 50.0, 10_001, requires_grad=True)
    for_real = torch.tanh(values)
    assert torch.allclose(tanh(values), for_real, rtol=0.0, atol=3e-7)
    slopes = [torch.autograd.grad(each.sum(), values)[0] for each in (tanh(values), for_real)]
    assert torch.allclose(*slopes, rtol=0.0, atol=1e-6)


def test_a_saved_model_holds_no_bytecode_and_so_is_not_tied_to_one_python(tmp_path):
    model, size = learner()
    model.learn(size)
    del model.lr_schedule  # of the test alone
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
    pickles = {
        name: each[":serialized:"]
        for name, each in data.items()
        if isinstance(each, dict) and ":serialized:" in each
    }
    assert "learning_rate" in pickles
    for name, text in pickles.items():
        opcodes = {str(argument) for _, argument, _ in pickletools.genops(base64.b64decode(text))}
        assert not any("_make_function" in each or "CodeType" in each for each in opcodes), name


def test_a_model_is_read_back_by_stable_baselines3(tmp_path):
    model, size = learner(shards=2)
    model.learn(size)
    model.save(tmp_path / "model.zip")
    assert (weights(PPO.load(tmp_path / "model.zip", device="cpu")) == weights(model)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("scenario", "allocator"), KINDS)
def test_a_gpu_finds_the_same_weights_but_for_rounding(scenario, allocator):
    here = trained(scenario, allocator, device="cpu", shards=1)
    there = trained(scenario, allocator, device="cuda")
    assert (here != there).any()
    assert there == pytest.approx(here, abs=2e-3)


def test_a_gpu_is_asked_for_and_taken_by_itself_where_it_pays(monkeypatch):
    config, scenario = with_defaults(TrainConfig(device="cuda"), "serverless"), load_scenario("serverless")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' needs an NVIDIA GPU"):
        check(config, scenario)
    found = {}
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        for allocator in ("ppo", "ppo-residual", "linear-residual"):
            found[allocator, there] = update_device(TrainConfig(allocator=allocator))
    assert [where for where, device in found.items() if device == "cuda"] == [
        ("ppo-residual", True),
        ("linear-residual", True),
    ]
