"""The quickstart's text: Jane Austen's six novels, from Debian's package r-cran-janeaustenr, a chapter a file.

Usage: quickstart_corpus.py RDATA.RDB DIRECTORY

Of the English that Debian packages carry this is the best to learn from in a few minutes: 4 MB (717,000 words) of plain
prose in one voice, without code, markup or lists, in the public domain, in a download of 1.6 MB. Manuals, such as
perl-doc's 15 MB, mix prose with code; bible-kjv-text is as large, but in verses; dictionaries are no sentences.

The package holds R's own data files. Rdata.rdb is a row of objects, one a novel, each a length in four bytes and a zlib
stream; inside is a vector of strings, one a printed line, in R's XDR serialisation:
  "X\\n", three version numbers, [version 3: length and name of the encoding], then items of a 32-bit flag word whose low
  byte is the type (16: vector of strings, 9: one string) and a 32-bit length (-1: missing).
The printed lines of a paragraph are joined, so that the model does not spend itself on where lines of paper ended.
"""
import os
import re
import struct
import sys
import zlib

CHARSXP, STRSXP = 9, 16


def novels(rdb):
    """The vector of strings of each object in the file."""
    while rdb:
        stream = zlib.decompressobj()
        yield strings(stream.decompress(rdb[4:]))
        rdb = stream.unused_data


def strings(data):
    def integer():
        nonlocal at
        at += 4
        return struct.unpack_from(">i", data, at - 4)[0]

    if not data.startswith(b"X\n"):
        raise SystemExit("not R's XDR serialisation")
    at = 2
    version = integer()
    at += 8
    if version >= 3:
        name = integer()
        at += name
    flags, count = integer(), integer()
    if flags & 0xff != STRSXP:
        raise SystemExit("not a vector of strings")
    lines = []
    for _ in range(count):
        flags, size = integer(), integer()
        if flags & 0xff != CHARSXP:
            raise SystemExit("not a string")
        size = max(size, 0)
        lines.append(data[at:at + size].decode("utf-8"))
        at += size
    return lines


def paragraphs(lines):
    """Joined lines, between blank ones; without underscores (italics), rows of stars, and notes about editions."""
    text = "\n".join(line.rstrip() for line in lines)
    for block in re.split(r"\n\s*\n", text):
        block = " ".join(block.split()).replace("_", "")
        if block.strip("* ") and not re.match(r"^\[.*\bedition", block):
            yield block


HEADING = re.compile(r"^(CHAPTER|VOLUME) [IVXLC0-9]+\.?$", re.IGNORECASE)


def chapters(lines):
    """Lists of paragraphs. What stands before the first heading (title, year) is left out."""
    chapter = None
    for paragraph in paragraphs(lines):
        if HEADING.match(paragraph):
            if chapter:
                yield chapter
            chapter = []
        elif paragraph in ("THE END", "FINIS", "Finis"):
            break
        elif chapter is not None:
            chapter.append(paragraph)
    if chapter:
        yield chapter


def main(path, directory):
    with open(path, "rb") as file:
        rdb = file.read()
    os.makedirs(directory, exist_ok=True)
    count = 0
    for lines in novels(rdb):
        title = re.sub(r"[^a-z]+", "-", lines[0].lower()).strip("-")
        for number, chapter in enumerate(chapters(lines), start=1):
            with open(os.path.join(directory, f"{title}-{number:02}.txt"), "w", encoding="utf-8") as out:
                out.write("\n\n".join(chapter) + "\n")
            count += 1
    if count < 200:
        raise SystemExit(f"only {count} chapters found in {path}; has the package changed?")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
