"""An exported network as a graph that any ONNX runtime runs: its arrays and what is done with them.

The graphs are written and never read back: an .npz is this package's own form, an .onnx is for others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from gpualloc_env.allocator.actions import outputs_for
from gpualloc_env.allocator.file import MANIFEST, Manifest
from gpualloc_env.allocator.networks import LOG_ODDS_LEAST, LOG_ODDS_SCALE
from gpualloc_env.simulation.observation import NEAREST_TO_ONE, RESOLUTION
from gpualloc_env.simulation.state import AnyArray

# Old enough for every runtime that is still in use.
OPSET, IR_VERSION = 17, 8
INPUT = "observation"
"""Name of the graph's input, (B, N, F) float32: the columns of the observation that the network reads."""


TINY = 1e-30  # in place of nothing, in a denominator


class Graph:
    """Operators, each after those whose results it reads."""

    def __init__(self, arrays: Iterable[str], kind: type[np.floating[Any]]) -> None:
        """Begin with the input and the arrays in the type of the graph.

        Args:
            arrays: names of the network's float32 arrays.
            kind: of the numbers within the graph.
        """
        self.nodes: list[NodeProto] = []
        self.kind = kind
        self.type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self._converted: dict[str, str] = {}
        if kind is not np.float32:
            self._converted = {name: self.apply("Cast", name, to=self.type) for name in (INPUT, *arrays)}

    def apply(self, operator: str, *inputs: str | float | list[int], **attributes: Any) -> str:
        """Append an operator and return the name of its result.

        Args:
            operator: of ONNX.
            inputs: names of results, of arrays or of the input; or constants, a number of the graph's
                type or a list of indices.
            attributes: of the operator.
        """
        names = [
            self._converted.get(given, given) if isinstance(given, str) else self._constant(given)
            for given in inputs
        ]
        # Operators begin with a capital, names of arrays do not.
        result = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [result], result, **attributes))
        return result

    def affine(self, values: str, layer: int | str) -> str:
        """Append a layer without its tanh."""
        return self.apply("Add", self.apply("MatMul", values, f"weight_{layer}"), f"bias_{layer}")

    def _constant(self, value: float | list[int]) -> str:
        array = np.array(value, dtype=np.int64 if isinstance(value, list) else self.kind)
        return self.apply("Constant", value=numpy_helper.from_array(array))


