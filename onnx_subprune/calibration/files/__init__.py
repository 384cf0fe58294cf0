"""Moments of the original model in files: collected shard by shard, merged, pruned from."""

from onnx_subprune.calibration.files.collect import collect
from onnx_subprune.calibration.files.executor import Recorded
from onnx_subprune.calibration.files.file import StatisticsFile
from onnx_subprune.calibration.files.merge import merge

__all__ = ["Recorded", "StatisticsFile", "collect", "merge"]
