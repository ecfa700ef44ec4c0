"""launch/quickstart_corpus.py on a package file made here: every step from R's format to chapters of paragraphs."""
import os
import struct
import sys
import tempfile
import unittest
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "launch"))

import quickstart_corpus as corpus  # noqa: E402


def serialised(lines, version=3):
    data = b"X\n" + struct.pack(">iii", version, 0x40201, 0x30500)
    if version >= 3:
        data += struct.pack(">i", 5) + b"UTF-8"
    data += struct.pack(">ii", 16, len(lines))
    for line in lines:
        text = line.encode()
        data += struct.pack(">ii", 0x40009, len(text)) + text
    return data


def packed(data):
    return struct.pack(">i", len(data)) + zlib.compress(data)


NOVEL = ["THE TITLE", "(1811)", "", "CHAPTER 1", "", "First line of", "a paragraph worth _ten_ pounds \u00a3.", "",
         "Second", "one.", "", "* * * * *", "", "[At this point in the first edition, Volume 1 ends.]", "", "",
         "Chapter II.", "", "Third.", "", "FINIS", "", "notes"]


class QuickstartCorpus(unittest.TestCase):
    def test_reads_every_object_of_a_file(self):
        rdb = packed(serialised(["a", "", "\u00e9"])) + packed(serialised(["b"], version=2))
        self.assertEqual(list(corpus.novels(rdb)), [["a", "", "\u00e9"], ["b"]])

    def test_cuts_at_headings_and_joins_lines(self):
        self.assertEqual(list(corpus.chapters(NOVEL)),
                         [["First line of a paragraph worth ten pounds \u00a3.", "Second one."], ["Third."]])

    def test_refuses_what_is_no_vector_of_strings(self):
        for data in (b"RDX3\n", b"X\n" + struct.pack(">iiiii", 2, 0, 0, 14, 1)):
            with self.assertRaises(SystemExit):
                corpus.strings(data)

    def test_writes_a_file_a_chapter(self):
        chapters = [line for number in range(1, 251) for line in (f"CHAPTER {number}", "", f"Text {number}.", "")]
        with tempfile.TemporaryDirectory() as folder:
            rdb = os.path.join(folder, "Rdata.rdb")
            with open(rdb, "wb") as file:
                file.write(packed(serialised(["PRIDE AND PREJUDICE", ""] + chapters)))
            out = os.path.join(folder, "corpus")
            corpus.main(rdb, out)
            self.assertEqual(len(os.listdir(out)), 250)
            with open(os.path.join(out, "pride-and-prejudice-07.txt"), encoding="utf-8") as file:
                self.assertEqual(file.read(), "Text 7.\n")

    def test_says_when_the_package_is_not_what_it_was(self):
        with tempfile.TemporaryDirectory() as folder:
            rdb = os.path.join(folder, "Rdata.rdb")
            with open(rdb, "wb") as file:
                file.write(packed(serialised(NOVEL)))
            with self.assertRaisesRegex(SystemExit, "only 2 chapters"):
                corpus.main(rdb, os.path.join(folder, "corpus"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
