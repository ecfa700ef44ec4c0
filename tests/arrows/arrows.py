"""Checks the house (docs/ARCHITECTURE.md): arrows point down, no two folders include each other, files stay short,
no folder is a catch-all or holds more than a reader can take in.

arrows.violations(root) returns one line of text per violation; arrows.graph(root) the include graph of the rooms, which
are the folders and sub-folders. As a program: arrows.py [--graph] [ROOT].
"""
import collections
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
MAX_CONCEPTS = 20  # X.h, X.cc, X_cpu.cc, X_cuda.cu, X.proto are one concept, X
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


def concept(path):
    """What a source is about: model/block.h and model/block.cc are both about model/block."""
    return re.sub(r"(_cpu|_cuda|_kernels)?\.(h|cc|cu|cuh|proto)$", "", path)


def rooms(root):
    """Concepts by room, for the product's folders alone."""
    found = collections.defaultdict(set)
    for path, kind in files(root):
        if kind == "file" and path.endswith(SOURCES) and path.split("/")[0] in FLOORS:
            found[os.path.dirname(path)].add(concept(path))
    return found


def graph(root):
    """{(user, used): [path that includes]} over the rooms. A schema (X.proto, X.pb.h) is the vocabulary of its whole
    folder: it includes no code, so any room may read it, and it is no arrow."""
    known = set(rooms(root))
    arrows = collections.defaultdict(list)
    for path, kind in files(root):
        user = os.path.dirname(path)
        if kind != "file" or user not in known or not path.endswith(SOURCES) or path.endswith(".proto"):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as source:
            text = source.read()
        for _, target in INCLUDE.findall(text):
            used = os.path.dirname(target)
            if used in known and used != user and not target.endswith(".pb.h"):
                arrows[user, used].append(path)
    return arrows


def circles(arrows):
    """Rooms that reach each other: one line for each pair that include each other, or one for a longer circle."""
    uses = collections.defaultdict(set)
    for user, used in arrows:
        uses[user].add(used)
    pairs = [(user, used) for user, used in arrows if user < used and (used, user) in arrows]
    for a, b in sorted(pairs):
        yield f"{a}: includes {b} and is included by it ({arrows[a, b][0]}; {arrows[b, a][0]})"
    if not pairs:
        def reaches(start):
            seen, todo = set(), [start]
            while todo:
                for used in uses[todo.pop()] - seen:
                    seen.add(used)
                    todo.append(used)
            return seen
        circle = sorted(room for room in list(uses) if room in reaches(room))
        if circle:
            yield f"{circle[0]}: includes itself by way of others: {', '.join(circle)}"


def check_rooms(root):
    yield from circles(graph(root))
    for room, concepts in sorted(rooms(root).items()):
        if len(concepts) > MAX_CONCEPTS:
            yield f"{room}: {len(concepts)} concepts in one folder; at most {MAX_CONCEPTS}: give some a room of their own"


def violations(root):
    found = list(check_rooms(root))
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


def print_graph(root):
    arrows = graph(root)
    for room, concepts in sorted(rooms(root).items()):
        used = ", ".join(f"{used} {len(arrows[user, used])}" for user, used in sorted(arrows) if user == room)
        print(f"{room} ({len(concepts)}) -> {used or 'nothing'}")
    print(f"{sum((b, a) in arrows for a, b in arrows) // 2} pairs of rooms include each other")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    place = next((argument for argument in arguments if argument != "--graph"), ".")
    if "--graph" in arguments:
        print_graph(place)
    lines = violations(place)
    print("\n".join(lines))
    sys.exit(1 if lines else 0)
