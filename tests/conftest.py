import os

import pytest
from support.log_samples import log_lines, write_log
from support.trained_run import TRAINED


@pytest.fixture(scope="session", autouse=True)
def logs_of_stable_baselines3(tmp_path_factory):
    """Where a learner that is given no logger makes its folder, by default one in /tmp each time."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("sb3"))


@pytest.fixture(scope="session")
def azure_log(tmp_path_factory):
    """An Azure log of 3000 requests: about two minutes at load 0.8 on the paper's agents."""
    return write_log(tmp_path_factory.mktemp("traces") / "azure.csv", log_lines("Azure", 3000))


@pytest.fixture(scope="session")
def scenario_arguments(azure_log):
    """Arguments that every registered scenario can be made with: a log for those that wait for one."""
    from gpualloc_env import SCENARIOS

    return {
        name: {"scenario": name, "trace": str(azure_log)} if scenario.trace else {"scenario": name}
        for name, scenario in SCENARIOS.items()
    }


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The directory of a short training run on the paper's four agents."""
    from training.train import TrainConfig, main

    out = tmp_path_factory.mktemp("trained") / "my-ppo"
    main(TrainConfig(**TRAINED, out=out))
    return out


@pytest.fixture(scope="session")
def exported(trained_run):
    """Its allocator as a file, by form: `npz` and `onnx`."""
    from training.export import ExportConfig, main

    files = {form: trained_run.parent / f"allocator.{form}" for form in ("npz", "onnx")}
    for file in files.values():
        main(ExportConfig(trained_run, out=file, episodes=4))
    return files
