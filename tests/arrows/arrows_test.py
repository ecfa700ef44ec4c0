"""The tree keeps the rules of the house, and the checker sees each kind of violation when it is planted."""
import os
import sys
import tempfile
import unittest

import arrows

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CLEAN = {
    "tensor/tensor.h": '#include <vector>\n#include "tensor/dtype.h"\n',
    "model/model.cc": '#include "model/model.h"\n#include "model/model.pb.h"\n#include "parallel/comm/comm.h"\n',
    "model/model.proto": 'import "google/protobuf/any.proto";\nimport "parallel/parallel.proto";\n',
    "model/CMakeLists.txt": "tessera_folder(model LINKS tessera_parallel)\n",
    "launch/main.cc": '#include "data/order/loader.h"\n#include "optim/adamw.h"\n#include "scaling/plan.h"\n',
    "tests/model/model_test.cc": '#include "tests/support/ranks.h"\n#include "tests/model/rig.h"\n'
                                 '#include "model/model.h"\n#include "tests/tensor/ops/cases.h"\n',
    "tests/support/ranks.cc": '#include "parallel/comm/comm.h"\n#include "tests/support/ranks.h"\n',
    "docs/long.md": "line\n" * 900,
    "tensor/exactly.cc": "line\n" * arrows.MAX_LINES,
    "build/anything/utils/x.cc": '#include "up/down.h"\n',
}

PLANTED = {
    "up": ("tensor/a.h", '#include "parallel/comm/comm.h"\n', "lower floors"),
    "up, in angle brackets": ("tensor/a.h", "#include <parallel/comm/comm.h>\n", "lower floors"),
    "up, indented": ("tensor/a.h", '#if 1\n  #  include "parallel/comm/comm.h"\n#endif\n', "lower floors"),
    "up, from a kernel": ("tensor/ops/a_cuda.cu", '#include "launch/process/host.h"\n', "lower floors"),
    "sideways": ("model/a.cc", '#include "optim/adamw.h"\n', "lower floors"),
    "sideways, a message": ("data/a.cc", '#include "checkpoint/checkpoint.pb.h"\n', "lower floors"),
    "sideways, a schema": ("optim/optim.proto", 'syntax = "proto2";\nimport "model/model.proto";\n', "lower floors"),
    "up, a public schema": ("data/data.proto", 'import public "launch/run.proto";\n', "lower floors"),
    "sideways, a test": ("tests/model/a_test.cc", '#include "data/order/loader.h"\n', "lower floors"),
    "up, from the support of tests": ("tests/support/a.h", '#include "model/block.h"\n', "lower floors"),
    "sideways, a test's test": ("tests/model/a_test.cc", '#include "tests/data/shards/shards.h"\n', "lower floors"),
    "tests from the product": ("model/a.cc", '#include "tests/support/ranks.h"\n', "only tests may"),
    "a path that hides its folder": ("model/a.cc", '#include "../optim/adamw.h"\n', "from the root"),
    "a message in a header": ("model/a.h", '#include "model/model.pb.h"\n', "forward-declare"),
    "a sideways link": ("model/CMakeLists.txt", "tessera_folder(model LINKS tessera_optim)\n", "may link only"),
    "a long file": ("tensor/a.cc", "line\n" * (arrows.MAX_LINES + 1), "501 lines"),
    "a long file without a last newline": ("tensor/a.cc", "line\n" * arrows.MAX_LINES + "x", "501 lines"),
    "a catch-all folder": ("tensor/utils/a.h", "\n", "'utils'"),
    "another": ("common/a.h", "\n", "'common'"),
    "a third": ("model/base/a.h", "\n", "'base'"),
}


def plant(root, tree):
    for path, text in tree.items():
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


class Arrows(unittest.TestCase):
    def test_the_tree_keeps_the_rules(self):
        self.assertEqual(arrows.violations(ROOT), [])

    def test_it_looks_at_the_whole_tree(self):
        seen = {path for path, _ in arrows.files(ROOT)}
        for path in ("tensor/check.h", "launch/main.cc", "launch/run.proto", "tests/arrows/arrows.py"):
            self.assertIn(path, seen)

    def test_a_clean_tree_passes(self):
        with tempfile.TemporaryDirectory() as root:
            plant(root, CLEAN)
            self.assertEqual(arrows.violations(root), [])

    def test_each_planted_violation_is_seen(self):
        for name, (path, text, words) in PLANTED.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as root:
                plant(root, CLEAN | {path: text})
                found = arrows.violations(root)
                self.assertEqual(len(found), 1, found)
                self.assertIn(words, found[0])
                self.assertTrue(found[0].startswith(os.path.dirname(path)), found)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
