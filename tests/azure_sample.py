"""Request logs in Azure's format, made by the tests."""

import numpy as np

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def azure_lines(requests: int, seed: int = 0) -> list[str]:
    """Lines of an Azure log after its header: one request every second in the mean, random sizes."""
    generator = np.random.default_rng(seed)
    time = np.datetime64("2023-11-16T18:00:00", "ns")
    gaps = generator.exponential(1e9, requests).astype("timedelta64[ns]")
    stamps = time + np.cumsum(gaps)
    prompts = generator.integers(1, 5000, requests)
    outputs = generator.integers(1, 500, requests)
    return [
        f"{str(stamp)[:27].replace('T', ' ')},{prompt},{output}"
        for stamp, prompt, output in zip(stamps, prompts, outputs, strict=True)
    ]
