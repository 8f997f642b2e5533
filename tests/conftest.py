import pytest
from log_samples import log_lines, write_log


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
