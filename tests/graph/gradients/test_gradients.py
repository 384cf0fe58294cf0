"""Each gradient is held against differences of the same graph in double precision, computed by onnx's own reference."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from onnx_subprune.graph.gradients.reverse import GRADIENTS, gradients
from onnx_subprune.graph.gradients.tape import NoGradientError, Tape
from onnx_subprune.graph.gradients.training import learned, seen_in
from onnx_subprune.runtime.session import Session

STEP, CLOSE = 1e-6, 2e-4
ROUGH, ROUGHLY = 1e-2, 2e-3
"""The same where onnx's reference computes in single precision, or does not know groups or old axes: onnxruntime takes its place."""

CASES = {
    "Conv": "y = Conv <pads = [1, 1, 1, 1]> (x_2_3_5_5, w_4_3_3_3, b_4)",
    "Conv, strides, dilations, a rest": "y = Conv <strides = [2, 1], dilations = [1, 2], pads = [0, 1, 1, 2]> (x_2_2_8_6, w_3_2_3_2)",
    "Conv of one axis, in groups": "y = Conv <group = 2, pads = [1, 1]> (x_2_4_6, w_6_2_3, b_6)",
    "Conv, depthwise": 'y = Conv <group = 3, strides = [2, 2], auto_pad = "SAME_UPPER"> (x_2_3_6_5, w_3_1_3_3)',
    "Conv of single places": "y = Conv (x_2_3_4_4, w_5_3_1_1)",
    "Conv of single places with strides": "y = Conv <strides = [2, 2]> (x_2_3_5_5, w_4_3_1_1)",
    "ConvTranspose": "y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1], output_padding = [1, 0]> (x_2_4_3_3, w_4_2_3_3, b_2)",
    "ConvTranspose in groups": "y = ConvTranspose <group = 2> (x_2_4_3, w_4_3_2, b_6)",
    "Gemm": "y = Gemm <alpha = 0.5, beta = 2.0> (x_3_4, w_4_2, b_2)",
    "Gemm, turned": "y = Gemm <transA = 1, transB = 1> (x_4_3, w_2_4, b_1_2)",
    "MatMul": "y = MatMul (x_2_3_4, w_4_5)",
    "MatMul of batches": "y = MatMul (x_2_1_3_4, w_5_4_2)",
    "MatMul of a vector": "y = MatMul (x_4, w_2_4_3)",
    "MatMul with a vector": "y = MatMul (x_2_3_4, w_4)",
    "Add, broadcast": "y = Add (x_2_3_4, w_3_1)",
    "Sub": "y = Sub (x_3_1, w_2_1_4)",
    "Mul": "y = Mul (x_2_3_4, w_4)",
    "Div": "d = Exp (w_4)  y = Div (x_2_3_4, d)",
    "Sum": "y = Sum (x_2_3, w_3, b_2_1)",
    "Pow": "p = Exp (x_2_3)  y = Pow (p, three)",
    "Max and Min": "m = Max (x_2_3, w_3)  y = Min (m, b_2_1)",
    "Where": "c = Less (x_2_3, w_3)  y = Where (c, x_2_3, w_3)",
    "PRelu": "y = PRelu (x_2_3_4, w_3_1)",
    "Sqrt and Log": "e = Exp (x_2_3)  s = Sqrt (e)  y = Log (s)",
    "Neg, Abs and Reciprocal": "n = Neg (x_2_3)  a = Abs (n)  y = Reciprocal (a)",
    "rectifiers": "a = Relu (x_2_3_4)  b = LeakyRelu <alpha = 0.3> (x_2_3_4)  c = Elu <alpha = 0.7> (x_2_3_4)  y = Concat <axis = 0> (a, b, c)",
    "curves": "a = Sigmoid (x_2_3_4)  b = Tanh (x_2_3_4)  c = Erf (x_2_3_4)  d = Softplus (x_2_3_4)  y = Sum (a, b, c, d)",
    "hard curves": "a = HardSigmoid <alpha = 0.3> (x_2_3_4)  b = HardSwish (x_2_3_4)  y = Mul (a, b)",
    "Gelu": "y = Gelu (x_2_3_4)",
    "Clip": "y = Clip (x_2_3_4, low, high)",
    "Softmax": "y = Softmax <axis = 1> (x_2_3_4)",
    "LogSoftmax": "y = LogSoftmax (x_2_3_4)",
    "BatchNormalization": "v = Exp (v_3)  y = BatchNormalization (x_2_3_4, w_3, b_3, m_3, v)",
    "LayerNormalization": "y = LayerNormalization <axis = -2> (x_2_3_4, w_3_4, b_3_4)",
    "InstanceNormalization": "y = InstanceNormalization (x_2_3_4_2, w_3, b_3)",
    "shapes": "f = Flatten <axis = 2> (x_2_3_1_2)  s = Squeeze (f)  u = Unsqueeze (s, one)  t = Transpose (u)  i = Identity (t) y = Reshape (i, flat)",
    "Concat and Split": "a, b = Split <axis = 1> (x_2_4_2, parts)  e = Exp (b)  y = Concat <axis = -2> (w_2_1_2, e)",
    "Slice": "y = Slice (x_5_7, from_1_1, to_5_6, axes_0_1, by_3_2)",
    "Slice backwards": "y = Slice (x_7, from_5, to_0, axes_0, by_n2)",
    "Pad": "y = Pad (x_2_3, pads_1_0_2_1)",
    "Gather in a row": "y = Gather <axis = 1> (x_2_5, from_1_2)",
    "Gather again and again": "y = Gather <axis = -1> (x_3_4, from_2_0_2)",
    "DepthToSpace": "y = DepthToSpace <blocksize = 2> (x_2_8_2_3)",
    "DepthToSpace, columns first": 'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x_2_8_2_3)',
    "Resize": 'y = Resize <mode = "nearest"> (x_1_2_3_2, , , to_1_2_6_6)',
    "Resize from the corner": 'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> '
    "(x_1_2_3_2, , , to_1_2_6_6)",
    "Expand": "y = Expand (x_3_1, from_2_3_4)",
    "sums and means": "a = ReduceSum <keepdims = 0> (x_2_3_4, axes_n1)  b = ReduceMean <keepdims = 0> (x_2_3_4, axes_n1)  y = Mul (a, b)",
    "ReduceL2": "y = ReduceL2 <keepdims = 0> (x_2_3_4, axes_n1)",
    "ReduceMin": "y = ReduceMin (x_2_3_4, axes_0_1)",
    "ReduceMax": "y = ReduceMax <keepdims = 0> (x_2_3_4, axes_1)",
    "global pools": "a = GlobalAveragePool (x_2_3_4_2)  b = GlobalMaxPool (x_2_3_4_2)  y = Mul (a, b)",
    "AveragePool": "y = AveragePool <kernel_shape = [3, 2], strides = [2, 2], pads = [1, 1, 1, 0]> (x_2_3_5_6)",
    "AveragePool, padding counts": "y = AveragePool <kernel_shape = [3], pads = [1, 1], count_include_pad = 1> (x_2_3_5)",
    "MaxPool": "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 1]> (x_2_3_6_5)",
    "RNN": "y, h = RNN <hidden_size = 3> (x_4_2_5, w_1_3_5, r_1_3_3, b_1_6)",
    "RNN, its last state": 'e, y = RNN <hidden_size = 3, direction = "reverse"> (x_4_2_5, w_1_3_5, r_1_3_3)',
    "GRU": "y, h = GRU <hidden_size = 3> (x_4_2_5, w_1_9_5, r_1_9_3, b_1_18)",
    "GRU, reset behind, from a state, both ways": 's, h = GRU <hidden_size = 3, linear_before_reset = 1, direction = "bidirectional"> '
    "(x_4_2_5, w_2_9_5, r_2_9_3, b_2_18, , h_2_2_3)  u = Unsqueeze (h, one)  t = Transpose <perm = [0, 1, 2, 3]> (u)  "
    "q = ReduceSum (t)  y = Add (s, q)",
    "GRU of one step": "y, h = GRU <hidden_size = 3> (x_1_2_5, w_1_9_5, r_1_9_3)",
    "LSTM": "y, h, c = LSTM <hidden_size = 3> (x_4_2_5, w_1_12_5, r_1_12_3, b_1_24)",
    "LSTM, both ways, from states, its last cells": 's, h, c = LSTM <hidden_size = 3, direction = "bidirectional"> '
    "(x_4_2_5, w_2_12_5, r_2_12_3, b_2_24, , h_2_2_3, k_2_2_3)  q = ReduceSum (c)  m = Mul (s, q)  p = ReduceSum (h)  y = Add (m, p)",
    "a weight that is read twice": "a = MatMul (x_3_3, w_3_3)  b = Tanh (a)  c = MatMul (b, w_3_3)  y = Add (c, w_3_3)",
}
"""Sums of graphs: a name that ends in numbers is a tensor of that shape, drawn at random, or a vector of integers."""
INTEGERS = ("from", "to", "axes", "by", "pads")
FIXED = {
    "three": np.float32(3),
    "low": np.float32(-0.5),
    "high": np.float32(0.7),
    "one": np.array([1]),
    "flat": np.array([-1]),
    "parts": np.array([1, 3]),
}


