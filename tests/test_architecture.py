"""The order of rooms that docs/architecture.md draws, read from the imports."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pet_cifar"
PAGE = PACKAGE.parent / "docs" / "architecture.md"


def listed_rooms(parent: str, indent: int) -> tuple[str, ...]:
    """The names that the page lists one step within ``parent``, from the top down."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().partition("  ")[0] == parent)
    rooms: list[str] = []
    for line in lines[start + 1 :]:
        depth = len(line) - len(line.lstrip())
        if depth < indent:
            break
        if depth == indent:
            names = line.strip().partition("  ")[0].split(", ")
            rooms += [name.removesuffix("/").removesuffix(".py") for name in names]
    return tuple(rooms)


# A room imports only from itself and from rooms below it.
ROOMS = ("__main__", *listed_rooms("pet_cifar/", 2), "__init__")
DATA_ROOMS = ("__init__", *listed_rooms("data/", 4))
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    if path == PACKAGE / "__init__.py":  # It hands `load` out when it is asked for, and every room may import it.
        return found
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
    assert not strangers, f"give {strangers} a place in the list of docs/architecture.md"


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


def test_the_page_lists_the_rooms() -> None:
    assert {"cli", "models", "data"} <= set(ROOMS)
    assert {"datasets", "datamodule", "pixels"} <= set(DATA_ROOMS)


def test_a_file_holds_at_most_one_net() -> None:
    for module, path in MODULES.items():
        if module.startswith("pet_cifar.models."):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            classes = [node for node in body if isinstance(node, ast.ClassDef)]
            assert len([node for node in classes if node.name.endswith(("CNN", "Classifier"))]) <= 1, module
