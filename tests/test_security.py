"""How files are read: nothing that a file says is run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("posesweep", "search_spaces", "datasets", "analysis", "trainables")
SAFE_LOADERS = {"_Loader"}  # datasets/documents.py: libyaml's safe loader
INERT = "inert_pickle"  # trainables/unpickling.py


def offences(source: str) -> list[str]:
    """Calls that would run what a file says, as 'line: why'."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            why = _why_unsafe(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
            if why:
                found.append(f"{node.lineno}: {why}")
    return found


def _why_unsafe(function: str, keywords: dict[str | None, str]) -> str:
    if function in (
        "pickle.load",
        "pickle.loads",
        "pd.read_pickle",
        "pandas.read_pickle",
        "pd.read_hdf",
        "joblib.load",
    ):
        return f"{function} runs what the file says"
    if function in ("eval", "exec", "os.system"):
        return f"{function} runs text"
    if function in ("yaml.load", "yaml.load_all") and keywords.get("Loader") not in SAFE_LOADERS:
        return "yaml.load without a safe loader"
    if function in ("yaml.full_load", "yaml.unsafe_load"):
        return f"{function} is not safe"
    if function == "torch.load" and keywords.get("weights_only") != "True" and INERT not in str(keywords):
        return "torch.load without weights_only"
    if keywords.get("allow_pickle") == "True":
        return "allow_pickle=True"
    if keywords.get("shell") == "True":
        return "shell=True"
    return ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_that_a_file_says_is_run(folder):
    found = {str(file.relative_to(ROOT)): offences(file.read_text()) for file in (ROOT / folder).rglob("*.py")}
    assert {file: bad for file, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(f)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
    ],
)
def test_an_offence_is_seen(source):
    assert offences(source)
    assert not offences("torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.safe_load(t)")
