"""What the graph of an .onnx file says where another runtime runs it."""

import onnxruntime


def graph_outputs(path, observation):
    """The graph's result for observations, (B, N, F): shares, (B, N), or corrections, (B, N · kinds)."""
    session = onnxruntime.InferenceSession(path)
    (result,) = session.run(None, {"observation": observation})
    return result
