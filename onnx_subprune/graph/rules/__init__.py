"""What is known of each operator: a mapping from its name to its rule.

A new operator is one function in one of these files and one entry in that file's RULES. Pass
`{**RULES, "my.domain.MyOp": Rule(my_op)}` to use a rule of your own; standard operators are named without their domain.
"""

from collections.abc import Mapping
from types import MappingProxyType

from onnx_subprune.graph.rules import (
    conv,
    elementwise,
    fused,
    layout,
    matmul,
    normalization,
    placed,
    pooling,
    recurrent,
    reshape,
    scattered,
    shape,
    slices,
)
from onnx_subprune.graph.rules.vocabulary import Rule

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **conv.RULES,
        **elementwise.RULES,
        **fused.RULES,
        **layout.RULES,
        **matmul.RULES,
        **normalization.RULES,
        **placed.RULES,
        **pooling.RULES,
        **recurrent.RULES,
        **reshape.RULES,
        **scattered.RULES,
        **shape.RULES,
        **slices.RULES,
    }
)
