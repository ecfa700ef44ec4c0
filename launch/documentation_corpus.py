"""Text of documentation packages: prose of HTML pages, plain text, manual pages in POD and reStructuredText.

Usage: documentation_corpus.py TREE... DIRECTORY

Each TREE is an unpacked package; its files below usr/share/doc (and perl's .pod) are read. Of HTML the text of
paragraphs, lists, definitions, headings and listings is kept, a block a line; navigation, scripts and styles are not.
Every block stands for a document of its own to the duplicate check: one that was seen before (licences, navigation,
lists of members that repeat) is left out, so that little is learnt twice. Documents with less than 400 letters are left
out. What is kept goes to DIRECTORY/PACKAGE-NNNN.jsonl, one document a line: {"text": ...}.
"""
import gzip
import hashlib
import html.parser
import json
import os
import re
import sys

BLOCKS = {"p", "li", "dd", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "td", "th", "pre", "div", "section",
          "tr", "table", "ul", "ol", "dl", "article", "main", "body", "caption", "figcaption"}
SKIPPED = {"script", "style", "nav", "header", "footer", "head", "noscript", "button", "select", "svg", "math"}
LEAST_LETTERS = 400
DOCUMENTS_A_FILE = 2000


class Text(html.parser.HTMLParser):
    """Blocks of text of a page, white space joined but for listings."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks, self.parts, self.skip, self.listing = [], [], [], 0

    def flush(self):
        text = "".join(self.parts)
        text = text.strip("\n").rstrip() if self.listing else " ".join(text.split())
        if text.strip():
            self.blocks.append(text)
        self.parts = []

    def handle_starttag(self, tag, attributes):
        if self.skip:
            if tag == self.skip[-1]:
                self.skip.append(tag)
            return
        role = dict(attributes).get("role") or ""
        if tag in SKIPPED or (tag == "div" and role == "navigation"):
            self.flush()
            self.skip.append(tag)
        elif tag in BLOCKS:
            self.flush()
            self.listing += tag == "pre"
        elif tag == "br":
            self.parts.append("\n" if self.listing else " ")

    def handle_endtag(self, tag):
        if self.skip:
            if tag == self.skip[-1]:
                self.skip.pop()
            return
        if tag in BLOCKS:
            self.flush()
            if tag == "pre":
                self.listing = max(0, self.listing - 1)

    def handle_data(self, data):
        if not self.skip:
            self.parts.append(data)


def html_blocks(text):
    page = Text()
    page.feed(text)
    page.close()
    page.flush()
    return page.blocks


def plain_blocks(text):
    return [block.strip("\n").rstrip() for block in re.split(r"\n\s*\n", text) if block.strip()]


def pod_blocks(text):
    """Paragraphs, with commands such as =head1 and formatting codes such as C<...> undone."""
    blocks = []
    for block in plain_blocks(text):
        block = re.sub(r"^=(?!head|item)\w+.*", "", block).strip("\n")
        block = re.sub(r"^=(head\d|item)\s*", "", block)
        for _ in range(3):
            block = re.sub(r"\b[BCFIL]<([^<>]*)>", r"\1", block)
        if block.strip():
            blocks.append(block)
    return blocks


def blocks_of(path):
    """Blocks of one file, or none when it is not text that this reads."""
    name = path[:-3] if path.endswith(".gz") else path
    kinds = {".html": html_blocks, ".htm": html_blocks, ".xhtml": html_blocks, ".txt": plain_blocks,
             ".rst": plain_blocks, ".pod": pod_blocks, ".md": plain_blocks}
    reader = kinds.get(os.path.splitext(name)[1].lower())
    if reader is None or os.path.basename(name).lower().startswith(("changelog", "copyright")):
        return []
    try:
        with (gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")) as file:
            text = file.read().decode("utf-8")
    except (UnicodeDecodeError, OSError, EOFError):
        return []
    return reader(text)


def is_english(text):
    """Plain Latin letters for the most part: manuals come in many languages."""
    letters = sum(c.isalpha() for c in text)
    return letters > 0 and sum(c.isascii() and c.isalpha() for c in text) > 0.98 * letters


def documents(tree, seen):
    for folder, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.islink(path) or re.search(r"\.(de|es|fr|it|ja|ko|pt|ru|tr|zh|nl|hu|ca|cs|pl)[._-]", name):
                continue
            kept = []
            for block in blocks_of(path):
                digest = hashlib.blake2b(block.encode(), digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    kept.append(block)
            text = "\n".join(kept)
            if sum(c.isalpha() for c in text) >= LEAST_LETTERS and is_english(text):
                yield text


def main(trees, directory):
    os.makedirs(directory, exist_ok=True)
    seen = set()
    total = 0
    for tree in trees:
        package, count, size, out = os.path.basename(tree.rstrip("/")), 0, 0, None
        for text in documents(tree, seen):
            if count % DOCUMENTS_A_FILE == 0:
                if out:
                    out.close()
                number = count // DOCUMENTS_A_FILE
                out = open(os.path.join(directory, f"{package}-{number:04}.jsonl"), "w", encoding="utf-8")
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count += 1
            size += len(text.encode())
        if out:
            out.close()
        total += size
        print(f"{package}: {count} documents, {size / 1e6:.1f} MB")
    print(f"{total / 1e6:.1f} MB of text")
    return total


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(sys.argv[1:-1], sys.argv[-1])
