"""launch/documentation_corpus.py on small trees made here: what is kept of each kind of file, and that nothing is kept
twice."""
import gzip
import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "launch"))

import documentation_corpus as corpus  # noqa: E402

PROSE = "A tile of a mosaic fits every other one exactly. " * 12


class DocumentationCorpus(unittest.TestCase):
    def test_html_keeps_blocks_and_leaves_out_navigation(self):
        page = ("<html><head><title>t</title></head><body><nav><p>menu</p><nav>x</nav></nav><h1>One &amp; two</h1>"
                "<p>a <b>b</b>\n c<br>d</p><script>x()</script><pre>if (a)\n  b;</pre><ul><li>i</li><li>j</li></ul>"
                "<div role='navigation'><div>more menu</div></div>end</body></html>")
        self.assertEqual(corpus.html_blocks(page), ["One & two", "a b c d", "if (a)\n  b;", "i", "j", "end"])

    def test_pod_loses_its_markup(self):
        self.assertEqual(corpus.pod_blocks("=head1 NAME\n\nUse C<print I<x>> here.\n\n=over 4\n\n=item one\n\n=cut\n"),
                         ["NAME", "Use print x here.", "one"])

    def test_writes_documents_once_and_english_only(self):
        with tempfile.TemporaryDirectory() as folder:
            tree = os.path.join(folder, "some-doc")
            os.makedirs(tree)
            with open(os.path.join(tree, "a.txt"), "w", encoding="utf-8") as file:
                file.write(PROSE + "\n\nOnly here. " + "x" * 10)
            with gzip.open(os.path.join(tree, "b.txt.gz"), "wt") as file:
                file.write(PROSE + "\n\n" + PROSE.replace("tile", "stone"))
            for name, text in (("short.txt", "Few letters."), ("greek.txt", "\u03b1\u03b2\u03b3 " * 300),
                               ("changelog.txt", PROSE + "old"), ("d.png", PROSE), ("index.de.html", PROSE + "alt")):
                with open(os.path.join(tree, name), "w", encoding="utf-8") as file:
                    file.write(text)
            out = os.path.join(folder, "out")
            total = corpus.main([tree], out)
            with open(os.path.join(out, "some-doc-0000.jsonl"), encoding="utf-8") as file:
                texts = [json.loads(line)["text"] for line in file]
            self.assertEqual(texts, [PROSE.rstrip() + "\nOnly here. " + "x" * 10,
                                     PROSE.replace("tile", "stone").rstrip()])
            self.assertEqual(total, sum(len(text) for text in texts))


if __name__ == "__main__":
    unittest.main(verbosity=2)
