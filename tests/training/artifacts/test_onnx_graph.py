"""The graph of an .onnx file is its network for any runtime; a file whose graph says more is refused."""

import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.graph_runs import graph_outputs
from support.npz_contents import contents
from support.places import PRETRAINED

from gpualloc_env.allocator.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.file import read, write_npz, write_onnx
from gpualloc_env.allocator.networks import shared

FOLDER = PRETRAINED
FILES = {
    "ppo": FOLDER / "ppo-serverless" / "seed-0.npz",
    "ppo-shared": FOLDER / "ppo-shared-serverless" / "seed-0.npz",
    "ppo-residual": FOLDER / "ppo-residual-serverless" / "seed-0.npz",
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The repository's allocators as .onnx files."""
    made = {}
    for name, path in FILES.items():
        made[name] = tmp_path_factory.mktemp("graphs") / f"{name}.onnx"
        write_onnx(made[name], read(path)[0], contents(path)[1])
    return made


def random_observations(count, agents):
    return np.random.default_rng(0).random((count, agents, 19), dtype=np.float32)


@pytest.mark.parametrize(("name", "agents"), [("ppo", 4), *(("ppo-shared", n) for n in (4, 2, 7))])
def test_a_runtime_finds_the_shares_of_ten_thousand_observations(graphs, name, agents):
    seen = random_observations(10_000, agents)
    shares = Allocator.load(FILES[name], agents=[f"agent-{k}" for k in range(agents)])(seen)
    found = graph_outputs(graphs[name], seen)
    assert found.shape == shares.shape and np.ptp(shares, axis=0).min() > 0.1
    assert np.abs(found - shares).max() <= 1e-6


@pytest.mark.parametrize("agents", [4, 2, 7])
@pytest.mark.parametrize("bound", [2.0, 0.5])
def test_a_runtime_finds_the_corrections_of_ten_thousand_observations(tmp_path, agents, bound):
    seen = random_observations(10_000, agents)
    manifest, arrays = read(FILES["ppo-residual"])[0], contents(FILES["ppo-residual"])[1]
    manifest.network["actions"]["bound"] = bound
    write_onnx(tmp_path / "bounded.onnx", manifest, arrays)
    outputs = shared(manifest.network, arrays, (agents, 19))(seen)
    assert 0.5 < np.abs(outputs).max() < 2.0 and np.ptp(outputs, axis=0).min() > 0.1
    found = graph_outputs(tmp_path / "bounded.onnx", seen)
    assert found.shape == outputs.shape
    assert np.abs(found - outputs.clip(-bound, bound)).max() <= 1e-6


@pytest.mark.parametrize("name", FILES)
def test_both_forms_decide_the_same_bit_for_bit(graphs, name):
    allocators = [Allocator.load(path) for path in (FILES[name], graphs[name])]
    assert allocators[0].manifest == allocators[1].manifest
    shares = [allocator(random_observations(2000, 4)) for allocator in allocators]
    assert (shares[0] == shares[1]).all()


@pytest.mark.parametrize("name", FILES)
def test_the_initializers_are_the_networks_own_arrays(graphs, name):
    arrays = contents(FILES[name])[1]
    held = {tensor.name: tensor for tensor in onnx.load(graphs[name]).graph.initializer}
    assert set(held) == set(arrays)
    for key, array in arrays.items():
        found = numpy_helper.to_array(held[key])
        assert found.dtype == np.float32 and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_weight_decides(graphs, tmp_path, name):
    model, arrays = onnx.load(graphs[name]), contents(FILES[name])[1]
    arrays["bias_1"] = arrays["bias_1"] + np.float32(0.5)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias_1")
    tensor.CopyFrom(numpy_helper.from_array(arrays["bias_1"], "bias_1"))
    onnx.save(model, tmp_path / "changed.onnx")
    write_npz(tmp_path / "changed.npz", read(FILES[name])[0], arrays)
    seen = random_observations(100, 4)
    shares = [Allocator.load(tmp_path / f"changed.{form}")(seen) for form in ("npz", "onnx")]
    assert (shares[0] == shares[1]).all()
    assert np.abs(shares[0] - Allocator.load(FILES[name])(seen)).max() > 1e-3


def node(model, operator):
    return next(node for node in model.graph.node if node.op_type == operator)


def initializer(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def another_operator(model):
    node(model, "Tanh").op_type = "Sigmoid"


def another_node(model):
    last = model.graph.node[-1]
    result, last.output[0] = last.output[0], "before"
    model.graph.node.append(helper.make_node("Sqrt", ["before"], [result]))


def a_node_without_use(model):
    model.graph.node.append(helper.make_node("Neg", ["observation"], ["unused"]))


def another_constant(model):
    value = node(model, "Constant").attribute[0].t
    value.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(value) + 1))


