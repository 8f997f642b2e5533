"""Make up logs of sessions, each of another team of agents, and a scenario that plays each of them.

A log has the sessions of one team, whose lead calls one or more of the others in turn, again and again. Who
leads, who is called how often, how long prompts and outputs are, how much of what was said is in the next
prompt, and the pauses between calls are drawn anew for each team.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from gpualloc_env import load_scenario
from gpualloc_env.traces.sessions import COLUMNS

LONGEST_PROMPT = 12_000  # [tokens]


def calls_of_a_team(names: tuple[str, ...], sessions: int, seed: int) -> Iterator[tuple[object, ...]]:
    """The calls of a team's sessions as rows of `COLUMNS`."""
    generator = np.random.default_rng(seed)

    def from_to(least: float, most: float, size: int | None = None) -> Any:
        return np.exp(generator.uniform(np.log(least), np.log(most), size))

    lead, *others = generator.permutation(len(names))[: generator.integers(2, len(names) + 1)]
    odds = generator.dirichlet(np.full(len(others), 2.0))
    most_at_a_time = generator.integers(1, len(others) + 1)
    rounds, pause_s, remembered = from_to(1.5, 15), from_to(0.3, 8), generator.uniform(0, 1)
    prompts, outputs = from_to(150, 4000, len(names)), from_to(50, 500, len(names))
    for session in range(sessions):
        time_s, call, said = 0.0, 0, 0
        for _ in range(generator.geometric(1 / rounds)):
            size = generator.integers(1, most_at_a_time + 1)
            for agent in (lead, *generator.choice(others, size, replace=False, p=odds)):
                prompt = 1 + int(prompts[agent] * generator.lognormal(-0.2, 0.6) + remembered * said)
                output = 1 + int(outputs[agent] * generator.lognormal(-0.3, 0.8))
                prompt = min(prompt, LONGEST_PROMPT)
                yield session, call, round(time_s, 3), names[agent], prompt, output
                call, said = call + 1, said + output
                time_s += 0.3 + 0.02 * output + generator.exponential(pause_s)


def main(out: Path, teams: int, sessions: int, first_seed: int, scenario: str) -> None:
    """Write the logs and scenarios `out`/SEED.csv and `out`/SEED.toml."""
    like = load_scenario(scenario)
    if like.sessions is None:
        sys.exit(f"error: --scenario {scenario} plays no sessions; give magentic, or a file with [sessions]")
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + teams):
        log = out / f"{seed}.csv"
        with log.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            rows.writerows(calls_of_a_team(like.agent_names, sessions, seed))
        made = like.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})
        made["description"] = f"Made-up sessions of team {seed}."
        made["sessions"]["path"] = log.name
        log.with_suffix(".toml").write_text(tomlkit.dumps(made), encoding="utf-8")
    print(f"{teams} logs of {sessions} sessions, and a scenario beside each, in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/sessions"), help="(default: runs/sessions)")
    parser.add_argument("--teams", type=int, default=15, help="a log for each (default: 15)")
    parser.add_argument("--sessions", type=int, default=40, help="in each log (default: 40)")
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow (default: 0)")
    parser.add_argument("--scenario", default="magentic", help="all but its sessions (default: magentic)")
    main(**vars(parser.parse_args()))
