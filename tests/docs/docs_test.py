"""Every file, folder and link that docs/*.md and the README name is there; lines of the pages that a newcomer reads first
stay short."""
import glob
import os
import re
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
PAGES = sorted(os.path.relpath(page, ROOT) for page in glob.glob(ROOT + "/docs/*.md")) + ["README.md", "bench/results/README.md"]
SHORT = ["docs/ARCHITECTURE.md", "docs/GLOSSARY.md", "docs/GPU.md"]
LONGEST = 120
FOLDERS = ("tensor", "parallel", "model", "optim", "data", "checkpoint", "scaling", "launch", "tests", "bench", "configs", "docs", "cmake")
MADE = ("data/quickstart", "data/documentation", "data/bytes")  # what scripts and examples make

LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")


def text_of(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def named_paths(text):
    """The words in backquotes that begin with a folder of the tree: `model/block.h`, `tests/arrows`, `optim/`."""
    for words in CODE.findall(text):
        for word in words.split():
            word = word.rstrip(".,;:)")
            if re.fullmatch(r"\.?/?[\w.*{},/-]+", word) and word.lstrip("./").split("/")[0] in FOLDERS and "/" in word:
                yield word.removeprefix("./")


def expand(word):
    """model/x.{h,cc} as model/x.h and model/x.cc."""
    braces = re.match(r"(.*)\{([^}]*)\}(.*)", word)
    if not braces:
        return [word]
    return [each for part in braces.group(2).split(",") for each in expand(braces.group(1) + part + braces.group(3))]


def exists(word):
    """What is there, what is made, or a pattern: tensor/ops/NAME.h."""
    if word.startswith(MADE) or "NAME" in word or glob.glob(os.path.join(ROOT, word)):
        return True
    # A name without its suffix: `launch/measure/median` has .h and .cc.
    return bool(glob.glob(os.path.join(ROOT, word) + ".*"))


class Docs(unittest.TestCase):
    def test_named_paths_exist(self):
        for page in PAGES:
            for word in named_paths(text_of(page)):
                for path in expand(word):
                    with self.subTest(page=page, path=path):
                        self.assertTrue(exists(path), f"{page} names {path}, which does not exist")

    def test_links_lead_somewhere(self):
        for page in PAGES:
            for target in LINK.findall(text_of(page)):
                if not re.match(r"https?:", target):
                    with self.subTest(page=page, target=target):
                        path = os.path.join(ROOT, os.path.dirname(page), target)
                        self.assertTrue(os.path.exists(path), f"{page} links to {target}, which does not exist")

    def test_lines_stay_short(self):
        for page in SHORT:
            for number, line in enumerate(text_of(page).split("\n"), 1):
                if not line.startswith("|"):  # a row of a table cannot be broken
                    with self.subTest(page=page, line=number):
                        self.assertLessEqual(len(line), LONGEST, f"{page}:{number}")


if __name__ == "__main__":
    unittest.main()
