"""Checks the house (docs/ARCHITECTURE.md): arrows point down, files stay short, no folder is a catch-all.

arrows.violations(root) returns one line of text per violation. As a program: arrows.py [ROOT].
"""
import os
import re
import sys

FLOORS = {
    "tensor": 0,
    "parallel": 1,
    "model": 2, "optim": 2, "data": 2, "checkpoint": 2,
    "scaling": 3,
    "launch": 4,
}
SUPPORT = "tests/support"  # may use what tessera_test_support links: floors 0 and 1
SUPPORT_FLOOR = 2

SOURCES = (".h", ".cc", ".cu", ".cuh", ".proto")
CODE = SOURCES + (".py", ".sh", ".cmake", "CMakeLists.txt")
MAX_LINES = 500
CATCH_ALL = {"util", "utils", "utilities", "common", "base", "helpers", "misc"}
# Not part of the house: what git ignores, and git itself.
SKIPPED = re.compile(r"^(build[^/]*|out|runs|data/quickstart|(.*/)?(\.[^/]+|__pycache__))$")

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)
IMPORT = re.compile(r'^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"', re.MULTILINE)
TARGET = re.compile(r"\btessera_(%s)\b" % "|".join(FLOORS))


def files(root):
    """Paths of all files below root, relative to it, with the folders on the way."""
    for folder, names, leaves in os.walk(root):
        here = os.path.relpath(folder, root)
        here = "" if here == "." else here + "/"
        names[:] = sorted(name for name in names if not SKIPPED.match(here + name))
        yield from ((here + name, "folder") for name in names)
        yield from ((here + leaf, "file") for leaf in sorted(leaves))


def home(path):
    """The folder whose rules a file follows, or None: tests/model/x_test.cc follows those of model/."""
    parts = path.split("/")
    if parts[0] in ("tests", "bench") and len(parts) > 2:
        if parts[1] == "support":
            return SUPPORT
        parts = parts[1:]
    return parts[0] if parts[0] in FLOORS and len(parts) > 1 else None


def may_use(user, used):
    if user == used:
        return True
    if used == SUPPORT:  # only tests and benchmarks name it, and all may
        return True
    floor = SUPPORT_FLOOR if user == SUPPORT else FLOORS[user]
    return FLOORS[used] < floor


def check_arrows(path, text):
    user = home(path)
    if user is None:
        return
    if path.endswith(".proto"):
        arrows = [('"', target) for target in IMPORT.findall(text)]
    else:
        arrows = INCLUDE.findall(text)
    for quote, target in arrows:
        used = home(target)
        if target.startswith(("tests/", "bench/")) and not path.startswith(("tests/", "bench/")):
            yield f"{path}: uses {target}; only tests may"
        elif used is not None:
            if not may_use(user, used):
                yield f"{path}: uses {target}; {user}/ may use only itself and lower floors"
        elif quote == '"' and not (path.endswith(".proto") and target.startswith("google/")):
            yield f"{path}: uses {target}; write the path from the root of the tree, or <...> for a library"
        if target.endswith(".pb.h") and not path.endswith(".cc"):
            yield f"{path}: uses {target}; only .cc files may: headers forward-declare messages"


def check_links(path, text):
    """CMake targets are linked only to lower ones."""
    user = home(path)
    if user is None or not path.endswith("CMakeLists.txt"):
        return
    for used in TARGET.findall(text):
        if not may_use(user, used):
            yield f"{path}: names tessera_{used}; {user}/ may link only lower floors"


def violations(root):
    found = []
    for path, kind in files(root):
        name = path.split("/")[-1]
        if kind == "folder":
            if name in CATCH_ALL:
                found.append(f"{path}: a folder named '{name}' collects everything; put each thing where it belongs")
            continue
        if not path.endswith(CODE):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as source:
            text = source.read()
        lines = text.count("\n") + (not text.endswith("\n") and text != "")
        if lines > MAX_LINES:
            found.append(f"{path}: {lines} lines; at most {MAX_LINES} in a file")
        if path.endswith(SOURCES):
            found.extend(check_arrows(path, text))
        found.extend(check_links(path, text))
    return found


if __name__ == "__main__":
    lines = violations(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(lines))
    sys.exit(1 if lines else 0)
