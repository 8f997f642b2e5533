import pytest
from azure_sample import AZURE_HEADER, azure_lines


@pytest.fixture(scope="session")
def azure_log(tmp_path_factory):
    """An Azure log of 3000 requests: about two minutes at load 0.8 on the paper's agents."""
    path = tmp_path_factory.mktemp("traces") / "azure.csv"
    path.write_text("\n".join([AZURE_HEADER, *azure_lines(3000)]) + "\n")
    return path


@pytest.fixture(scope="session")
def scenario_arguments(azure_log):
    """Arguments that every registered scenario can be made with: a log for those that wait for one."""
    from gpualloc_env import SCENARIOS

    return {
        name: {"scenario": name, "trace": str(azure_log)} if scenario.trace else {"scenario": name}
        for name, scenario in SCENARIOS.items()
    }
