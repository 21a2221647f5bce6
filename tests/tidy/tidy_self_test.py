#!/usr/bin/env python3
"""Shows that every rule of tidy_test.py catches a broken example and lets a good one pass."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
import tidy_test as tidy  # noqa: E402

LAYERS = "# rank module\n1 high\n0 low\n"
HEADER = "// A header that is as it should be.\n#pragma once\n"
# What a rule must let pass: one small tree for all of them.
GOOD = {
    "src/LAYERS": LAYERS,
    "src/README.md": "- `low`: see [the pages](../docs/threads.md#threads)\n- `high`\n",
    "src/low/CMakeLists.txt": "shoal_module(low)\n",
    "src/low/a.h": HEADER,
    "src/high/CMakeLists.txt": "shoal_module(high DEPS low PRIVATE llama)\n",
    "src/high/b.cc": '// Uses what is below it.\n#include "high/b.h"\n#include <thread>\n#include "low/a.h"\n'
                     "std::thread worker([] {});\nvoid F() {\n  // std::format is only named here\n}\n",
    "src/high/b.h": HEADER,
    "src/high/b_test.cc": '// Tests may look at what is beneath.\n#include "ggml.h"\n',
    "docs/threads.md": "# Threads\n`src/high/b.cc`\n",
    "scripts/x.py": '#!/usr/bin/env python3\n"""What this script does."""\n',
    "tests/fuzz/x/seed": b"\0\1\2",
}
# rule: changes to GOOD, each of which it must catch; None removes a file.
BROKEN = {
    "check_layers": [
        {"src/low/a.h": HEADER + '#include "high/b.h"\n'},
        {"src/low/a.h": HEADER + '#include "low/absent.h"\n'},
        {"src/new/c.h": HEADER},
        {"src/high/CMakeLists.txt": "shoal_module(high PRIVATE llama)\n"},
        {"src/LAYERS": "0 high\n0 low\n"},
    ],
    "check_upstream_includes": [
        {"src/low/a.h": HEADER + '#include "llama.h"\n'},
        {"src/low/a.h": HEADER + "#include <ggml-backend.h>\n"},
        {"src/low/a.h": HEADER + '#include "gguf.h"\n'},
        {"src/low/a.h": HEADER + '#include "chat.h"\n'},
        {"src/low/a.h": HEADER + "#include <httplib.h>\n"},
        {"src/low/a.h": HEADER + "#include <CLI/CLI.hpp>\n"},
    ],
    "check_openers": [
        {"src/low/a.h": "#pragma once\n"},
        {"src/low/a.h": "//\n#pragma once\n"},
        {"src/low/CMakeLists.txt": "add_library(low a.cc)\n"},
        {"scripts/x.py": "#!/usr/bin/env python3\nimport os\n"},
        {"dev": "#!/usr/bin/env bash\nset -e\n"},
        {"cmake/x.cmake": "set(X 1)\n"},
        {"src/low/empty.cc": ""},
    ],
    "check_pragma_once": [{"src/low/a.h": "// A header without its guard.\n"}],
    "check_forbidden": [
        {"src/low/a.cc": "// Formats what it should not.\nauto s = std::format(\"{}\", 1);\n"},
        {"src/low/a.cc": "// Expects what is not there.\nstd::expected<int, int> e;\n"},
        {"src/low/a.cc": "// Starts what cannot stop.\nstd::jthread t;\n"},
        {"src/low/a.cc": "// Hides where names are from.\nusing namespace std;\n"},
        {"src/low/a.cc": "// Includes what is not there.\n#include <expected>\n"},
    ],
    "check_file_size": [{"src/low/a.cc": "// Far too long a file.\n" * (tidy.FILE_LINES_MAX + 1)}],
    "check_function_size": [
        {"src/low/a.cc": "// One long function.\nvoid F(int a,\n       int b) {\n" + "  a;\n" * 101 + "}\n"},
        {"src/low/a.h": HEADER + "class C {\n  void F() {\n" + "    a;\n" * 101 + "  }\n};\n"},
        {"scripts/x.py": '"""One long function."""\ndef f():\n' + "    a = 1\n" * 101},
    ],
    "check_lines": [
        {"src/low/a.h": HEADER + "// " + "x" * tidy.COLUMNS_MAX + "\n"},
        {"src/low/a.h": HEADER + "int a; \n"},
        {"src/low/a.h": HEADER + "\tint a;\n"},
        {"src/low/a.h": HEADER + "int a;"},
        {"src/low/a.h": HEADER + "\n\n"},
        {"docs/threads.md": GOOD["docs/threads.md"] + "word " * 30 + "end\n"},
    ],
    "check_undone": [
        {"src/low/a.h": HEADER + "// TO" + "DO: later\n"},
        {"docs/threads.md": GOOD["docs/threads.md"] + "FIX" + "ME\n"},
    ],
    "check_threads": [
        {"docs/threads.md": "# Threads\n"},
        {"docs/threads.md": GOOD["docs/threads.md"] + "`src/high/gone.cc`\n"},
        {"docs/threads.md": GOOD["docs/threads.md"] + "`kGoneMax`\n"},
        {"src/low/a.cc": "// Starts threads in a container.\nstd::vector<std::thread> pool;\n"},
        {"src/low/a.cc": "// Starts a member thread.\nvoid F() { s->thread = std::thread([] {}); }\n"},
    ],
    "check_trace": [
        {"docs/request-trace.md": "| 1 | `low/gone.cc` | loop | nothing |\n"},
        {"docs/request-trace.md": "| 1 | `low/a.h` `Gone` | loop | nothing |\n"},
    ],
    "check_module_list": [{"src/README.md": "- `low`\n"}],
    "check_weights": [
        {"docs/picture.bin": b"\x89\0\0"},
        {"docs/large.md": "x\n" * tidy.FILE_BYTES_MAX},
        {"tests/fuzz/x/seed": b"\0" * (tidy.CORPUS_BYTES_MAX + 1)},
    ],
    "check_machine_names": [
        {"docs/threads.md": GOOD["docs/threads.md"] + "see /wo" + "rk/main/src\n"},
        {"docs/threads.md": GOOD["docs/threads.md"] + "`/ro" + "ot/.cache`\n"},
        {"scripts/x.py": GOOD["scripts/x.py"] + "URL = 'https://py" + "pi.org/simple'\n"},
    ],
    "check_links": [
        {"src/README.md": GOOD["src/README.md"] + "[gone](../docs/gone.md)\n"},
        {"src/README.md": GOOD["src/README.md"] + "[no such part](../docs/threads.md#nowhere)\n"},
    ],
}


def make_tree(changes):
    files = {**GOOD, **changes}
    return tidy.Tree({p: d.encode() if isinstance(d, str) else d for p, d in files.items() if d is not None})


class EveryRule(unittest.TestCase):
    """A rule without a broken example here is a defect, and fails."""

    def test_has_examples(self):
        self.assertEqual({rule.__name__ for rule in tidy.RULES}, set(BROKEN))

    def test_lets_the_good_tree_pass(self):
        for rule in tidy.RULES:
            with self.subTest(rule.__name__):
                self.assertEqual(list(rule(make_tree({}))), [])

    def test_catches_every_broken_tree(self):
        for rule in tidy.RULES:
            for changes in BROKEN[rule.__name__]:
                with self.subTest(rule.__name__, changed=list(changes)):
                    self.assertEqual(len(list(rule(make_tree(changes)))), 1)

    def test_work_left_with_an_issue_passes(self):
        tree = make_tree({"src/low/a.h": HEADER + "// TO" + "DO(#12): later\n"})
        self.assertEqual(list(tidy.check_undone(tree)), [])


if __name__ == "__main__":
    unittest.main()
