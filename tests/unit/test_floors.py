"""launch.py -> actors -> rlhf -> data: nothing imports what stands above it, and what is light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data", "rlhf", "actors")
OURS = {*PACKAGES, "launch"}
ABOVE = {"data": OURS - {"data"}, "rlhf": {"actors", "launch"}, "actors": {"launch"}}
ONLY_ACTORS = {"ray", "vllm"}
LAZY_DOOR = "rlhf/api.py"  # the one module below that opens `actors`
HEAVY = {"torch", "ray", "vllm", "deepspeed", "transformers", "datasets", "sklearn", "matplotlib", "pyarrow", "scipy"}
DEVICE_FILES = {"rlhf/engine/device.py", "rlhf/config/schema.py"}


def modules(*parts: str) -> list[str]:
    return [file.relative_to(ROOT).as_posix() for part in parts for file in sorted((ROOT / part).rglob("*.py"))]


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(), module)


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the floor"
            yield node.module or ""


def top(name: str) -> str:
    return name.partition(".")[0]


def docstrings(tree: ast.Module) -> set[int]:
    """ids of the constants that are docstrings."""
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    first = [node.body[0] for node in holders if node.body]
    return {id(node.value) for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600, check=True
    )
    return set(done.stdout.split())


def foreign_imports(forbidden: Callable[[str], set[str]], *parts: str) -> list[str]:
    """ "module imports name" for each import of a package that is forbidden to the module."""
    return [
        f"{module} imports {name}"
        for module in modules(*parts)
        for name in sorted(forbidden(module) & set(map(top, imported(parsed(module)))))
    ]


def test_no_module_imports_from_a_floor_above():
    wrong = foreign_imports(lambda module: ABOVE[module.partition("/")[0]], *PACKAGES)
    assert wrong == [f"{LAZY_DOOR} imports actors"]


def test_only_actors_import_ray_and_vllm():
    assert foreign_imports(lambda module: ONLY_ACTORS, "data", "rlhf") == []


def test_no_imports_go_in_a_circle():
    """Among imports at load: not inside functions, and not for type checkers alone."""
    names = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in modules(*PACKAGES)}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, module in names.items():
        for node in parsed(module).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    graph[name].add(submodule if submodule in names else node.module)
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_api_imports_actors_inside_its_functions_only():
    at_load = [node for node in parsed(LAZY_DOOR).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "actors" in map(top, imported(parsed(LAZY_DOOR)))
    assert "actors" not in {top(name) for node in at_load for name in imported(node)}


def test_ops_import_torch_and_each_other_alone():
    for module in modules("rlhf/ops"):
        foreign = {name for name in imported(parsed(module)) if top(name) not in {*sys.stdlib_module_names, "torch"}}
        assert {name for name in foreign if not name.startswith("rlhf.ops")} == set(), module


def test_ops_cost_torch_and_nothing_else():
    assert not loaded_by("from rlhf.ops import losses") & {"ray", "vllm", "deepspeed", "transformers", "pydantic"}


def test_models_and_tokenizers_come_without_scikit_learn():
    statement = "from data.lean_transformers import import_transformers as start; start().AutoModelForCausalLM.register"
    assert not loaded_by(statement) & {"sklearn", "scipy", "pandas", "peft", "datasets", "deepspeed"}


def test_import_rlhf_costs_nothing():
    assert not loaded_by("import rlhf") & {"torch", "pydantic", "ray"}


@pytest.mark.parametrize("config", ["demo", "grpo", "rejection"])
def test_the_command_line_checks_a_config_and_plans_it_without_torch(config):
    plan = f"launch.plan(Path('configs/{config}.yaml'), [], cpus=8, gpus=0)"
    assert not loaded_by(f"import launch; from pathlib import Path; {plan}") & HEAVY


def test_no_device_is_named_outside_the_device_file():
    for module in {*modules(*PACKAGES), "launch.py"} - DEVICE_FILES:
        tree = parsed(module)
        documentation = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                assert "cuda" not in node.value.lower(), f"{module}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr != "cuda", f"{module}:{node.lineno}"
