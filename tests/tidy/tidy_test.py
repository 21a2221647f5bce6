#!/usr/bin/env python3
"""The rules of this tree that a machine can check: tidy_test.py ROOT prints what breaks them and exits with 1.

A rule is a function from the tree's files to problems; RULES lists them all. tidy_self_test.py shows for each of them
an example that it catches. Looks at what git tracks or would track; without git at every file outside build/. Standard
library only.
"""
import ast
import os
import re
import subprocess
import sys
from pathlib import Path

COLUMNS_MAX = 120
FILE_LINES_MAX = 700
FILE_LINES_WARN = 500
FUNCTION_LINES_MAX = 100
FILE_BYTES_MAX = 512 * 1024
CORPUS_BYTES_MAX = 64 * 1024

CORPUS = re.compile(r"tests/fuzz/[^/]+/")
CODE = re.compile(r"\.(h|cc)$")
CMAKE = re.compile(r"(\.cmake|(^|/)CMakeLists\.txt)$")
SCRIPT = re.compile(r"(\.(py|sh)|^dev|^\.ci/run)$")
TEST = re.compile(r"^(tests|bench)/|_(test|fuzz)\.(h|cc)$|/test_\w+\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# Upstream headers and the folders that may include them; tests may include anything.
UPSTREAM = [
    (re.compile(r"^(.*/)?(llama|llama-cpp|gguf|ggml[\w-]*)\.h$"), ("src/engine/",)),
    (re.compile(r"^(common/)?(chat|common|sampling|json-schema-to-grammar)\.h$"),
     ("src/engine/", "src/sample/", "src/text/")),
    (re.compile(r"^(.*/)?httplib\.h$"), ("src/api/", "src/weights/http.")),
    (re.compile(r"^CLI/"), ("apps/",)),
]
FORBIDDEN = [
    (re.compile(r"\bstd::(format|expected|jthread)\b"), "is not in every standard library that we build with"),
    (re.compile(r"#\s*include\s*<(format|expected|stop_token)>"), "is not in every standard library we build with"),
    (re.compile(r"\busing\s+namespace\s+std\b"), "write std:: where you mean it"),
]
# Split so that this file does not break its own rules.
UNDONE = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b(?!\(#\d+\))")
MACHINE_PATHS = re.compile(r"(?<![\w.$}~-])/(wo" r"rk|ro" r"ot|home/[a-z]\w*|tmp/w)(/|\b(?=[\s\"'`)]))")
REGISTRY_HOSTS = re.compile(
    r"\b(py" r"pi\.org|files\.python" r"hosted\.org|registry\.np" r"mjs\.org|(static|index)\.cra" r"tes\.io|"
    r"deb\.deb" r"ian\.org|proxy\.go" r"lang\.org)\b")


class Tree:
    """The files by path from the root, with '/' between folders. Bytes that are not UTF-8 have no text."""

    def __init__(self, files):
        self.files = files

    @staticmethod
    def read(root):
        """Reads what git tracks or would track; without a git checkout, everything outside build/."""
        try:
            listed = subprocess.run(
                ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                capture_output=True, check=True).stdout.decode().split("\0")
            paths = [p for p in listed if p]
        except (OSError, subprocess.CalledProcessError):
            paths = []
            for folder, folders, names in os.walk(root):
                at_root = os.path.samefile(folder, root)
                folders[:] = [d for d in folders if d not in ("__pycache__", ".git", ".cache", ".pytest_cache")
                              and not (at_root and d == "build")]
                paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
        root = Path(root)
        return Tree({p.replace(os.sep, "/"): (root / p).read_bytes() for p in sorted(paths) if (root / p).is_file()})

    def text(self, path):
        """The file's text; empty when it is not there or not text."""
        try:
            return self.files.get(path, b"").decode("utf-8")
        except UnicodeDecodeError:
            return ""

    def matching(self, *patterns):
        """(path, text) of the text files whose path one of the patterns finds."""
        for path in self.files:
            if any(p.search(path) for p in patterns) and not CORPUS.match(path):
                yield path, self.text(path)

    def modules(self):
        """Folders of src/ that have C++ files."""
        return sorted({p.split("/")[1] for p in self.files if p.startswith("src/") and p.count("/") > 1
                       and CODE.search(p)})


def without_comments(text):
    """C++ text with comments blanked, lines kept. Does not look into strings: the rules that use it need not."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL)
    return re.sub(r"(?<![:\"'])//.*", "", text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def includes(text):
    """(line, quoted, header) of every #include."""
    for match in INCLUDE.finditer(text):
        yield line_of(text, match.start(2)), match.group(1) == '"', match.group(2)


def read_ranks(tree):
    ranks = {}
    for line in tree.text("src/LAYERS").splitlines():
        words = line.split("#")[0].split()
        if len(words) == 2 and words[0].isdigit():
            ranks[words[1]] = int(words[0])
    return ranks


def check_layers(tree):
    """A module includes only itself and lower ranks, says so in its CMakeLists.txt, and is in src/LAYERS."""
    ranks = read_ranks(tree)
    for module in tree.modules():
        if module not in ranks:
            yield f"src/{module}: is not in src/LAYERS"
    for path, text in tree.matching(re.compile(r"^src/[^/]+/.*\.(h|cc)$")):
        own = path.split("/")[1]
        declared = reachable_deps(tree, own)
        for line, quoted, header in includes(text):
            other = header.split("/")[0]
            if not quoted or other not in ranks or "/" not in header:
                continue
            if f"src/{header}" not in tree.files:
                yield f"{path}:{line}: there is no src/{header}"
            elif other != own and ranks[other] >= ranks.get(own, -1):
                yield (f"{path}:{line}: {own} (rank {ranks.get(own)}) may not include {other} (rank {ranks[other]}): "
                       "see src/LAYERS")
            elif other != own and declared is not None and other not in declared:
                yield f"{path}:{line}: {other} is not among the DEPS of src/{own}/CMakeLists.txt, nor of theirs"


def module_deps(cmake):
    """The DEPS of a shoal_module() call; None when there is no such call."""
    match = re.search(r"shoal_module\(([^)]*)\)", cmake)
    if not match:
        return None
    deps, reading = set(), False
    for word in match.group(1).split():
        if word in ("DEPS", "PUBLIC", "PRIVATE"):
            reading = word == "DEPS"
        elif reading:
            deps.add(word)
    return deps


def reachable_deps(tree, module):
    """The modules that `module` links, its DEPS and theirs; None when it has no shoal_module() call."""
    found = module_deps(tree.text(f"src/{module}/CMakeLists.txt"))
    queue = sorted(found or ())
    while queue:
        fresh = (module_deps(tree.text(f"src/{queue.pop()}/CMakeLists.txt")) or set()) - found
        found |= fresh
        queue += sorted(fresh)
    return found


def check_upstream_includes(tree):
    """libllama, ggml, llama-common, httplib and CLI11 each stay behind the modules that wrap them."""
    for path, text in tree.matching(CODE):
        if TEST.search(path):
            continue
        for line, _, header in includes(text):
            if f"src/{header}" in tree.files:
                continue
            for pattern, folders in UPSTREAM:
                if pattern.match(header) and not path.startswith(folders):
                    yield f"{path}:{line}: {header} may be included only in {', '.join(folders)}"


def is_bare_module(text):
    """A CMakeLists.txt that is one shoal_module() call says all there is to say."""
    return re.fullmatch(r"\s*shoal_module\([^)]*\)\s*", text) is not None


def check_openers(tree):
    """Every file of code, CMake or script opens with a comment that says what it is."""
    for path, text in tree.matching(CODE, CMAKE, SCRIPT):
        if not text.strip():
            if not path.endswith("__init__.py"):
                yield f"{path}:1: is empty"
            continue
        body = re.sub(r"\A#!.*\n", "", text).lstrip("\n")
        marker = {"h": "//", "cc": "//", "py": '"""'}.get(path.rsplit(".", 1)[-1], "#")
        first = body.split("\n", 1)[0]
        if CMAKE.search(path) and is_bare_module(text):
            continue
        if not first.startswith(marker) or len(first.strip("/#\"' ")) < 12:
            yield f"{path}:1: must open with a comment that says what it is"


def check_pragma_once(tree):
    """Headers are guarded by #pragma once."""
    for path, text in tree.matching(re.compile(r"\.h$")):
        if not re.search(r"^#pragma once$", text, re.MULTILINE):
            yield f"{path}:1: needs #pragma once"


def check_forbidden(tree):
    """What does not build everywhere, or hides where a name is from, is not used."""
    for path, text in tree.matching(CODE):
        text = without_comments(text)
        for pattern, why in FORBIDDEN:
            for match in pattern.finditer(text):
                yield f"{path}:{line_of(text, match.start())}: {match.group()}: {why}"


def check_file_size(tree):
    """A file of src/ that passes FILE_LINES_MAX lines is two files."""
    for path, text in tree.matching(re.compile(r"^(src|apps)/.*\.(h|cc)$")):
        lines = text.count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{path}: has {lines} lines, at most {FILE_LINES_MAX}"


def functions(path, text):
    """(line, lines) of what may be a function: by syntax in Python, by indentation elsewhere."""
    if path.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.lineno, node.end_lineno - node.lineno + 1
        return
    # A block that ends with a brace at indent 0 or 2 started at the last line of that indent that opened a parenthesis.
    opened = {}
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip(" "))
        if indent not in (0, 2) or not line.strip():
            continue
        word = line.strip()
        if word.startswith("}"):
            start = opened.pop(indent, None)
            if start is not None and "namespace" not in line:
                yield start, number - start + 1
        elif re.match(r"[A-Za-z_~]", word) and "(" in word and not word.endswith(";"):
            opened[indent] = number
        elif re.match(r"(namespace|class|struct|enum|union)\b", word):
            opened.pop(indent, None)


def check_function_size(tree):
    """A function fits a screen or two."""
    for path, text in tree.matching(CODE, SCRIPT):
        try:
            found = list(functions(path, text))
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: {error.msg}"
            continue
        for line, lines in found:
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{line}: a function of {lines} lines, at most {FUNCTION_LINES_MAX}"


def check_lines(tree):
    """Lines have at most COLUMNS_MAX columns, no tab and nothing invisible at their end; files end with one newline."""
    for path, text in tree.matching(CODE, CMAKE, SCRIPT, re.compile(r"\.(md|json)$|requirements\.txt$")):
        if path.startswith("LICENSE"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            free = path.endswith(".md") and (line.lstrip().startswith("|") or "](" in line or "://" in line)
            if len(line) > COLUMNS_MAX and not free and "--hash=" not in line:
                yield f"{path}:{number}: has {len(line)} columns, at most {COLUMNS_MAX}"
            if line != line.rstrip():
                yield f"{path}:{number}: has blanks at its end"
            if "\t" in line:
                yield f"{path}:{number}: has a tab"
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield f"{path}: must end with one newline"


def check_undone(tree):
    """What is left to do has an issue's number: a word and (#12)."""
    for path, text in tree.matching(CODE, CMAKE, SCRIPT, re.compile(r"\.md$")):
        for match in UNDONE.finditer(text):
            word = match.group()
            yield f"{path}:{line_of(text, match.start())}: {word} needs an issue's number: {word}(#12)"


def starts_thread(text):
    """Whether C++ text makes a std::thread, by itself or in a container."""
    text = without_comments(text)
    made = r"\bstd::thread\b\s*(\w+\s*)?[({]|=\s*std::thread\b|<\s*std::thread\s*>|\bstd::async\b"
    return re.search(made, text) is not None


def check_threads(tree):
    """docs/threads.md lists every file that starts a thread, and only files and limits that are there."""
    page = tree.text("docs/threads.md")
    for path, text in tree.matching(re.compile(r"^(src|apps)/.*\.cc$")):
        if not TEST.search(path) and starts_thread(text) and f"`{path}`" not in page:
            yield f"{path}: starts a thread, but docs/threads.md does not list `{path}`"
    for path in re.findall(r"`((?:src|apps)/[\w/]+\.(?:cc|h))`", page):
        if path not in tree.files:
            yield f"docs/threads.md: {path} is not there"
    code = "\n".join(text for _, text in tree.matching(re.compile(r"^(src|apps)/.*\.(h|cc)$")))
    for name in re.findall(r"`(k[A-Z]\w+|\w+_max)`", page):
        if not re.search(rf"\b{name}\b", code):
            yield f"docs/threads.md: no code has {name}"


def check_trace(tree):
    """docs/request-trace.md names files of src/ that are there, and functions that the file before them has, or that
    are of another class."""
    page = tree.text("docs/request-trace.md")
    code = "\n".join(text for path, text in tree.matching(re.compile(r"^src/.*\.(h|cc)$")))
    for offset, line in enumerate(page.splitlines(), 1):
        file = ""
        for word in re.findall(r"`([\w/:.]+)`", line):
            if re.fullmatch(r"\w+/[\w/]*\.(cc|h)", word) or re.fullmatch(r"\w+/", word):
                file = word
                if not any(path.startswith("src/" + word) for path in tree.files):
                    yield f"docs/request-trace.md:{offset}: src/{word} is not there"
            elif re.fullmatch(r"([A-Z]\w+::)?[A-Z]\w+", word) and file:
                named = rf"\b{word.split('::')[-1]}\("
                paths = [path for path in tree.files if path.startswith("src/" + file) and CODE.search(path)]
                if not any(re.search(named, tree.text(path)) for path in paths) and \
                        not ("::" in word and f"{word}(" in code):
                    yield f"docs/request-trace.md:{offset}: src/{file} has no {word}"


def check_module_list(tree):
    """src/README.md says what every module is."""
    page = tree.text("src/README.md")
    for module in tree.modules():
        if f"`{module}`" not in page and f"[{module}]" not in page:
            yield f"src/README.md: does not list `{module}`"


def check_weights(tree):
    """The tree holds text, and none of it large; fuzz corpora may be small binary files."""
    for path, data in tree.files.items():
        if CORPUS.match(path):
            if len(data) > CORPUS_BYTES_MAX:
                yield f"{path}: a corpus file of {len(data)} bytes, at most {CORPUS_BYTES_MAX}"
            continue
        if len(data) > FILE_BYTES_MAX:
            yield f"{path}: has {len(data)} bytes, at most {FILE_BYTES_MAX}"
        if b"\0" in data[:8192]:
            yield f"{path}: is binary"


def check_machine_names(tree):
    """No file knows the machine it was written on, nor the host of a package registry."""
    for path in tree.files:
        if CORPUS.match(path):
            continue
        text = tree.text(path)
        for pattern in (MACHINE_PATHS, REGISTRY_HOSTS):
            for match in pattern.finditer(text):
                yield f"{path}:{line_of(text, match.start())}: {match.group()} is of one machine or registry"


def anchors(markdown):
    """The anchors of a page's headings, as code hosts make them."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*$", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug)
    return found


def check_links(tree):
    """Links between pages lead to files, and to headings, that are there."""
    folders = {"/".join(p.split("/")[:i]) for p in tree.files for i in range(1, p.count("/") + 1)} | {""}
    for path, text in tree.matching(re.compile(r"\.md$")):
        prose = re.sub(r"```.*?```|`[^`\n]*`", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL)
        for match in re.finditer(r"\[[^\]]*\]\(([^)\s]+)\)", prose):
            target, _, anchor = match.group(1).partition("#")
            where = f"{path}:{line_of(prose, match.start())}"
            if re.match(r"[a-z]+:", target):
                continue
            resolved = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
            resolved = "" if resolved == "." else resolved.replace(os.sep, "/")
            if resolved not in tree.files and resolved not in folders:
                yield f"{where}: {match.group(1)} leads nowhere"
            elif anchor and resolved.endswith(".md") and anchor not in anchors(tree.text(resolved)):
                yield f"{where}: {resolved} has no heading #{anchor}"


RULES = [check_layers, check_upstream_includes, check_openers, check_pragma_once, check_forbidden, check_file_size,
         check_function_size, check_lines, check_undone, check_threads, check_trace, check_module_list, check_weights,
         check_machine_names, check_links]


def warnings(tree):
    for path, text in tree.matching(re.compile(r"^(src|apps)/.*\.(h|cc)$")):
        lines = text.count("\n")
        if FILE_LINES_WARN < lines <= FILE_LINES_MAX:
            yield f"{path}: has {lines} lines; past {FILE_LINES_WARN} a file wants a second look"


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(f"usage: {sys.argv[0]} ROOT")
    tree = Tree.read(sys.argv[1])
    if not read_ranks(tree):
        sys.exit("src/LAYERS has no table")
    for warning in warnings(tree):
        print(f"warning: {warning}")
    problems = [problem for rule in RULES for problem in rule(tree)]
    print("\n".join(problems))
    print(f"{len(tree.files)} files, {len(RULES)} rules, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
