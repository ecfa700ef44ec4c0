"""Draws the house from its include graph (arrows.py): a box for each folder, in it the rooms in rows, so that a room
includes only what stands in rows below it, or in boxes below.

    picture.py [ROOT]                      prints the drawing
    picture.py --write PAGE [ROOT]         puts it into PAGE, between the line "```house" and the next "```"
"""
import collections
import sys

import arrows

WIDTH = 100


def rows_of(folder, rooms, graph):
    """The rooms of a folder, the highest row first: a room stands one row above the highest that it includes."""
    mine = [room for room in rooms if room.split("/")[0] == folder]
    uses = collections.defaultdict(set)
    for user, used in graph:
        if user in mine and used in mine:
            uses[user].add(used)
    height = {}

    def height_of(room):
        if room not in height:
            height[room] = 1 + max((height_of(used) for used in uses[room]), default=-1)
        return height[room]

    rows = collections.defaultdict(list)
    for room in sorted(mine):
        rows[height_of(room)].append("." if room == folder else room[len(folder) + 1:])
    return [rows[row] for row in sorted(rows, reverse=True)]


def box(folder, rows, width):
    inner = width - 4
    lines = [f"+-- {folder}/ ".ljust(width - 1, "-") + "+"]
    for row in rows:
        line = ""
        for room in row:
            if line and len(line) + 3 + len(room) > inner:
                lines.append(f"| {line.ljust(inner)} |")
                line = ""
            line += ("   " if line else "") + room
        lines.append(f"| {line.ljust(inner)} |")
    lines.append("+".ljust(width - 1, "-") + "+")
    return lines


def draw(root):
    graph, rooms = arrows.graph(root), arrows.rooms(root)
    floors = collections.defaultdict(list)
    for folder, floor in arrows.FLOORS.items():
        floors[floor].append(folder)
    lines = []
    for floor in sorted(floors, reverse=True):
        count = len(floors[floor])
        width = (WIDTH - 2 * (count - 1)) // count
        boxes = [box(folder, rows_of(folder, rooms, graph), width) for folder in floors[floor]]
        tallest = max(len(lines_of) for lines_of in boxes)
        for lines_of in boxes:
            lines_of[1:1] = ["|".ljust(width - 1) + "|"] * (tallest - len(lines_of))
        lines += ["  ".join(row) for row in zip(*boxes)]
    return "\n".join(lines)


def write(page, root):
    with open(page, encoding="utf-8") as file:
        before, rest = file.read().split("```house\n", 1)
    after = rest[rest.index("```"):]
    with open(page, "w", encoding="utf-8") as file:
        file.write(before + "```house\n" + draw(root) + "\n" + after)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--write"]:
        write(arguments[1], arguments[2] if len(arguments) > 2 else ".")
    else:
        print(draw(arguments[0] if arguments else "."))
