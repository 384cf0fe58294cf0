"""Write the pages of the documentation that follow from the code: what can be pruned, the commands, the API.

`python tools/reference.py` writes docs/operators.md, docs/commands.md and docs/api.md; a test says when that is due.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_subprune
from onnx_subprune.cli.application import COMMANDS, app
from onnx_subprune.graph import rules
from onnx_subprune.graph.rules import RULES, vocabulary

DOCS = Path(__file__).parents[1] / "docs"
FILES = (
    ("Layers with weights", ("conv", "matmul", "recurrent")),
    ("Fused operators", ("fused",)),
    ("Functions of each element", ("elementwise",)),
    ("Normalisation", ("normalization",)),
    ("Pooling and reductions", ("pooling",)),
    ("Layout", ("layout", "reshape", "shape")),
    ("Parts of tensors", ("slices", "scattered", "placed")),
)


def operators() -> str:
    """Return what is known of each operator, and where channels at it stay all the same."""
    text = [
        "# What can be pruned",
        "A channel can go where everything that touches it is understood: the layer that makes it, all operators that it passes through, and the layers that "
        "read it. For each operator a *rule* says which channels of its inputs and outputs are the same. An axis that no rule mentions stays as it is, and "
        "`onnx-subprune inspect` shows the reason. Operators that are not in these tables pin the channels around them; the rest of the model is still "
        "pruned. Quantized layers (`QuantizeLinear`, `QLinear...`, `MatMulNBits` ...) stay, and a model that has no others is refused: "
        "prune first, then quantize.",
        "This page is written by `tools/reference.py` from the table of rules.",
    ]
    for title, names in FILES:
        modules = [getattr(rules, name) for name in names]
        rows = [_operator(module, op) for module in modules for op in module.RULES]
        text += [f"## {title}", _table(("operators", "what is known", "left alone where"), _gathered(rows))]
    return _page(text)


def _operator(module: ModuleType, op: str) -> tuple[str, str, str]:
    rule = RULES[op]
    found = _reasons(module, rule.tie)
    said = inspect.getdoc(rule.tie) or ""
    if said == "See the module.":
        said = (inspect.getdoc(module) or "").split("\n\n")[0]
    return f"`{op}`", " ".join(said.split()), "; ".join(found) or "nowhere for its own sake"


def _gathered(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Operators with the same rule in one row."""
    found: dict[tuple[str, str], list[str]] = {}
    for op, known, left in rows:
        found.setdefault((known, left), []).append(op)
    return [(", ".join(ops), *key) for key, ops in found.items()]


def _reasons(module: ModuleType, rule: Callable[..., None]) -> list[str]:
    """What a rule, and what it calls in its own module or in the vocabulary, says where channels have to stay."""
    trees = {
        node.name: node
        for part in (module, vocabulary)
        for node in ast.walk(ast.parse(inspect.getsource(part)))
        if isinstance(node, ast.FunctionDef)
    }
    pending, seen, found = [rule.__name__], set[str](), dict[str, None]()
    while pending:
        name = pending.pop()
        if name in seen or name not in trees:
            continue
        seen.add(name)
        for call in (node for node in ast.walk(trees[name]) if isinstance(node, ast.Call)):
            called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if called == "_refuse":  # what it is about is its last argument
                found[f"its {_said(call.args[-1])} are left alone"] = None
            elif called in ("UnknownError", "pin") and call.args:
                found.update(dict.fromkeys(filter(None, [_said(call.args[-1])])))
            elif isinstance(call.func, ast.Name):
                pending.append(called)
    return sorted(found)


def _said(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)  # type: ignore[misc]
    return ""


def commands() -> str:
    """Return all commands with their options, by group."""
    text = [
        "# Commands",
        "Exit status: 0 done; 1 the result failed its verification, is no better than a constant, or misses a gate (nothing is written); 2 bad usage, model "
        "or data; 3 an internal error, with a line to report; 130 interrupted. Tables go to stdout, progress, notes and warnings to stderr. Nothing is "
        "overwritten without `--force`, and what a command reads never. Fractions may be percentages: `--macs 50%`. Every command has `--json FILE`, and with "
        "`--json -` stdout gets JSON alone, for a pipe.",
        "`onnx-subprune --version` names the versions that matter, `onnx-subprune --install-completion` installs completion for your shell.",
        "This page is written by `tools/reference.py` from the commands themselves.",
    ]
    for name in COMMANDS:
        text += _command(name)
    return _page(text)


