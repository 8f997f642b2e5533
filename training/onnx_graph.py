"""The graph of an exported allocator as an .onnx file: the network, its actions and the manifest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from gpualloc_env.allocator_file import INPUT, MANIFEST, OUTPUT, Manifest
from gpualloc_env.observation import OBSERVATION_FEATURES
from gpualloc_env.state import AnyArray

# Old enough for every runtime that is still in use.
OPSET, IR_VERSION = 17, 8
_SHARE, _GPUS = OBSERVATION_FEATURES.index("share"), OBSERVATION_FEATURES.index("gpus")


class Graph:
    """Nodes, most of which read the result of the one before."""

    def __init__(self, kind: type[np.floating[Any]]) -> None:
        """Begin at the input.

        Args:
            kind: of the numbers within the graph.
        """
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.kind = kind
        self.last = INPUT

    def apply(self, operator: str, *inputs: AnyArray | str, of: str = "", **attributes: Any) -> str:
        """Append an operator on a result, the last one by default, and on others or constant arrays."""
        names, result = [of or self.last], f"{operator.lower()}_{len(self.nodes)}"
        for k, given in enumerate(inputs):
            if not isinstance(given, str):
                names.append(f"{result}_{k}")
                array = given.astype(self.kind) if given.dtype.kind == "f" else given
                self.constants.append(numpy_helper.from_array(array, names[-1]))
            else:
                names.append(given)
        self.nodes.append(helper.make_node(operator, names, [result], name=result, **attributes))
        self.last = result
        return result

    def cast(self, kind: int) -> None:
        """Append a change of type."""
        self.apply("Cast", to=kind)

    def model(self, manifest: Manifest) -> ModelProto:
        """The finished model, whose last result is the shares, or the corrections."""
        output = OUTPUT[manifest.network["actions"]["kind"]]
        self.nodes[-1].output[0] = output
        agents: int | str = "agents" if manifest.serves_any_number else len(manifest.agents)
        last: int | str = f"{output} of all" if manifest.serves_any_number else agents
        result = TensorProto.FLOAT if self.kind is np.float32 else TensorProto.DOUBLE
        seen: list[int | str] = ["batch", agents, len(manifest.features)]
        given: list[int | str] = ["batch", last]
        graph = helper.make_graph(
            self.nodes,
            "allocator",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, seen)],  # pyright: ignore
            [helper.make_tensor_value_info(output, result, given)],  # pyright: ignore
            self.constants,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gpualloc_env"
        )
        helper.set_model_props(model, {MANIFEST: manifest.model_dump_json()})
        checker.check_model(model, full_check=True)
        return model


def mlp(graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> None:
    """The operators of `gpualloc_env.networks.mlp`."""
    layers = len(settings["layers"]) - 1
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


def shared(graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> None:
    """The operators of `gpualloc_env.networks.shared`."""
    features, last = settings["layers"][0], len(settings["layers"]) - 2
    graph.cast(TensorProto.DOUBLE)
    rows = graph.last
    gpus = graph.apply("Slice", *_columns(_GPUS, _GPUS + 1), of=rows)
    left = graph.apply("Neg", of=graph.apply("Sub", np.ones(1), of=gpus))
    left = graph.apply("Max", np.array([1e-6]), of=left)
    share = graph.apply("Slice", *_columns(_SHARE, _SHARE + 1), of=rows)
    held = graph.apply("Mul", graph.apply("Div", left, of=gpus), of=share)
    before = graph.apply("Slice", *_columns(0, _SHARE), of=rows)
    after = graph.apply("Slice", *_columns(_SHARE + 1, features), of=rows)
    graph.apply("Concat", held, after, of=before, axis=2)
    pooled = ("", "")
    for k in range(last + 1):
        graph.apply("MatMul", arrays[f"weight_{k}"])
        own = graph.apply("Add", arrays[f"bias_{k}"])
        if 0 < k < last:
            context = [
                graph.apply("MatMul", arrays[f"{name}_{k}"], of=result)
                for name, result in zip(("mean", "max"), pooled, strict=True)
            ]
            graph.apply("Add", graph.apply("Add", context[1], of=context[0]), of=own)
        if k < last:
            units = graph.apply("Tanh")
            pooled = (
                graph.apply("ReduceMean", of=units, axes=[1], keepdims=1),
                graph.apply("ReduceMax", of=units, axes=[1], keepdims=1),
            )
            graph.last = units
    outputs = graph.apply("Flatten", of=graph.last, axis=1)
    if settings["idle"]:
        graph.apply("MatMul", arrays["weight_idle"], of=pooled[0])
        graph.apply("Add", arrays["bias_idle"])
        idle = graph.apply("Flatten", axis=1)
        graph.apply("Concat", idle, of=outputs, axis=1)


def simplex(graph: Graph, settings: Mapping[str, Any]) -> None:
    """The operators of `gpualloc_env.networks.simplex`."""
    clipped = graph.apply("Clip", *_limits(settings["bound"]))
    ends = np.array([-1]), np.array([np.iinfo(np.int64).max]), np.array([1])
    agents = graph.apply("Slice", np.array([0]), np.array([-1]), np.array([1]), of=clipped)
    idle = graph.apply("Slice", *ends, of=clipped)
    # log N, from the number of agents that the graph is shown.
    ones = graph.apply("Exp", of=graph.apply("Mul", np.zeros(1), of=agents))
    count = graph.apply("Log", of=graph.apply("ReduceSum", np.array([1]), of=ones, keepdims=1))
    biased = graph.apply("Add", graph.apply("Add", np.array([settings["idle_bias"]]), of=count), of=idle)
    graph.apply("Concat", biased, of=agents, axis=1)
    graph.apply("Softmax", axis=-1)
    graph.apply("Slice", np.array([0]), np.array([-1]), np.array([1]))


def corrections(graph: Graph, settings: Mapping[str, Any]) -> None:
    """The corrections are what the graph ends with: a plan that can jump is made by the package."""
    graph.apply("Clip", *_limits(settings["bound"]))


def _limits(bound: float) -> tuple[AnyArray, AnyArray]:
    return np.array(-bound), np.array(bound)


def _columns(first: int, last: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    return np.array([first]), np.array([last]), np.array([2])


GRAPHS: dict[str, Callable[[Graph, Mapping[str, Any], Mapping[str, AnyArray]], None]] = {
    "mlp": mlp,
    "shared": shared,
}
"""From the kind of a network to what appends its operators."""

ACTION_GRAPHS: dict[str, Callable[[Graph, Mapping[str, Any]], None]] = {
    "simplex": simplex,
    "corrections": corrections,
}
"""From the kind of actions to what appends theirs."""


def write_onnx(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write an allocator as an .onnx file, the manifest in its metadata."""
    settings = manifest.network
    graph = Graph(np.float64 if manifest.serves_any_number else np.float32)
    GRAPHS[settings["kind"]](graph, settings, arrays)
    ACTION_GRAPHS[settings["actions"]["kind"]](graph, settings["actions"])
    path.write_bytes(graph.model(manifest).SerializeToString())
