"""Who may import whom: the layers of the design, held."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"search_spaces", "datasets", "analysis", "trainables"}
FORBIDDEN = {
    "posesweep": {"ray", "torch", "optuna", "timm"},
    "search_spaces": {
        "ray",
        "torch",
        "optuna",
        "timm",
        "posesweep.datasets",
        "posesweep.analysis",
        "posesweep.trainables",
    },
    "datasets": {"ray", "timm", "optuna", "posesweep.trainables", "posesweep.analysis", "posesweep.search_spaces"},
    "analysis": {"torch", "ray", "timm", "posesweep.trainables", "posesweep.search_spaces"},
}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def offences(folder: str, source: str) -> set[str]:
    return {
        name
        for name in imported(ast.parse(source))
        for banned in FORBIDDEN.get(folder, set()) | OURS
        if name == banned or name.startswith(banned + ".")
    }


@pytest.mark.parametrize("folder", ["posesweep", "search_spaces", "datasets", "analysis", "trainables"])
def test_each_layer_imports_only_what_it_may(folder):
    found = {
        str(file.relative_to(ROOT)): bad
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file.parent.name != "verbs" and (bad := offences(folder, file.read_text(encoding="utf-8")))
    }
    assert not found


def test_an_offence_is_seen():
    assert offences("analysis", "import torch.nn") == {"torch.nn"}
    assert offences("search_spaces", "from posesweep import trainables") == {"posesweep.trainables"}
    assert offences("datasets", "import datasets") == {"datasets"}


def run_python(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_bare_name_datasets_is_never_ours(tmp_path):
    code = "import posesweep, importlib.util as u; s = u.find_spec('datasets'); print(s.origin if s else None)"
    assert str(ROOT) not in run_python(code, tmp_path)


def test_a_debug_trial_does_not_load_ray():
    code = "import sys, posesweep.trainables.trial, posesweep.trainables.debug; print('ray' in sys.modules)"
    assert run_python(code) == "False"


def test_help_loads_neither_torch_nor_ray():
    code = "import sys, posesweep.cli; print({'ray', 'torch'} & set(sys.modules))"
    assert run_python(code) == "set()"
