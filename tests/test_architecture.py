"""The order of rooms that docs/architecture.md draws, read from the imports."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pet_cifar"
# A room imports only from itself and from rooms below it.
ROOMS = ("__main__", "cli", "runs", "callbacks", "models", "training", "data", "hardware", "errors", "__init__")
DATA_ROOMS = (
    *("__init__", "datasets", "datamodule", "split_features", "split_pixels", "split", "manifest_report", "manifest"),
    *("synthetic", "loader", "device_copy", "augment", "pixels", "files"),
)
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            # A name that is imported from a package may be one of its modules.
            found |= {name if (name := f"{module}.{alias.name}") in MODULES else module for alias in node.names}
    return found & MODULES.keys()


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def room_of(module: str, rooms: tuple[str, ...], base: str) -> str | None:
    """The first name of a module below ``base``; None for one that is elsewhere, or that is no listed room."""
    if module != base and not module.startswith(f"{base}."):
        return None
    name = module.removeprefix(base).lstrip(".").partition(".")[0] or "__init__"
    return name if name in rooms else None


@pytest.mark.parametrize(
    ("rooms", "base"), [(ROOMS, "pet_cifar"), (DATA_ROOMS, "pet_cifar.data")], ids=["package", "data"]
)
def test_every_file_is_in_a_room(rooms: tuple[str, ...], base: str) -> None:
    inside = [module for module in MODULES if module == base or module.startswith(f"{base}.")]
    strangers = [module for module in inside if room_of(module, rooms, base) is None]
    assert not strangers, f"give {strangers} a room, and docs/architecture.md and this test its place"


@pytest.mark.parametrize(
    ("rooms", "base"), [(ROOMS, "pet_cifar"), (DATA_ROOMS, "pet_cifar.data")], ids=["package", "data"]
)
def test_no_arrow_runs_back_up(rooms: tuple[str, ...], base: str) -> None:
    wrong = []
    for module, imported in IMPORTS.items():
        room = room_of(module, rooms, base)
        for other in imported:
            target = room_of(other, rooms, base)
            if room and target and rooms.index(target) < rooms.index(room):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    # A package's face only hands names on; that it stands above its files is what the order of rooms says.
    graph = {
        module: {other for other in imported if MODULES[other].name != "__init__.py"}
        for module, imported in IMPORTS.items()
        if MODULES[module].name != "__init__.py"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these files import each other: {' -> '.join(error.args[1])}")


def test_architectures_hold_nothing_but_nets() -> None:
    for module, path in MODULES.items():
        if module.startswith("pet_cifar.models."):
            classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
            assert len([node for node in classes if node.name.endswith(("CNN", "Classifier"))]) <= 1, module
