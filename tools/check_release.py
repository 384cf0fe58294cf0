"""Build wheel and sdist, and try them in empty environments under the oldest and the newest versions that pyproject.toml declares.

    python tools/check_release.py                       # all interpreters that are found among 3.11, 3.12, 3.13
    python tools/check_release.py --python 3.13 --only newest

Each environment gets the wheel (or the sdist, with the newest versions on the oldest Python), the requirements at their lower bounds or as pip chooses,
and nothing else; there a model is inspected and pruned, and the result is compared. Prints one line an environment; exit status 1 if one fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
OLDEST_WHEELS = {
    "3.11": {},
    "3.12": {"numpy": "1.26.0"},
    "3.13": {"numpy": "2.1.0", "scipy": "1.14.1", "onnx": "1.18.0"},
}
"""Where a lower bound has no wheel for an interpreter: the first version that has one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all environments that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=PYTHONS)
    parser.add_argument("--only", choices=["oldest", "newest"])
    asked = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder))
        for version in asked.python:
            python = interpreter(version)
            if python is None:
                print(f"Python {version}: not found")
                continue
            for kind in ("oldest", "newest"):
                if asked.only in (None, kind):
                    package = built["sdist" if (version, kind) == (PYTHONS[0], "newest") else "wheel"]
                    failed += not tried(python, version, kind, package, Path(folder) / f"{version}-{kind}")
    return int(failed > 0)


def build(folder: Path) -> dict[str, Path]:
    """Return wheel and sdist of this checkout, built in a copy of what git knows."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    environment = folder / "build"
    venv.create(environment, with_pip=True)
    run(environment / "bin/python", "-m", "pip", "install", "-q", "build")
    run(environment / "bin/python", "-m", "build", "-q", "--outdir", folder / "dist", folder / "source")
    return {"wheel": next((folder / "dist").glob("*.whl")), "sdist": next((folder / "dist").glob("*.tar.gz"))}


def interpreter(version: str) -> str | None:
    """Return a Python of this version: on the path, of pyenv, or this one."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    homes = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    candidates = [*map(str, homes), shutil.which(f"python{version}")]
    return next((item for item in candidates if item and works(item)), None)


def works(python: str) -> bool:
    """True if an interpreter runs; shims of version managers may not."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


def tried(python: str, version: str, kind: str, package: Path, place: Path) -> bool:
    """Install `package` into an empty environment and use it; print what happened."""
    run(python, "-m", "venv", place)
    inside = place / "bin/python"
    pins = oldest(version) if kind == "oldest" else []
    try:
        run(inside, "-m", "pip", "install", "-q", "--upgrade", "pip")
        run(inside, "-m", "pip", "install", "-q", package, *pins)
        run(inside, "-m", "pip", "check")
        text = used(place / "bin/onnx-subprune", place)
    except subprocess.CalledProcessError as error:
        print(
            f"Python {version}, {kind} versions, {package.suffix}: FAILED: {(error.stderr or error.stdout).strip()[-600:]}"
        )
        return False
    names = "numpy|scipy|onnx|onnxruntime|cyclopts|rich|onnx_graphsurgeon|onnx-graphsurgeon|threadpoolctl"
    listed = run(inside, "-m", "pip", "list", "--format=freeze")
    found = ", ".join(line.replace("==", " ") for line in listed.split() if re.fullmatch(f"({names})==.*", line))
    print(f"Python {version}, {kind} versions, {package.name}: {text} ({found})", flush=True)
    return True


def oldest(version: str) -> list[str]:
    """Return the requirements at their lower bounds."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(item.split(">=") for item in declared)
    return [f"{name}=={bound}" for name, bound in {**bounds, **OLDEST_WHEELS[version]}.items()]


def used(command: Path, place: Path) -> str:
    """Inspect, prune and compare a sample model; return what the version command says of the package."""
    models = ROOT / "models"
    model, data, small = models / "lenet_fashion.onnx", models / "fashion_calibration.npz", place / "small.onnx"
    run(command, "inspect", model)
    run(command, "prune", model, small, "--data", data, "--samples", "64", "--macs", "0.5", "--quiet")
    run(command, "compare", model, small, "--data", data, "--json", "-")
    for words, meant in (
        (("prun",), "prune"),
        (("prune", "m", "o", "--mac", "1"), "--macs"),
        (("prune", "m", "o", "--selector", "refind"), "refined"),
    ):
        said = started(command, *words)
        if said.returncode != 2 or not re.search(f'Did you mean "?{meant}"?\\?', said.stderr):
            raise subprocess.CalledProcessError(said.returncode, words, stderr=f"{words}: {said.stderr}")
    return run(command, "--version").split("\n")[0].strip() + ": inspect, prune, compare, suggestions"


def run(*words: object) -> str:
    """Return what a command prints; CalledProcessError where it fails."""
    done = started(*words)
    done.check_returncode()
    return done.stdout


def started(*words: object) -> subprocess.CompletedProcess[str]:
    """Return what became of a command in an environment without ours."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([*map(str, words)], check=False, capture_output=True, text=True, env=clean)


if __name__ == "__main__":
    sys.exit(main())
