"""Imports go one way, every module has its test file, and every test file says what it tests."""

import ast
import functools
import graphlib
import pathlib
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

# Rooms are the modules and packages right below jaxattr/, and jaxattr itself: its `__init__`. A room imports from rows
# above its own only; the rooms of a row do not import each other. A new room has to be given its row.
LAYERS = (
    "types packed parallel preemption _activations _compiled _cost _files _fingerprint _numerics _xla",
    "_given _logits _windows batches weights checkpoints",
    "_checks networks apply_fn",
    "_chunking _krylov balls metrics labeled",
    "_ritz _frozen accuracy",
    "_values spectral",
    "_spec attribution method programs",
    "outputs jacobian samples models",
    # What a method is made of lies above this row: methods meet as each other's arguments, and training takes any.
    "attributions bounds certificates attacks data training",
    "defenses zoo",
    "_build",
    "jaxattr",
    "audit",
)

# Rooms about one sample, which do not know that there are many of them, nor where they come from.
OF_ONE_SAMPLE = "balls metrics outputs jacobian spectral programs attribution attributions bounds certificates attacks"
OF_MANY = (
    "accuracy apply_fn batches checkpoints data labeled models packed parallel preemption samples training weights"
)

# Packages that one room alone imports.
NAMED_BY = {
    "tensorflow_datasets": ("data",),
    "orbax": ("checkpoints",),
    "jax.sharding": ("parallel", "_fingerprint"),  # which recognizes meshes inside of a traced program
    "tensorboardX": ("training",),
    **dict.fromkeys(("polars", "matplotlib", "jinja2"), ("audit",)),
}
MESHES = {"Mesh", "NamedSharding", "PartitionSpec", "shard_map", "make_mesh"}

# Imports against the rows, each with its reason. They stand under `if TYPE_CHECKING`, and are never made.
AGAINST_THE_ROWS = {
    ("jaxattr._frozen", "jaxattr._spec"): "the type of what it returns",
    ("jaxattr._values", "jaxattr._spec"): "the type of an attribute",
}

# Modules that import others by a name that they compute.
BY_NAME = {
    "jaxattr": "modules that need Flax, Orbax or TFDS are imported on first use",
    "jaxattr._given": "a message lists the methods that there are",
    "jaxattr.audit.plugins": "modules of others are named on the command line",
}

# Modules whose tests are in a file of another name.
TESTED_BY = {
    "types": "typing/user_script.py",
    "_frozen": "test_values.py",
    "_checks": "test_bad_input.py",
    "_given": "test_bad_input.py",
    "_krylov": "test_spectral.py",
    "_ritz": "test_spectral.py",
    "attacks._result": "attacks/test_ascent.py",
    "bounds._half_spaces": "bounds/test_label_constrained.py",
    "bounds._label_problem": "bounds/test_label_constrained.py",
    "bounds._relaxation": "bounds/test_semidefinite.py",
    "bounds._sigma": "bounds/test_singular_value.py",
    "defenses._attacked": "defenses/test_every_defense.py",
    "metrics._check": "metrics/test_every_metric.py",
    "metrics._pairs": "metrics/test_rank.py",
    "models._primitives": "models/test_convolutions.py",
    "programs._stand_ins": "programs/test_smooth.py",
}

# Test files that are about no single module: what they ask of many.
ACROSS_MODULES = {
    "test_properties.py": "every method: vmap, jit, dtypes, keys, degenerate networks, gradients, devices",
    "test_bad_input.py": "every method: what is refused, and in which words",
    "test_scale.py": "every method: what should not depend on the scale of the network",
    "test_callable_pytrees.py": "every method: arrays of a network are arguments of compiled programs",
    "test_memory.py": "peaks of memory at the sizes of real networks",
    "test_contributing.py": "the recipes of CONTRIBUTING.md",
    "test_docs.py": "the examples of the pages in docs/",
    "test_import.py": "what `import jaxattr` brings along",
    "test_structure.py": "this file",
    "attacks/test_every_attack.py": "every attack: the distance that is reported is at most epsilon",
    "bounds/test_every_bound.py": "every bound: nothing that contradicts it is hidden",
    "bounds/test_within_box.py": "bounds of a ball that is cut by the box",
    "defenses/test_every_defense.py": "every training objective: statistics, precision, what it lowers",
    "defenses/test_every_defense_refuses.py": "every training objective: what is refused",
    "metrics/test_every_metric.py": "every metric: shapes, dtypes, transformations",
    "training/test_data_parallel.py": "training on several devices and processes",
    "models/test_every_architecture.py": "every network: second derivatives, kinks, normalized inputs",
}


