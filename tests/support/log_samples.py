"""Request logs made by the tests, in every format that is read, and what a batch plays of them."""

import gzip
import json

import numpy as np

from gpualloc_env import Batch

AGENTS = ("coordinator", "nlp", "vision", "reasoning")
HEADERS = {
    "Azure": "TIMESTAMP,ContextTokens,GeneratedTokens",
    "BurstGPT": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "Mooncake": "",
    "plain": "time_s,agent,work",
    "plain with tokens": "time_s,prompt_tokens,output_tokens",
    "models": "time_s,model,prompt_tokens,output_tokens",
    "image models": "gmt_create,exec_time_seconds,predict_type,checkpoint_model_version_id",
}


def _azure(time_s, prompt, output, agent):
    stamp = np.datetime64("2023-11-16T18:00:00", "ns") + np.timedelta64(int(1e9 * time_s), "ns")
    return f"{str(stamp)[:27].replace('T', ' ')},{prompt},{output}"


def _burst_gpt(time_s, prompt, output, agent):
    return f"{time_s:.3f},ChatGPT,{prompt},{output},{prompt + output},API log"


def _mooncake(time_s, prompt, output, agent):
    # The stamps of the real log: every 3 s, give or take a millisecond.
    stamp = round(time_s // 3 * 3000 + (time_s // 3 % 3 - 1 if time_s >= 3 else 0))
    hashes = list(range(prompt, prompt + 1 + prompt // 100))
    return json.dumps(
        {"timestamp": stamp, "input_length": prompt, "output_length": output, "hash_ids": hashes}
    )


def _plain(time_s, prompt, output, agent):
    return f"{time_s:.6f},{AGENTS[agent]},{output / 250:g}"


def _plain_with_tokens(time_s, prompt, output, agent):
    return f"{time_s:.3f},{prompt},{output}"


def _models(time_s, prompt, output, agent):
    return f"{time_s:.3f},{AGENTS[agent]},{prompt},{output}"


def _image_models(time_s, prompt, output, agent):
    stamp = np.datetime64("2024-11-06T18:00:00", "ms") + np.timedelta64(int(1e3 * time_s), "ms")
    return f"{str(stamp).replace('T', ' ')},{(prompt + output) / 1000:g},TXT_2_IMG,{AGENTS[agent]}"


LINES = {
    "Azure": _azure,
    "BurstGPT": _burst_gpt,
    "Mooncake": _mooncake,
    "plain": _plain,
    "plain with tokens": _plain_with_tokens,
    "models": _models,
    "image models": _image_models,
}


NAMED = {"plain", "models", "image models"}
"""Formats of logs whose requests name an agent."""


def log_lines(form: str, requests: int, seed: int = 0) -> list[str]:
    """A log's lines, with its header if it has one: a request a second in the mean, of random sizes."""
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.exponential(1, requests))
    prompts = generator.integers(1, 5000, requests)
    outputs = generator.integers(1, 500, requests)
    agents = generator.integers(0, len(AGENTS), requests)
    columns = (column.tolist() for column in (times, prompts, outputs, agents))
    lines = [LINES[form](*request) for request in zip(*columns, strict=True)]
    return [HEADERS[form], *lines] if HEADERS[form] else lines


def write_log(path, lines, end="\n"):
    """Write lines and return the path; a name that ends in .gz packs them."""
    text = end.join([*lines, ""]).encode()
    path.write_bytes(gzip.compress(text, compresslevel=1) if path.suffix == ".gz" else text)
    return path


def played(scenario):
    """External arrivals of every episode of a scenario's log as a batch plays them, (W, T + 1, N)."""
    episodes = scenario.windows.episodes
    batch = Batch(scenario, episodes)
    batch.seed(0)
    batch.reset()
    return batch.arrivals[:, :episodes].transpose(1, 0, 2).copy()
