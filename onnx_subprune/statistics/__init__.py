"""Moments of the original model in files: collected shard by shard, merged, pruned from."""

from onnx_subprune.statistics.collection import collect
from onnx_subprune.statistics.file import StatisticsFile
from onnx_subprune.statistics.merge import merge
from onnx_subprune.statistics.recorded import Recorded

__all__ = ["Recorded", "StatisticsFile", "collect", "merge"]