def another_bound_in_the_manifest(model):
    (entry,) = model.metadata_props
    assert '"bound":' in entry.value
    entry.value = entry.value.replace('"bound":', '"bound":1.5, "was":')


def another_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


def another_output(model):
    model.graph.output[0].name = model.graph.node[-2].output[0]


def another_opset(model):
    model.opset_import[0].version = 16


def a_function_in_place_of_an_operator(model):
    opset = helper.make_opsetid("", 17)
    body = [helper.make_node("Sigmoid", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Tanh", ["x"], ["y"], body, [opset]))


def a_weight_twice(model):
    model.graph.initializer.append(initializer(model, "bias_0"))


ANOTHER_GRAPH = "its graph is not that of its manifest and arrays"


def no_weight(model):
    model.graph.initializer.remove(initializer(model, "bias_1"))


def one_weight_more(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "more"))


def a_weight_of_another_shape(model):
    initializer(model, "bias_1").CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "bias_1"))


def a_weight_of_another_type(model):
    bias = numpy_helper.to_array(initializer(model, "bias_1")).astype(np.float64)
    initializer(model, "bias_1").CopyFrom(numpy_helper.from_array(bias, "bias_1"))


def a_weight_that_is_not_finite(model):
    bias = np.full_like(numpy_helper.to_array(initializer(model, "bias_1")), np.nan)
    initializer(model, "bias_1").CopyFrom(numpy_helper.from_array(bias, "bias_1"))


def a_weight_in_another_file(model):
    tensor = initializer(model, "bias_1")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_operator, ANOTHER_GRAPH),
        (another_node, ANOTHER_GRAPH),
        (a_node_without_use, ANOTHER_GRAPH),
        (another_constant, ANOTHER_GRAPH),
        (another_bound_in_the_manifest, ANOTHER_GRAPH),
        (another_input, ANOTHER_GRAPH),
        (another_output, ANOTHER_GRAPH),
        (another_opset, ANOTHER_GRAPH),
        (a_function_in_place_of_an_operator, ANOTHER_GRAPH),
        (a_weight_twice, ANOTHER_GRAPH),
        (no_weight, "the arrays must be .*bias_1"),
        (one_weight_more, "the arrays must be .*, more;"),
        (a_weight_of_another_shape, r"bias_1 must be float32 of shape \(\d+,\), got float32 of shape \(3,\)"),
        (a_weight_of_another_type, "bias_1 must be float32 of shape"),
        (a_weight_that_is_not_finite, "bias_1 is not finite"),
        (a_weight_in_another_file, "bias_1 must be float32 of shape .* in raw bytes"),
    ],
)
def test_a_file_whose_graph_is_not_its_network_is_refused(graphs, tmp_path, name, change, words):
    model = onnx.load(graphs[name])
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(AllocatorError, match=rf"changed\.onnx is damaged: .*{words}") as caught:
        Allocator.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and "export it again with python -m" in message


def test_a_graph_of_somebody_elses_is_no_allocator(graphs, tmp_path):
    model = onnx.load(graphs["ppo"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(AllocatorError, match=r"foreign\.onnx is no exported allocator: it has no manifest"):
        Allocator.load(tmp_path / "foreign.onnx")


def test_flipped_bytes_are_refused_or_another_weight(graphs, tmp_path):
    data, rng = bytearray(graphs["ppo-residual"].read_bytes()), np.random.default_rng(0)
    healthy, refused = onnx.load(graphs["ppo-residual"]), 0
    for place in rng.integers(len(data), size=300).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "flipped.onnx").write_bytes(damaged)
        try:
            Allocator.load(tmp_path / "flipped.onnx")
        except AllocatorError:
            refused += 1
        else:
            kept = onnx.load(tmp_path / "flipped.onnx")
            assert kept.graph.node == healthy.graph.node
    assert 50 < refused < 250


def test_without_onnx_the_remedy_is_named(graphs, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "gpualloc_env.onnx_graph")
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = r"needs the package onnx: pip install 'gpualloc-env\[onnx\]', or"
    with pytest.raises(AllocatorError, match=words):
        Allocator.load(graphs["ppo"])
    manifest = Allocator.load(FILES["ppo"]).manifest  # an .npz needs nothing more
    with pytest.raises(AllocatorError, match=words):
        write_onnx(tmp_path / "a.onnx", manifest, contents(FILES["ppo"])[1])
    assert not list(tmp_path.iterdir())
