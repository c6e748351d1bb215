"""The drawing of the library holds: every module imports only what stands before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minqa

PACKAGE = Path(minqa.__file__).parent
# The heart's modules, in the order in which they build on each other; then the wings, left to right.
HEART = "text devices tokens batches similarity bert elmo encoder embedding heatmap spans clock ask".split()
WINGS = "files answers corpus inside views app".split()
ORDER = [*HEART, *WINGS]
# A heat map shows itself in a notebook, and the package knows where each public name is.
ALLOWED = {("heatmap", "_repr_html_", "views")}


def parts_of(path):
    """The module's place in the order, and its name within its wing."""
    relative = path.relative_to(PACKAGE).with_suffix("").parts
    return relative[0], ".".join(relative[1:])


def imports(path):
    """(function, parts of the module's name) of every import, those inside functions and of types too."""
    found = []

    def visit(node, function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Import):
            found.extend((function, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative to the module's package
                here = ("minqa", *path.relative_to(PACKAGE).parts)[: -node.level]
                base = ".".join([*here, *filter(None, [base])])
            found.extend((function, f"{base}.{alias.name}") for alias in node.names)
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
        ):
            [name, *_] = node.args
            if isinstance(name, ast.Constant):
                found.append((function, name.value))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(path.read_text("utf-8")), None)
    return [(function, name.split(".")) for function, name in found]


def own_imports(path):
    """(function, parts of the name after the package's) of every import of the package itself."""
    return [(function, parts[1:]) for function, parts in imports(path) if parts[0] == "minqa"]


DOORS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}  # which hold nothing themselves
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path not in DOORS]


def test_every_module_has_its_place():
    flat = {path.stem for path in PACKAGE.glob("*.py")} - {path.stem for path in DOORS}
    assert flat == set(HEART)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(WINGS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path):
    place, _ = parts_of(path)
    for function, (first, *rest) in own_imports(path):
        if (place, function, first) in ALLOWED:
            continue
        assert first in ORDER, f"{'.'.join([first, *rest])} is no module of minqa's"
        before, here = ORDER.index(first), ORDER.index(place)
        assert before < here or (before == here and place in WINGS), f"{place} imports {first} in {function}"


@pytest.mark.parametrize("module", HEART)
def test_the_heart_imports_no_wing(module):
    wings = [
        (function, parts[0])
        for function, parts in own_imports(PACKAGE / f"{module}.py")
        if parts[0] in WINGS and (module, function, parts[0]) not in ALLOWED
    ]
    assert not wings


def test_within_a_wing_nothing_imports_in_a_circle():
    graph = {}
    for path in MODULES:
        place, name = parts_of(path)
        if place in WINGS:
            graph[place, name] = {
                (parts[0], parts[1]) for _, parts in own_imports(path) if parts[0] == place and len(parts) > 1
            }
    done = set()

    def walk(module, above):
        assert module not in above, f"{module} imports itself through {above}"
        if module not in done:
            for other in graph.get(module, ()):
                walk(other, [*above, module])
            done.add(module)

    for module in graph:
        walk(module, [])


def loaded(code):
    """The modules that a program of one line has imported at its end."""
    program = f"import sys; {code}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


def test_the_package_imports_nothing_until_a_name_is_used():
    modules = loaded("import minqa; dir(minqa)")
    assert "minqa" in modules and "jax" not in modules
    assert not any(name.startswith("minqa.") for name in modules)


def test_the_heart_imports_neither_a_wing_nor_transformers():
    modules = loaded(f"import {', '.join(f'minqa.{name}' for name in HEART)}")
    assert not modules & {*(f"minqa.{wing}" for wing in WINGS), "transformers", "torch", "h5py"}


NEEDED = "jax flax numpy optax jaxtyping tokenizers safetensors huggingface_hub h5py transformers".split()


@pytest.mark.parametrize("place", [*HEART, "files"])
def test_what_everybody_installs_is_enough_for_the_heart_and_its_files(place):
    """PyTorch is only asked for where a model's weights are written in no other way."""
    paths = [PACKAGE / f"{place}.py"] if place in HEART else (PACKAGE / place).glob("*.py")
    names = {parts[0] for path in paths for _, parts in imports(path)}
    assert names <= {*sys.stdlib_module_names, *NEEDED, "minqa", *(["torch"] if place == "files" else [])}


def test_every_public_name_is_there():
    for name in minqa.__all__:
        assert getattr(minqa, name) is not None
    assert set(minqa.__all__) <= set(dir(minqa))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minqa.nothing  # noqa: B018