def _command(name: str) -> list[str]:
    command = app[name]
    said = (inspect.getdoc(command.default_command) or "").split("Parameters\n---")[0].strip()
    example = re.findall(r"onnx-subprune .*", command.help_epilogue or "")
    groups: dict[str, list[tuple[str, str]]] = {}
    arguments = command.assemble_argument_collection(parse_docstring=True)
    for argument in sorted(arguments, key=lambda item: _order(item.parameter.group[0])):
        positional = argument.field_info.kind is not inspect.Parameter.KEYWORD_ONLY
        names = (
            f"`{argument.name.lstrip('-').upper()}`"
            if positional
            else ", ".join(f"`{option}`" for option in argument.names)
        )
        groups.setdefault(argument.parameter.group[0].name, []).append((names, _help(argument)))
    tables = [_table((title.replace("Parameters", "Arguments"), ""), rows) for title, rows in groups.items()]
    return [
        f"## {name}",
        said,
        *["<!-- syntax only: a bound on the time may be missed -->"] * any("--speedup" in line for line in example),
        "```sh\n" + "\n".join(example) + "\n```",
        *tables,
    ]


def _order(group: Any) -> int:
    return group.sort_key if isinstance(group.sort_key, int) else 0


def _help(argument: Any) -> str:
    said = " ".join((argument.parameter.help or "").split())
    default = argument.field_info.default
    choices = argument.get_choices(force=True) or ()
    if len(choices) > 1:
        said = f"{said} One of {', '.join(f'`{item}`' for item in choices)}."
    return f"{said} Default: {default}." if isinstance(default, (int, str)) and not isinstance(default, bool) else said


def api() -> str:
    """Return everything that `onnx_subprune` exports: functions with all their sections, then classes."""
    text = [
        "# API",
        "What `from onnx_subprune import ...` gives. Anything else is the inside, and may change. The examples run in a folder that holds a small "
        "`model.onnx` and a `calibration.npz`.",
        "This page is written by `tools/reference.py` from the docstrings.",
    ]
    exported = {name: getattr(onnx_subprune, name) for name in onnx_subprune.__all__ if not name.startswith("_")}
    functions = {name: item for name, item in exported.items() if inspect.isfunction(item)}
    classes = {name: item for name, item in exported.items() if inspect.isclass(item)}
    errors = {name: item for name, item in classes.items() if issubclass(item, Exception)}
    for name, item in functions.items():
        text += [f"## {name}", _signature(name, item), *_sections(inspect.getdoc(item) or "")]
    text += ["## Values and results"]
    for name, item in classes.items():
        if name not in errors:
            text += [f"### {name}", _signature(name, item), *_sections(inspect.getdoc(item) or ""), *_methods(item)]
    text += ["## Errors", _table(("error", "when"), [(f"`{name}`", _line(item)) for name, item in errors.items()])]
    text += [
        "## RULES",
        "The rules of all operators, by name: see [What can be pruned](operators.md) and [Extending](extending.md).",
    ]
    return _page(text)


def _signature(name: str, item: Any) -> str:
    try:
        parameters = inspect.signature(item).parameters.values()
    except ValueError:
        return ""
    if getattr(item, "_is_protocol", False):
        return ""
    names, starred = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            names, starred = [*names, "*"], True
        plain = isinstance(parameter.default, (int, float, str, type(None)))
        names.append(
            parameter.name
            if parameter.default is parameter.empty
            else f"{parameter.name}={parameter.default!r}"
            if plain
            else f"{parameter.name}=..."
        )
    return f"```text\n{name}({', '.join(names)})\n```"


def _sections(doc: str) -> list[str]:
    """A docstring as Markdown: numpydoc's sections become bold heads and lists."""
    pieces = re.split(r"^(\w+)\n-+\n", doc, flags=re.M)
    text = [_flowing(pieces[0])]
    for head, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if head == "Examples":
            text += [f"```pycon\n{body.strip()}\n```"]
        elif head == "Returns":
            text += [f"**{head}** {_flowing(body)}"]
        else:
            items = re.split(r"^(?=\S)", body.strip(), flags=re.M)
            rows = [item.split("\n", 1) for item in items if item.strip()]
            text += [f"**{head}**", "\n".join(f"- `{row[0].strip()}`: {' '.join(row[1].split())}" for row in rows)]
    return text


def _methods(item: type) -> list[str]:
    found = []
    kin = [kind for kind in item.__mro__ if kind.__module__.startswith("onnx_subprune.")]
    for name, value in {name: value for kind in reversed(kin) for name, value in vars(kind).items()}.items():
        if not name.startswith("_") and inspect.isfunction(value) and inspect.getdoc(value):
            found.append(f"- `{name}`: {_line(value)}")
    return ["\n".join(found)] if found else []


def _line(item: Any) -> str:
    return " ".join((inspect.getdoc(item) or "").split("\n\n")[0].split())


def _flowing(text: str) -> str:
    """Paragraphs, each in one line."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


PAGES: dict[str, Callable[[], str]] = {"operators.md": operators, "commands.md": commands, "api.md": api}


def main() -> None:
    """Write all pages."""
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
