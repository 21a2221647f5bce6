#!/usr/bin/env python3
"""What is inside the program, as SPDX 2.3 JSON on stdout: llama.cpp, the crates of net/ and the header libraries.

usage: sbom.py VERSION RUST_TARGET
Crates and their licences are cargo's own word (cargo metadata), those alone that the target's build links. The same
input gives the same bytes: SOURCE_DATE_EPOCH is the time it claims, 1970 without.
"""
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def linked_crates(target):
    """Packages that the library of net/ links, by cargo's resolved graph; what only builds or tests is left out."""
    told = json.loads(subprocess.run(
        [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--format-version", "1", "--filter-platform", target,
         "--no-default-features", "--features", "mdns", "--manifest-path", str(ROOT / "net" / "Cargo.toml")],
        capture_output=True, text=True, check=True).stdout)
    packages = {package["id"]: package for package in told["packages"]}
    nodes = {node["id"]: node for node in told["resolve"]["nodes"]}
    root = told["resolve"]["root"]
    found, ahead = set(), [root]
    while ahead:
        here = ahead.pop()
        if here in found:
            continue
        found.add(here)
        ahead += [dep["pkg"] for dep in nodes[here]["deps"] if any(k["kind"] is None for k in dep["dep_kinds"])]
    return sorted((packages[one] for one in found - {root}), key=lambda p: (p["name"], p["version"]))


def package(name, version, licence, where, checksum=None):
    one = {"SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{version}"), "name": name,
           "versionInfo": version, "downloadLocation": where, "licenseDeclared": licence or "NOASSERTION",
           "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION", "filesAnalyzed": False}
    if checksum:
        one["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return one


def spdx_licence(text):
    """Old manifests write MIT/Apache-2.0 for MIT OR Apache-2.0."""
    return text.replace("/", " OR ") if text else None


def document(version, target):
    name, _, checksum = (ROOT / "cmake" / "llama_cpp.txt").read_text().partition(" --hash=sha256:")
    llama = package("llama.cpp", name.strip().replace("==", " "), "MIT", "NOASSERTION", checksum.strip())
    locked = {(one["name"], one["version"]): one.get("checksum")
              for one in tomllib.loads((ROOT / "net" / "Cargo.lock").read_text())["package"]}
    inside = [llama, package("CLI11", "2", "BSD-3-Clause", "NOASSERTION"),
              package("nlohmann-json", "inside llama.cpp", "MIT", "NOASSERTION"),
              package("cpp-httplib", "inside llama.cpp", "MIT", "NOASSERTION")]
    for crate in linked_crates(target):
        inside.append(package(crate["name"], crate["version"], spdx_licence(crate["license"]),
                              crate.get("repository") or "NOASSERTION", locked.get((crate["name"], crate["version"]))))
    shoal = package("shoal", version, "Apache-2.0", "NOASSERTION")
    made = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"shoal-{version}-{target}", "documentNamespace": f"urn:shoal:{version}:{target}",
            "creationInfo": {"created": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: scripts/sbom.py"]},
            "packages": [shoal, *inside],
            "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                               "relatedSpdxElement": shoal["SPDXID"]}] +
                             [{"spdxElementId": shoal["SPDXID"], "relationshipType": "CONTAINS",
                               "relatedSpdxElement": one["SPDXID"]} for one in inside]}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    json.dump(document(*sys.argv[1:]), sys.stdout, indent=1)
    print()
