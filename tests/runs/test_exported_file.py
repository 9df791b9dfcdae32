"""An ONNX file of a stranger reads no other file, ends, and takes no more memory than it speaks for."""

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pet_cifar.errors import InputError
from pet_cifar.runs.exported_file import open_exported

MEANS = [
    helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("GlobalAveragePool", ["floats"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["means"]),
]
SCORES = helper.make_node("MatMul", ["means", "weight"], ["probabilities"])


def write(nodes: Sequence[Any], tensors: Sequence[Any] = (), side: int = 8, domain: str = "") -> Path:
    """An ONNX file with a card, which takes color pictures and tells two classes apart."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        list(tensors),
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model.metadata_props.add(key="pet_cifar", value=json.dumps({"class_names": ["a", "b"]}))
    Path("net.onnx").write_bytes(model.SerializeToString())
    return Path("net.onnx")


def weight() -> Any:
    return numpy_helper.from_array(np.ones((3, 2), np.float32), "weight")


def lying_in(place: str) -> Any:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3, 2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    return tensor


def test_a_good_file_answers() -> None:
    net = open_exported(write([*MEANS, SCORES], [weight()]))
    found, _ = net.predict_pictures(torch.ones(1, 3, 8, 8))
    assert found.tolist() == [[765.0, 765.0]]


@pytest.mark.parametrize("place", ["beside.bin", "../beside.bin", "/dev/zero", "/etc/hostname"])
@pytest.mark.parametrize("is_node", [False, True])
def test_no_other_file_is_read(place: str, is_node: bool) -> None:
    Path("beside.bin").write_bytes(bytes(24))
    if is_node:
        constant = helper.make_node("Constant", [], ["weight"], value=lying_in(place))
        file = write([constant, *MEANS, SCORES])
    else:
        file = write([*MEANS, SCORES], [lying_in(place)])
    with pytest.raises(InputError, match=r"net\.onnx .* in another file"):
        open_exported(file)


@pytest.mark.parametrize("is_node", [False, True])
def test_sparse_numbers_are_refused(is_node: bool) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "weight")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
    sparse = helper.make_sparse_tensor(values, places, [3, 2])
    if is_node:
        file = write([helper.make_node("Constant", [], ["weight"], sparse_value=sparse), *MEANS, SCORES])
    else:
        file = write([*MEANS, SCORES])
        model = onnx.load(str(file))
        model.graph.sparse_initializer.append(sparse)
        file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"net\.onnx .* sparse"):
        open_exported(file)


def loop() -> Any:
    """A loop that does not end."""
    names = ("number", "goes_on", "value")
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names[1:]],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in zip(names, (7, 9, 1), strict=True)],
        [helper.make_tensor_value_info(f"{name}_out", kind, []) for name, kind in zip(names[1:], (9, 1), strict=True)],
    )
    return helper.make_node("Loop", ["", "true", "zero"], ["never"], body=body)


def test_a_loop_is_refused() -> None:
    truth = numpy_helper.from_array(np.array(True), "true")
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    with pytest.raises(InputError, match="Loop"):
        open_exported(write([loop(), *MEANS, SCORES], [weight(), truth, zero]))


def test_an_operation_of_a_strangers_own_is_refused() -> None:
    file = write([*MEANS, helper.make_node("Evil", ["means"], ["probabilities"], domain="evil")], domain="evil")
    with pytest.raises(InputError, match="Evil"):
        open_exported(file)
    model = onnx.load(str(file))
    model.functions.append(
        helper.make_function(
            "evil", "Evil", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 18)]
        )
    )
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="of its own"):
        open_exported(file)


def test_numbers_made_of_nothing_take_no_memory() -> None:
    shape = numpy_helper.from_array(np.array([3, 2 * 10**8], np.int64), "shape")
    bounds = [
        numpy_helper.from_array(np.array([value], np.int64), name) for name, value in zip("abc", (0, 2, 1), strict=True)
    ]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["weight"]),
        *MEANS,
        helper.make_node("MatMul", ["means", "weight"], ["many"]),
        helper.make_node("Slice", ["many", *"abc"], ["probabilities"]),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="MB"):
        open_exported(write(nodes, [shape, *bounds]))
    with pytest.raises(InputError, match="MB"):
        open_exported(write([*MEANS, SCORES], [weight()], side=100_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"