class Import(NamedTuple):
    """An import, wherever it stands in a module."""

    importer: str
    imported: str
    line: int
    for_types: bool = False

    def __str__(self):
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules(package):
    """Return the modules of a package that lies in the repository, by their names."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@functools.cache
def syntax(file):
    return ast.parse(file.read_text(), filename=str(file))


@functools.cache
def imports_of(package):
    """Return all imports of a package; those inside of functions, and those for types alone, are imports, too."""
    known = modules(package)
    found = []
    for name, file in known.items():
        tree = syntax(file)
        blocks = (node for node in _nodes(tree, ast.If) if ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for_types = {inner for block in blocks for inner in ast.walk(block)}
        for node in _nodes(tree, ast.Import):
            found += [Import(name, alias.name, node.lineno, node in for_types) for alias in node.names]
        for node in _nodes(tree, ast.ImportFrom):
            base = _absolute(name, file, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append(Import(name, inner if inner in known else base, node.lineno, node in for_types))
    return tuple(found)


def _nodes(tree, kind):
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def _absolute(name, file, node):
    if not node.level:
        return node.module
    above = name.split(".")[: len(name.split(".")) - node.level + (file.name == "__init__.py")]
    return ".".join([*above, *filter(None, [node.module])])


def room(module):
    """Return the room of a module of jaxattr, ``None`` for modules of others."""
    parts = module.split(".")
    return None if parts[0] != "jaxattr" else parts[1] if len(parts) > 1 else "jaxattr"


def fault(found):
    """Return what is wrong with an import of the library, ``None`` if nothing is."""
    here, there = room(found.importer), room(found.imported)
    if found.imported.split(".")[0] in ("experiments", "benchmarks", "tests"):
        return "the library knows nothing of what is done with it"
    for package, rooms in NAMED_BY.items():
        if f"{found.imported}.".startswith(f"{package}.") and here not in rooms:
            return f"only {' and '.join(rooms)} may name {package}"
    allowed = found.for_types and (found.importer, found.imported) in AGAINST_THE_ROWS
    if there is None or here == there or allowed:
        return None
    return _fault_of_rooms(here, there)


def _fault_of_rooms(here, there):
    rows = {name: row for row, names in enumerate(LAYERS) for name in names.split()}
    if {here, there} - set(rows):
        return f"{', '.join({here, there} - set(rows))}: no row of LAYERS has it"
    if rows[there] >= rows[here]:
        return f"{here} stands in row {rows[here]}, {there} in row {rows[there]}, which is not above"
    if here in OF_ONE_SAMPLE.split() and there in OF_MANY.split():
        return f"{here} is about one sample, {there} about many"
    return None


def faults(package="jaxattr"):
    return [f"{found}: {wrong}" for found in imports_of(package) if (wrong := fault(found))]


def test_imports_of_the_library_go_one_way():
    assert faults() == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("jaxattr.balls", "jaxattr.bounds.largest_epsilon"),
        ("jaxattr.outputs", "jaxattr.attacks"),
        ("jaxattr.spectral", "jaxattr.training"),
        ("jaxattr.attacks.ifia", "jaxattr.bounds"),
        ("jaxattr.bounds.corrected", "jaxattr.attacks.pgd"),
        ("jaxattr.attributions.saliency", "jaxattr.attacks.pgd"),
        ("jaxattr.programs.kinks", "jaxattr.bounds.largest_epsilon"),
        ("jaxattr.training", "jaxattr.attacks"),
        ("jaxattr.models.mlp", "jaxattr.attributions"),
        ("jaxattr.data", "jaxattr.training"),
        ("jaxattr.bounds.ranks", "jaxattr.samples"),
        ("jaxattr.zoo", "jaxattr.audit.run"),
        ("jaxattr", "jaxattr.audit"),
        ("jaxattr.audit.run", "experiments.cli"),
        ("jaxattr.bounds.ranks", "benchmarks.ranks"),
        ("jaxattr.training", "orbax.checkpoint"),
        ("jaxattr.zoo", "tensorflow_datasets"),
        ("jaxattr.batches", "jax.sharding"),
        ("jaxattr.a_new_room", "jaxattr.balls"),
    ],
)
def test_an_import_the_wrong_way_is_a_fault(importer, imported):
    assert fault(Import(importer, imported, 1))


def test_exceptions_are_still_needed():
    found = {(one.importer, one.imported) for one in imports_of("jaxattr") if one.for_types}
    assert set(AGAINST_THE_ROWS) <= found
    known = modules("jaxattr")
    assert {name for name in known if _imports_by_name(syntax(known[name]))} == set(BY_NAME) & set(known)


def _imports_by_name(tree):
    names = (getattr(call.func, "attr", getattr(call.func, "id", "")) for call in _nodes(tree, ast.Call))
    return any(name in ("import_module", "__import__") for name in names)


def test_only_parallel_makes_meshes():
    """By their names, wherever they come from: ``jax.make_mesh``, ``jax.shard_map``."""
    used = {
        name
        for name, file in modules("jaxattr").items()
        if MESHES & {node.attr for node in _nodes(syntax(file), ast.Attribute) if ast.unparse(node.value) == "jax"}
    }
    assert used == {"jaxattr.parallel"}


@pytest.mark.parametrize("package", ["jaxattr", "experiments"])
def test_there_are_no_cycles(package):
    known = modules(package)
    pairs = {(one.importer, one.imported) for one in imports_of(package) if one.imported in known}
    pairs -= set(AGAINST_THE_ROWS)
    # A package collects its own modules: that edge alone is no dependence.
    graph = {name: {b for a, b in pairs if a == name and not b.startswith(f"{name}.")} for name in known}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(reversed(error.args[1]))}")


# Papers

PAPERS = sorted(folder.name for folder in (ROOT / "experiments" / "papers").glob("*/") if any(folder.glob("*.py")))


def test_no_paper_knows_another_and_the_rest_knows_none():
    for one in imports_of("experiments"):
        of = one.imported.split(".")[2] if one.imported.startswith("experiments.papers.") else None
        if of in PAPERS and one.importer != "experiments.papers":
            assert one.importer.startswith(f"experiments.papers.{of}"), str(one)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_audit_names_no_paper(paper):
    for file in [*ROOT.glob("jaxattr/audit/*.py"), *ROOT.glob("jaxattr/audit/*.j2")]:
        assert paper not in file.read_text(), file.name


# Tests mirror the package


def places_of(module):
    """Return the places where the tests of a module may be."""
    parts = module.removeprefix("jaxattr.").split(".")
    if ".".join(parts) in TESTED_BY:
        return [TESTED_BY[".".join(parts)]]
    folder, name = "/".join(parts[:-1]), parts[-1].lstrip("_")
    # Names of test files are unique: where two modules have a name, one of them says its package's, too.
    longer = f"{parts[-2] if len(parts) > 1 else 'jaxattr'}_{name}"
    inside = [f"{folder}/{parts[-1]}/test_{name}.py".lstrip("/")] if _is_package(module) else []
    return [f"{folder}/test_{one}.py".lstrip("/") for one in (name, longer)] + inside


def _is_package(module):
    return (ROOT / module.replace(".", "/") / "__init__.py").exists()


def _to_be_tested():
    """Return the modules with a function or a class of their own."""
    hooks = ("__getattr__", "__dir__")
    return [
        name
        for name, file in modules("jaxattr").items()
        if any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in hooks for node in syntax(file).body
        )
    ]


@pytest.mark.parametrize("module", _to_be_tested())
def test_every_module_has_its_test_file(module):
    places = places_of(module)
    found = [TESTS / place for place in places if (TESTS / place).exists()]
    assert found, f"{module} has no tests in {' nor '.join(places)}, and no line in TESTED_BY"
    assert "def test_" in found[0].read_text() or found[0].parent.name == "typing"


def test_every_test_file_says_what_it_tests():
    of_modules = {place for module in modules("jaxattr") for place in places_of(module)}
    of_benchmarks = {f"benchmarks/test_{module.split('.')[-1]}.py" for module in modules("benchmarks")}
    here = {str(file.relative_to(TESTS)) for file in TESTS.rglob("test_*.py")}
    unnamed = {name for name in here if not name.startswith("experiments/")} - of_modules - of_benchmarks
    assert unnamed == set(ACROSS_MODULES) - of_modules
    assert set(ACROSS_MODULES) <= here
    assert all((TESTS / place).exists() for place in TESTED_BY.values())
    known = modules("jaxattr")
    assert [name for name in TESTED_BY if f"jaxattr.{name}" not in known] == []


def test_names_of_test_files_are_unique():
    names = sorted(file.name for file in TESTS.rglob("*.py") if file.name != "conftest.py")
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
