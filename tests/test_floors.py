"""A module imports from lower floors only, and from its own floor without cycles (docs/design.md)."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import segpatch

ROOT = Path(segpatch.__file__).parent
FLOORS = [
    ["types", "errors", "bounds"],
    [
        "compositing",
        "transforms",
        "eot",
        "losses",
        "cores",
        "resizing",
        "kernels",
        "tail",
        "updates",
        "metrics",
        "statistics",
        "conditions",
        "defences",
    ],
    ["writing", "reading", "patch", "models", "data", "loaders"],
    [
        "attack",
        "attack_config",
        "attack_step",
        "alignment",
        "clean",
        "evaluation",
        "transfer",
        "locality",
        "training",
        "criteria",
        "heap",
        "subnormals",
        "latency",
        "checks",
        "probes",
        "memory",
        "notebook",
        "processes",
    ],
    ["runs", "machine", "results", "names", "plots", "report", "victims", "published", "patches"],
    ["studies"],
    ["cli", "__main__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    """Dotted names below segpatch, by file; "" is the package itself."""
    out = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The segpatch modules that a file imports, inside functions too, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segpatch":
            assert node.level == 0
            module = (node.module or "").removeprefix("segpatch").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".strip(".")
                found.add(inner if inner in known else module)
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("segpatch.") for a in node.names if a.name.startswith("segpatch.")}
    return found


def test_every_module_has_a_floor():
    strangers = {name.split(".")[0] for name in modules()} - FLOOR.keys() - {""}
    assert not strangers, f"give {strangers} a floor in docs/design.md and here"


def test_imports_point_down():
    known = modules()
    wrong = [
        f"{name} imports {target}"
        for name, path in known.items()
        if name
        for target in imports(path, known)
        if target and FLOOR[target.split(".")[0]] > FLOOR[name.split(".")[0]]
    ]
    assert not wrong, wrong


def test_no_cycles():
    known = modules()
    graph = {name: imports(path, known) - {""} for name, path in known.items() if name}
    # A package's __init__ re-exports its own modules; that arrow is not a dependency of theirs.
    graph = {n: {t for t in targets if not t.startswith(f"{n}.")} for n, targets in graph.items()}
    TopologicalSorter(graph).prepare()


def test_mathematics_touches_no_file_and_prints_nothing():
    for name in FLOORS[1]:
        path = ROOT / f"{name}.py"
        if path.exists():
            calls = {
                node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert not calls & {"open", "print", "input"}, name


def test_no_file_over_300_lines():
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py") if (n := p.read_text().count("\n")) > 320}
    assert not long, long