def mlp(graph: Graph, settings: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The operators of `gpualloc_env.allocator.networks.mlp`; returns the outputs, (B, A)."""
    last = len(settings["layers"]) - 2
    values = graph.apply("Sub", graph.apply("Flatten", INPUT), "mean")
    values = graph.apply("Mul", graph.apply("Sub", values, "mean_rest"), "scale")
    if settings["clip"] is not None:
        values = _clip(graph, values, settings["clip"])
    for k in range(last):
        values = graph.apply("Tanh", graph.affine(values, k))
    return graph.affine(values, last)


def shared(graph: Graph, settings: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The operators of `gpualloc_env.allocator.networks.shared`; returns the outputs, (B, A)."""
    last, place = len(settings["layers"]) - 2, columns.index("share")
    gpus = graph.apply("Gather", INPUT, [columns.index("gpus")], axis=2)
    left = graph.apply("Max", graph.apply("Sub", 1.0, gpus), 1e-6)
    share = graph.apply("Gather", INPUT, [place], axis=2)
    held = graph.apply("Mul", share, graph.apply("Div", gpus, left))
    before = graph.apply("Slice", INPUT, [0], [place], [2])
    after = graph.apply("Slice", INPUT, [place + 1], [len(columns)], [2])
    values = graph.apply("Concat", before, held, after, axis=2)
    twice = settings.get("log_odds", ())
    if twice:
        some = graph.apply("Gather", values, [columns.index(name) for name in twice], axis=2)
        some = graph.apply("Min", some, 1.0)
        above = graph.apply("Sub", 1.0 + LOG_ODDS_LEAST, some)
        odds = graph.apply("Log", graph.apply("Div", graph.apply("Add", some, LOG_ODDS_LEAST), above))
        values = graph.apply("Concat", values, graph.apply("Mul", odds, LOG_ODDS_SCALE), axis=2)
    for k in range(last):
        results = graph.affine(values, k)
        if k > 0:
            mean = graph.apply("MatMul", graph.apply("ReduceMean", values, axes=[1]), f"mean_{k}")
            most = graph.apply("MatMul", graph.apply("ReduceMax", values, axes=[1]), f"max_{k}")
            results = graph.apply("Add", results, graph.apply("Add", mean, most))
        values = graph.apply("Tanh", results)
    outputs = graph.apply("Flatten", graph.affine(values, last))
    if not settings["idle"]:
        return outputs
    idle = graph.affine(graph.apply("ReduceMean", values, axes=[1], keepdims=0), "idle")
    return graph.apply("Concat", outputs, idle, axis=1)


def simplex(graph: Graph, settings: Mapping[str, Any], outputs: str, columns: Sequence[str]) -> None:
    """The operators of `gpualloc_env.allocator.actions.simplex`."""
    outputs = _clip(graph, outputs, settings["bound"])
    _softmax(graph, settings, graph.apply("Slice", outputs, [0], [-1], [1]), outputs)


def _softmax(graph: Graph, settings: Mapping[str, Any], logits: str, outputs: str) -> str:
    """Shares on the simplex: e^x_i / (Σ_j e^x_j + N e^idle) is e^x_i / Σ_j (e^x_j + e^idle)."""
    agents, idle = graph.apply("Exp", logits), graph.apply("Gather", outputs, [-1], axis=1)
    idle = graph.apply("Exp", graph.apply("Add", idle, float(settings["idle_bias"])))
    return graph.apply("Div", agents, graph.apply("ReduceSum", graph.apply("Add", agents, idle), [1]))


def hysteresis(graph: Graph, settings: Mapping[str, Any], outputs: str, columns: Sequence[str]) -> None:
    """The operators of `gpualloc_env.allocator.actions.hysteresis`."""

    def column(name: str) -> str:
        return graph.apply("Squeeze", graph.apply("Gather", INPUT, [columns.index(name)], axis=2), [2])

    held, gpus = column("share"), graph.apply("Slice", column("gpus"), [0], [1], [1])
    gpus = graph.apply("Div", gpus, graph.apply("Max", graph.apply("Sub", 1.0, gpus), NEAREST_TO_ONE))
    gpus = graph.apply("Max", gpus, RESOLUTION)
    free = graph.apply("Slice", column("deadband"), [0], [1], [1])
    free = graph.apply("Div", graph.apply("Max", graph.apply("Sub", free, RESOLUTION), 0.0), gpus)
    outputs = _clip(graph, outputs, settings["bound"])
    pairs = graph.apply("Reshape", graph.apply("Slice", outputs, [0], [-1], [1]), [0, -1, 2])
    logits, thresholds = (
        graph.apply("Squeeze", graph.apply("Gather", pairs, [k], axis=2), [2]) for k in (0, 1)
    )
    thresholds = graph.apply("Sigmoid", graph.apply("Add", thresholds, float(settings["threshold_bias"])))
    thresholds = graph.apply("Div", graph.apply("Mul", thresholds, float(settings["widest"])), gpus)
    target = _softmax(graph, settings, logits, outputs)
    change = graph.apply("Sub", target, held)
    moves = graph.apply("Greater", graph.apply("Abs", change), thresholds)
    drift = graph.apply("Max", graph.apply("Min", change, free), graph.apply("Neg", free))
    rises, falls = graph.apply("Max", drift, 0.0), graph.apply("Min", drift, 0.0)

    def total(where: str, yes: str | float, no: str | float) -> str:
        return graph.apply("ReduceSum", graph.apply("Where", where, yes, no), [1])

    stays = graph.apply("Add", held, falls)
    kept = total(moves, 0.0, stays)
    stays = graph.apply("Div", stays, graph.apply("Max", kept, 1.0))
    rising, asked = total(moves, 0.0, rises), total(moves, target, 0.0)
    # Of nothing that rises or moves no part is taken, whatever it is.
    room = graph.apply("Max", graph.apply("Sub", 1.0, kept), 0.0)
    part = graph.apply("Div", room, graph.apply("Max", rising, TINY))
    part = graph.apply("Min", part, 1.0)
    left = graph.apply("Max", graph.apply("Sub", room, graph.apply("Mul", part, rising)), 0.0)
    scale = graph.apply("Min", graph.apply("Div", left, graph.apply("Max", asked, TINY)), 1.0)
    follows = graph.apply("Add", stays, graph.apply("Mul", part, rises))
    graph.apply("Where", moves, graph.apply("Mul", target, scale), follows)


def clipped(graph: Graph, settings: Mapping[str, Any], outputs: str, columns: Sequence[str]) -> None:
    """What is assumed is what the graph ends with: a plan that can jump is made by the package."""
    _clip(graph, outputs, settings["bound"])


def _clip(graph: Graph, values: str, bound: float) -> str:
    return graph.apply("Clip", values, -float(bound), float(bound))


NETWORKS: dict[
    str, tuple[Callable[[Graph, Mapping[str, Any], Sequence[str]], str], type[np.floating[Any]]]
] = {
    "mlp": (mlp, np.float32),
    "shared": (shared, np.float64),
}
"""From the kind of a network to what appends its operators, and the numbers that it computes with."""

ACTIONS: dict[str, tuple[Callable[[Graph, Mapping[str, Any], str, Sequence[str]], None], str]] = {
    "simplex": (simplex, "shares"),
    "hysteresis": (hysteresis, "shares"),
    "corrections": (clipped, "corrections"),
    "assumptions": (clipped, "assumptions"),
    "priced-assumptions": (clipped, "assumptions"),
}
"""From the kind of actions to what appends theirs to the outputs, and to the name of the graph's output."""


def build(
    settings: Mapping[str, Any],
    arrays: Mapping[str, AnyArray],
    agents: int | None,
    columns: Sequence[str],
    metadata: Mapping[str, str],
) -> ModelProto:
    """The model of a network and its actions.

    Args:
        settings: of both, as `gpualloc_env.allocator.decider.Decider` takes them.
        arrays: of the network, float32; they are the graph's initializers.
        agents: N; None where any number is served.
        columns: names of the columns of the observation that the network reads.
        metadata: of the file.

    Raises:
        KeyError: a setting is missing.
        ValueError, TypeError: a setting is of no use.
    """
    network, kind = NETWORKS[settings["kind"]]
    acts = settings["actions"]["kind"]
    actions, output = ACTIONS[acts]
    graph = Graph(arrays, kind)
    actions(graph, settings["actions"], network(graph, settings, columns), columns)
    graph.nodes[-1].output[0] = output
    rows: list[int | str] = ["batch", agents or "agents", len(columns)]
    results: list[int | str] = ["batch", f"{output} of all"]
    if agents:
        results[1] = agents if output == "shares" else outputs_for(acts, agents)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "allocator",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, rows)],  # pyright: ignore
            [helper.make_tensor_value_info(output, graph.type, results)],  # pyright: ignore
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gpualloc_env",
    )
    helper.set_model_props(model, dict(metadata))
    return model


def write_onnx(path: Path, manifest: Manifest, arrays: Mapping[str, AnyArray]) -> None:
    """Write a network as a graph for any ONNX runtime, its float32 arrays the initializers.

    The graph leads from `observation`, (B, N, F) float32, to `shares`, (B, N), or to `corrections`,
    (B, N · kinds), from which the package makes a plan. The manifest is in the metadata, as JSON. The
    package itself reads the .npz form of an allocator.
    """
    agents = None if manifest.serves_any_number else len(manifest.agents)
    model = build(manifest.network, arrays, agents, manifest.features, {MANIFEST: manifest.model_dump_json()})
    checker.check_model(model, full_check=True)  # pyright: ignore[reportUnknownMemberType]
    path.write_bytes(model.SerializeToString())
