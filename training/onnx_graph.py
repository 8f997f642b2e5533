"""The graph of an exported allocator as an .onnx file: the network, its actions and the manifest."""

import math
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

    def apply(
        self, operator: str, *inputs: AnyArray | str, of: AnyArray | str | None = None, **attributes: Any
    ) -> str:
        """Append an operator on a result, the last one by default, and on others or constant arrays."""
        names, result = list[str](), f"{operator.lower()}_{len(self.nodes)}"
        for k, given in enumerate((self.last if of is None else of, *inputs)):
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


# Operators are few on purpose: a runtime spends more on each of them than on the arithmetic within.


def mlp(graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> str | None:
    """The operators of `gpualloc_env.networks.mlp`, whose outputs are all in one row."""
    layers = len(settings["layers"]) - 1
    weight, bias = arrays["weight_0"], arrays["bias_0"]
    graph.apply("Flatten", axis=1)
    if settings["clip"] is None:
        # Nothing stands between the normalisation and the first layer, so it is part of that layer.
        exact = arrays["mean"].astype(np.float64) + arrays["mean_rest"]
        scaled = weight * arrays["scale"].astype(np.float64)[:, None]
        weight, bias = scaled, bias - exact @ scaled
    else:
        graph.apply("Sub", arrays["mean"])
        graph.apply("Sub", arrays["mean_rest"])
        graph.apply("Mul", arrays["scale"])
        graph.apply("Clip", *_limits(settings["clip"]))
    graph.apply("Gemm", weight, bias)
    for k in range(1, layers):
        graph.apply("Tanh")
        graph.apply("Gemm", arrays[f"weight_{k}"], arrays[f"bias_{k}"])
    return None


def shared(graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> str | None:
    """The operators of `gpualloc_env.networks.shared`; returns the output for idle capacity, (B, 1)."""
    last = len(settings["layers"]) - 2
    graph.cast(TensorProto.DOUBLE)
    rows = graph.last
    gpus = graph.apply("Slice", *_columns(_GPUS), of=rows)
    left = graph.apply("Max", np.array([1e-6]), of=graph.apply("Sub", gpus, of=np.ones(1)))
    share = graph.apply("Slice", *_columns(_SHARE), of=rows)
    held = graph.apply("Div", left, of=graph.apply("Mul", gpus, of=share))
    # What is held stands behind the columns, and the share of the platform counts for nothing.
    graph.apply("Concat", held, of=rows, axis=2)
    first = np.concatenate([arrays["weight_0"], arrays["weight_0"][_SHARE : _SHARE + 1]])
    first[_SHARE] = 0.0
    graph.apply("Add", arrays["bias_0"], of=graph.apply("MatMul", first))
    units = graph.apply("Tanh")
    for k in range(1, last):
        mean = graph.apply("ReduceMean", of=units, axes=[1], keepdims=1)
        most = graph.apply("ReduceMax", of=units, axes=[1], keepdims=1)
        both = np.concatenate([arrays[f"mean_{k}"], arrays[f"max_{k}"]])
        context = graph.apply("MatMul", both, of=graph.apply("Concat", most, of=mean, axis=2))
        context = graph.apply("Add", arrays[f"bias_{k}"], of=context)
        own = graph.apply("MatMul", arrays[f"weight_{k}"], of=units)
        units = graph.apply("Tanh", of=graph.apply("Add", context, of=own))
    idle = None
    if settings["idle"]:
        mean = graph.apply("ReduceMean", of=units, axes=[1], keepdims=0)
        idle = graph.apply("Gemm", arrays["weight_idle"], arrays["bias_idle"], of=mean)
    graph.apply("MatMul", arrays[f"weight_{last}"], of=units)
    graph.apply("Add", arrays[f"bias_{last}"])
    graph.apply("Flatten", axis=1)
    return idle


def simplex(graph: Graph, settings: Mapping[str, Any], agents: int, idle: str | None) -> None:
    """The operators of `gpualloc_env.networks.simplex`."""
    limits = _limits(settings["bound"])
    if idle is None:
        graph.apply("Clip", *limits)
        graph.apply("Add", np.append(np.zeros(agents), settings["idle_bias"] + math.log(agents)))
        graph.apply("Softmax", axis=-1)
        graph.apply("Slice", np.array([0]), np.array([-1]), np.array([1]))
        return
    # e^x_i / (Σ_j e^x_j + N e^idle) is e^x_i / Σ_j (e^x_j + e^idle), for any number of agents.
    weights = graph.apply("Exp", of=graph.apply("Clip", *limits))
    graph.apply("Clip", *limits, of=idle)
    graph.apply("Exp", of=graph.apply("Add", np.array([settings["idle_bias"]])))
    total = graph.apply("ReduceSum", np.array([1]), of=graph.apply("Add", graph.last, of=weights))
    graph.apply("Div", total, of=weights)


def corrections(graph: Graph, settings: Mapping[str, Any], agents: int, idle: str | None) -> None:
    """The corrections are what the graph ends with: a plan that can jump is made by the package."""
    graph.apply("Clip", *_limits(settings["bound"]))


def _limits(bound: float) -> tuple[AnyArray, AnyArray]:
    return np.array(-bound), np.array(bound)


def _columns(column: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    return np.array([column]), np.array([column + 1]), np.array([2])


GRAPHS: dict[str, Callable[[Graph, Mapping[str, Any], Mapping[str, AnyArray]], str | None]] = {
    "mlp": mlp,
    "shared": shared,
}
"""From the kind of a network to what appends its operators, and returns the output for idle capacity
where that stands apart from those of the agents."""

ACTION_GRAPHS: dict[str, Callable[[Graph, Mapping[str, Any], int, str | None], None]] = {
    "simplex": simplex,
    "corrections": corrections,
}
"""From the kind of actions to what appends theirs, given the number of agents in training and that output."""


def write_onnx(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write an allocator as an .onnx file, the manifest in its metadata."""
    settings = manifest.network
    graph = Graph(np.float64 if manifest.serves_any_number else np.float32)
    idle = GRAPHS[settings["kind"]](graph, settings, arrays)
    ACTION_GRAPHS[settings["actions"]["kind"]](graph, settings["actions"], len(manifest.agents), idle)
    path.write_bytes(graph.model(manifest).SerializeToString())
