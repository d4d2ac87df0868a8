"""Measure the structure of the package: loose modules, circles, dictionaries across borders, file lengths.

    python tools/structure.py [FOLDER]      # default: the checkout that this file is in

Compare two states by running it in two checkouts.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "lora_bench"
RUN_FILES = re.compile(
    r"^(state|trial|train|scores|guards|plan|dataset|floors|results|study|comparisons|environment|spec\.resolved)\.json$"
    r"|^error\.txt$|^results\.(csv|parquet)$"
)
RUN_FILES_HOME = "planning/run_folder.py"


def read_modules(root: Path) -> dict[str, ast.Module]:
    """Syntax trees by path below the package."""
    return {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.py"))
        if "__pycache__" not in path.parts
    }


def name_module(path: str) -> str:
    """Dotted name of a file of the package."""
    return ".".join(
        [PACKAGE, *path.removesuffix(".py").removesuffix("__init__").strip("/").split("/")]
    ).strip(".")


def find_imports(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """Modules of the package that a module imports, at any level of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                longest = f"{node.module}.{alias.name}"
                if longest in names or node.module in names:
                    yield longest if longest in names else node.module


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one module."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen, waiting = set[str](), [start]
        while waiting:
            for name in imports[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        reached[start] = seen
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in imports if a in reached[a]}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def returns_dict(node: ast.AST) -> bool:
    """Return whether a function hands out a dictionary of anything."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
        return False
    return bool(re.search(r"dict\[str, Any\]|\bJson\b", ast.unparse(node.returns)))


def main() -> int:
    """Print one line a figure."""
    top = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    root = top / PACKAGE
    trees = read_modules(root)
    names = {name_module(path) for path in trees}
    imports = {
        name_module(path): set(find_imports(tree, names)) - {name_module(path)}
        for path, tree in trees.items()
    }
    circles = find_circles(imports)
    literals = [
        path
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and RUN_FILES.match(node.value)
        if path != RUN_FILES_HOME
    ]
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in trees}
    longest = max(lengths, key=lengths.__getitem__)
    loose = sorted(path for path in trees if "/" not in path and path not in ("__init__.py", "__main__.py"))
    print(f"modules at the root          {len(loose)}  {' '.join(loose)}")
    print(f"circles of imports           {len(circles)}  {'; '.join(' '.join(group) for group in circles)}")
    print(f"functions that return dicts  {sum(returns_dict(n) for t in trees.values() for n in ast.walk(t))}")
    print(f"names of run files           {len(literals)} literals in {len(set(literals))} files")
    print(f"lines                        {sum(lengths.values())} in {len(lengths)} files")
    print(
        f"median, longest file         {statistics.median(lengths.values()):.0f}, {lengths[longest]} ({longest})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
