"""The graph of an exported allocator as an .onnx file: the network, the transform and the manifest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from gpualloc_env.allocator_file import INPUT, MANIFEST, OUTPUT, Manifest
from gpualloc_env.state import AnyArray

# Old enough for every runtime that is still in use.
OPSET, IR_VERSION = 17, 8


class Graph:
    """Nodes that follow each other, each reading the result of the one before."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._last = INPUT

    def apply(self, operator: str, *constants: AnyArray, **attributes: Any) -> None:
        """Append an operator on the last result and on constant arrays."""
        inputs, result = [self._last], f"{operator.lower()}_{len(self.nodes)}"
        for k, constant in enumerate(constants):
            inputs.append(f"{result}_{k}")
            self.constants.append(numpy_helper.from_array(constant, inputs[-1]))
        self.nodes.append(helper.make_node(operator, inputs, [result], name=result, **attributes))
        self._last = result

    def model(self, manifest: Manifest) -> ModelProto:
        """The finished model, whose last result is the shares."""
        self.nodes[-1].output[0] = OUTPUT
        shape = ["batch", len(manifest.agents)]
        graph = helper.make_graph(
            self.nodes,
            "allocator",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [*shape, len(manifest.features)])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
            self.constants,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gpualloc_env"
        )
        helper.set_model_props(model, {MANIFEST: manifest.model_dump_json()})
        checker.check_model(model, full_check=True)
        return model


def mlp(graph: Graph, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """The operators of `gpualloc_env.networks.mlp`."""
    settings = manifest.network
    agents, layers = len(manifest.agents), len(settings["layers"]) - 1
    graph.apply("Flatten", axis=1)
    graph.apply("Sub", arrays["mean"])
    graph.apply("Sub", arrays["mean_rest"])
    graph.apply("Mul", arrays["scale"])
    if settings["clip"] is not None:
        graph.apply("Clip", *_limits(settings["clip"]))
    for k in range(layers):
        graph.apply("Gemm", arrays[f"weight_{k}"], arrays[f"bias_{k}"])
        if k < layers - 1:
            graph.apply("Tanh")
    graph.apply("Clip", *_limits(settings["bound"]))
    graph.apply("Add", np.array([0.0] * agents + [settings["idle_bias"]], dtype=np.float32))
    graph.apply("Softmax", axis=-1)
    first, last, axis = np.array([0]), np.array([agents]), np.array([1])
    graph.apply("Slice", first, last, axis)


def _limits(bound: float) -> tuple[AnyArray, AnyArray]:
    return np.array(-bound, dtype=np.float32), np.array(bound, dtype=np.float32)


GRAPHS: dict[str, Callable[[Graph, Manifest, Mapping[str, AnyArray]], None]] = {"mlp": mlp}
"""From the kind of a network to what appends its operators."""


def write_onnx(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write an allocator as an .onnx file, the manifest in its metadata."""
    graph = Graph()
    GRAPHS[manifest.network["kind"]](graph, manifest, arrays)
    path.write_bytes(graph.model(manifest).SerializeToString())
