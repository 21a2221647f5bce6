#!/usr/bin/env python3
"""Adds up JUnit files of ctest and pytest and ends with one line, "N passed, N failed, N skipped".

test_summary.py FILE...; exits with 1 if a test failed, or if none ran at all. A file that is not there counts as one
failure: its runner died before it could write it.
"""
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def outcome(case):
    """'passed', 'failed' or 'skipped' for one <testcase>."""
    kinds = {child.tag for child in case}
    # ctest writes a test whose program was not built as skipped.
    absent = any("Unable to find executable" in (child.get("message") or "") for child in case)
    if absent or kinds & {"failure", "error"} or case.get("status") == "fail":
        return "failed"
    if "skipped" in kinds or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed, skipped = [], []
    for path in map(Path, sys.argv[1:]):
        try:
            cases = list(ElementTree.parse(path).iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            print(f"no report of {path.name}: {error}")
            counts["failed"] += 1
            continue
        for case in cases:
            kind = outcome(case)
            counts[kind] += 1
            suite, name = case.get("classname") or "", case.get("name") or "?"
            name = f"{suite}.{name}" if suite and suite != name else name
            (failed if kind == "failed" else skipped if kind == "skipped" else []).append(name)
    for name in skipped:
        print(f"skipped: {name}")
    for name in failed:
        print(f"FAILED: {name}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