def made(text, opset=20):
    """The model of a case: what it reads are initializers, its output is y."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g () => (float y) {{ {text} }}')
    made_here = {name for node in model.graph.node for name in node.output}
    rng = np.random.default_rng(0)
    for name in dict.fromkeys(n for node in model.graph.node for n in node.input if n and n not in made_here):
        kind, *sizes = name.split("_")
        numbers = [int(size.replace("n", "-")) for size in sizes]
        if name in FIXED:
            value = np.asarray(FIXED[name])
        elif kind in INTEGERS:
            value = np.array(numbers)
        else:
            value = rng.standard_normal(numbers).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_empty_tensor_value_info("y"))
    return model


def floats(model):
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.dims and tensor.name not in ("m_3", "v_3")
    }


def differentiated(model):
    """The gradients of the sum of y times fixed numbers, by weight, and those numbers."""
    seen = seen_in(model, None, ({}, {}))
    tape = Tape(seen, model.opset_import[0].version)
    drawn = np.random.default_rng(1).standard_normal(seen["y"].shape).astype(np.float32)
    found = gradients(tape, model.graph.node, {"y": tape.constant(drawn)}, [*floats(model)])
    backward = type(model)()
    backward.CopyFrom(model)
    backward.graph.node.extend(tape.nodes)
    backward.graph.initializer.extend(tape.constants)
    del backward.graph.output[:]
    backward.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in found.values())
    run = Session(backward).run({})
    return {name: run[output] for name, output in found.items()}, drawn


def single(model):
    """The output as onnxruntime has it, as a function of the weights."""
    found = with_inputs(model, np.float32)
    session = Session(found)
    return lambda weights: session.run({name: value.astype(np.float32) for name, value in weights.items()})["y"].astype(
        np.float64
    )


def double(model):
    """The same in double precision."""
    evaluator = ReferenceEvaluator(with_inputs(model, np.float64))
    return lambda weights: evaluator.run(None, weights)[0]


def with_inputs(model, kind):
    """The same model with its float weights as inputs, of this type."""
    found, weights = type(model)(), floats(model)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    found.CopyFrom(model)
    del found.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            found.graph.input.append(helper.make_tensor_value_info(tensor.name, element, tensor.dims))
            continue
        value = numpy_helper.to_array(tensor)
        wide = value.astype(kind) if value.dtype == np.float32 else value
        found.graph.initializer.append(numpy_helper.from_array(wide, tensor.name))
    return found


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_a_gradient_is_what_the_loss_changes_by(text):
    held_against_differences(made(text))


def held_against_differences(model):
    found, drawn = differentiated(model)
    weights = {name: value.astype(np.float64) for name, value in floats(model).items()}
    assert found.keys() == weights.keys()
    rough = model.opset_import[0].version < 13 or any(
        node.op_type in ("Erf", "Gelu", "ConvTranspose", "GRU", "LSTM", "RNN") for node in model.graph.node
    )
    (evaluate, step, close) = (single(model), ROUGH, ROUGHLY) if rough else (double(model), STEP, CLOSE)
    rng = np.random.default_rng(2)
    for name, value in weights.items():
        assert found[name].shape == value.shape
        direction = rng.standard_normal(value.shape)
        both = (float(np.sum(evaluate({**weights, name: value + sign * step * direction}) * drawn)) for sign in (1, -1))
        change = (next(both) - next(both)) / (2 * step)
        scale = np.linalg.norm(found[name]) * np.linalg.norm(direction)
        assert abs(change - np.sum(found[name] * direction)) < close * max(scale, 1e-3), name


def test_every_rule_is_held_against_differences():
    used = {node.op_type for text in CASES.values() for node in made(text).graph.node}
    elsewhere = {"Cast", "Dropout", "com.microsoft.Gelu", "Upsample"}
    assert set(GRADIENTS) - elsewhere <= used


OLD = {
    "Conv": "y = Conv <pads = [1, 1]> (x_2_3_5, w_4_3_3, b_4)",
    "Clip": "y = Clip <min = -0.5, max = 0.7> (x_2_3_4)",
    "Softmax": "y = Softmax <axis = 1> (x_2_3_4)",
    "Pad and Slice": "p = Pad <pads = [0, 1, 0, 0]> (x_2_3)  y = Slice <axes = [1], starts = [1], ends = [-1]> (p)",
    "ReduceMean": "y = ReduceMean <axes = [1]> (x_2_3_4)",
    "Split": "a, y = Split <axis = 1> (x_2_4)",
}


@pytest.mark.parametrize("text", OLD.values(), ids=OLD)
def test_old_opsets_have_other_words_for_the_same(text):
    held_against_differences(made(text, 9))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = Det (x_3_3)  y = Mul (a, w_2)", "(Det) has no gradient here"),
        (
            'y = Resize <mode = "linear"> (x_1_2_3_2, , , to_1_2_6_6)',
            "(Resize) has no gradient here: it does not repeat numbers a whole number of times",
        ),
        (
            'y = Pad <mode = "reflect"> (x_2_3, pads_0_1_0_1)',
            "(Pad) has no gradient here: it repeats what it pads, or cuts",
        ),
    ],
)
def test_what_has_no_gradient_is_named(text, says):
    with pytest.raises(NoGradientError) as caught:
        differentiated(made(text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_layers_are_learned_and_nothing_else():
    model = made(
        "c = Conv (x_2_3_4_4, w_5_3_1_1, b_5)  n = BatchNormalization (c, s_5, t_5, m_5, v_5)  f = Flatten (n)  "
        "t = Transpose (k_6_80)  p = MatMul (f, t)  a = Add (p, o_6)  y = Mul (a, u_6)"
    )
    assert set(learned(model.graph, model.graph.node)) == {"w_5_3_1_1", "b_5", "s_5", "t_5", "k_6_80", "o_6"}
