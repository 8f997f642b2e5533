"""Time and memory that a log of a million requests takes to become episodes, in every format.

A benchmark measures; nothing here fails because a machine is slow.
"""

import json
import re
import subprocess
import sys
from functools import lru_cache

import pytest
from support.log_samples import NAMED, log_lines, write_log

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import _cut_log
from gpualloc_env.traces.formats import FORMATS

REQUESTS = 1_000_000
# The peak of a process of its own, read from the kernel: what getrusage tells of a child begins
# with the peak of its parent.
PEAK = """
import json, sys
from gpualloc_env import load_scenario

def kilobytes(entry):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(entry))

before = kilobytes("VmRSS")
windows = load_scenario("trace", trace=sys.argv[1]).windows
print(json.dumps({"peak_mb": (kilobytes("VmHWM") - before) / 1024, "accounting": windows.accounting}))
"""


lines_of = lru_cache(maxsize=1)(log_lines)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_million_requests(benchmark, record, tmp_path, form, suffix):
    path = write_log(tmp_path / f"log{suffix}", lines_of(form, REQUESTS))

    def load():
        return load_scenario("trace", trace=path).windows

    windows = benchmark.pedantic(load, setup=_cut_log.cache_clear, rounds=2)
    command = [sys.executable, "-c", PEAK, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    child = json.loads(run.stdout)
    record(
        "A log of a million requests made into episodes",
        f"{form}{suffix}",
        benchmark.stats.stats.median,
        "s",
        f"{path.stat().st_size / 2**20:,.0f} MiB, peak memory {child['peak_mb']:,.0f} MiB",
    )
    assert child["accounting"] == windows.accounting
    counted = r"(\d+) in \d+ training.* (\d+) in \d+ evaluation.* (\d+) in the remainder"
    parts = re.search(counted, windows.accounting).groups()
    assert sum(map(int, parts)) == REQUESTS
    visits = 1 if form in NAMED else 2
    assert len(windows.played.step) == visits * int(parts[0])
    path.unlink()
