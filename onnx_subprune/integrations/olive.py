"""A pass for Olive (package olive-ai).

Olive learns of it from a package configuration, its own with this pass added, which this module prints:

    python -m onnx_subprune.integrations.olive > package.json
    olive run --config workflow.json --package-config package.json

with `"type": "Subprune"` among the passes of the workflow.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

from olive.common.config_utils import ParamCategory, validate_config
from olive.data.config import DataConfig
from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from onnx_subprune.allocation import Channels, Latency, Macs, Params
from onnx_subprune.errors import OptionError
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.resources import Resources


class Subprune(Pass):
    """Makes an ONNX model smaller: fewer channels, heads, units, refitted on unlabelled inputs."""

    BUDGETS: ClassVar[dict[str, type[Macs | Params | Latency | Channels]]] = {
        "macs": Macs,
        "params": Params,
        "latency": Latency,
        "channels": Channels,
    }

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        """What a workflow may set."""
        del accelerator_spec
        return {
            "budget": PassConfigParam(type_=float, default_value=0.5, description="The share that is kept."),
            "budget_of": PassConfigParam(
                type_=str, default_value="macs", description="Of what: macs, params, latency or channels."
            ),
            "data": PassConfigParam(
                type_=str | None,
                default_value=None,
                category=ParamCategory.PATH,
                description="Unlabelled inputs, as on the command line: an .npz file, a folder, a script.",
            ),
            "data_config": PassConfigParam(
                type_=DataConfig | dict[str, Any] | None,
                default_value=None,
                description="In place of `data`: Olive's own data container.",
            ),
            "samples": PassConfigParam(type_=int | None, default_value=None, description="The first so many alone."),
            "exclude": PassConfigParam(
                type_=list[str], default_value=[], description="Patterns of layers that are left alone."
            ),
            "options": PassConfigParam(
                type_=dict[str, Any], default_value={}, description="Further arguments of onnx_subprune.prune, by name."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        """Prune one model."""
        settings: Any = config
        if settings.budget_of not in self.BUDGETS:
            raise OptionError(f"budget_of {settings.budget_of!r}: one of {', '.join(self.BUDGETS)}")
        given = {
            "exclude": tuple(settings.exclude),
            "resources": Resources(samples=settings.samples),
            **settings.options,
        }
        budget = self.BUDGETS[settings.budget_of](settings.budget)
        result = prune(model.model_path, self._data(model, settings), budget=budget, **given)
        path = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        result.save(path, force=True)
        return ONNXModelHandler(model_path=path)

    def _data(self, model: ONNXModelHandler, settings: Any) -> Any:
        if (settings.data is None) == (settings.data_config is None):
            raise OptionError("give the pass either `data` or `data_config`")
        if settings.data is not None:
            return str(settings.data)
        container = validate_config(settings.data_config, DataConfig).to_data_container()
        return container.create_calibration_dataloader(model_path=model.model_path, io_config=model.io_config)


def package_config() -> dict[str, Any]:
    """Return Olive's own package configuration with this pass added."""
    with open(OlivePackageConfig.get_default_config_path(), encoding="utf-8") as file:
        config: dict[str, Any] = json.load(file)
    config["passes"]["Subprune"] = {
        "module_path": "onnx_subprune.integrations.olive.Subprune",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
        "supported_algorithms": [],
        "supported_quantization_encodings": [],
        "dataset": "dataset_optional",
    }
    return config


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=4))
