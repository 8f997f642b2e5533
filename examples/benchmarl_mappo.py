"""MAPPO of BenchMARL on PettingZoo's parallel interface: one network acts for all agents, one judges them."""

import argparse
from tempfile import TemporaryDirectory

from benchmarl.algorithms import MappoConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from torchrl.envs import PettingZooWrapper

from gpualloc_env import parallel_env

ROLLOUT = 3000


class Allocation(PettingZooClass):
    """GPU allocation as a task of BenchMARL."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        """A maker of one environment, its agents one group."""

        def make():
            env = parallel_env(**self.config)
            groups = {"agents": env.possible_agents}
            return PettingZooWrapper(env, group_map=groups, use_mask=False, seed=seed, device=device)

        return make

    def supports_continuous_actions(self):
        """Shares of GPUs."""
        return True

    def has_render(self, env):
        """No videos."""
        return False

    def max_steps(self, env):
        """Steps of an episode."""
        return 300


def main(steps: int) -> None:
    """Train for so many steps, with an evaluation before and after."""
    config = ExperimentConfig.get_from_yaml()
    config.max_n_frames = steps
    config.gamma, config.lr = 0.95, 1.2e-3
    config.on_policy_collected_frames_per_batch = config.evaluation_interval = min(steps, ROLLOUT)
    config.on_policy_n_minibatch_iters, config.on_policy_minibatch_size = 7, 300
    config.loggers, config.create_json, config.render = [], False, False
    with TemporaryDirectory() as folder:
        config.save_folder = folder
        experiment = Experiment(
            task=Allocation("ALLOCATION", {"scenario": "serverless"}),
            algorithm_config=MappoConfig.get_from_yaml(),
            model_config=MlpConfig.get_from_yaml(),
            critic_model_config=MlpConfig.get_from_yaml(),
            seed=0,
            config=config,
        )
        experiment.run()
    print("mean return of an episode", experiment.mean_return)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps (default: 300000)")
    main(**vars(parser.parse_args()))
