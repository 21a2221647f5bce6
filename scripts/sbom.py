#!/usr/bin/env python3
"""What is inside the program, as SPDX 2.3 JSON: llama.cpp, the crates of net/ and the header libraries.

usage: sbom.py VERSION BUILD_FOLDER [FILE], else on stdout
What was built is read from the folder's CMakeCache.txt. Crates and their licences are cargo's own word (cargo
metadata), those alone that the target's build links. Libraries that the system brings (OpenSSL, libstdc++, libc) are
not inside: a package names them as what it depends on. The same input gives the same bytes: SOURCE_DATE_EPOCH is the
time it claims, 1970 without.
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
UNKNOWN = "NOASSERTION"  # SPDX's word
JSON_VERSION = r"VERSION_MAJOR (\d+)[^#]*#define \w+_MINOR (\d+)[^#]*#define \w+_PATCH (\d+)"


def linked_crates(cargo, target, features):
    """Packages that the library of net/ links, by cargo's resolved graph; what only builds or tests is left out."""
    told = json.loads(subprocess.run(
        [cargo, "metadata", "--locked", "--format-version", "1", "--filter-platform", target, "--no-default-features",
         "--features", features, "--manifest-path", str(ROOT / "net" / "Cargo.toml")],
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


def package(name, version, licence, where=UNKNOWN, checksum=None):
    one = {"SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{version}"), "name": name,
           "versionInfo": version, "downloadLocation": where, "licenseDeclared": licence or UNKNOWN,
           "licenseConcluded": UNKNOWN, "copyrightText": UNKNOWN, "filesAnalyzed": False}
    if checksum:
        one["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return one


def spdx_licence(text):
    """Old manifests write MIT/Apache-2.0 for MIT OR Apache-2.0."""
    return text.replace("/", " OR ") if text else None


def said_in(path, pattern):
    """What `pattern` finds in a file of source: a version."""
    text = pathlib.Path(path).read_text(errors="replace") if os.path.exists(path) else ""
    found = re.search(pattern, text)
    return ".".join(found.groups()) if found else "unknown"


def rust(cargo):
    """The compiler's version and the machine it is for: its standard library is in the archive of net/."""
    compiler = pathlib.Path(cargo).with_name("rustc")
    told = subprocess.run([compiler if compiler.exists() else "rustc", "--version", "--verbose"], capture_output=True,
                          text=True, check=True).stdout
    return dict(re.findall(r"^(release|host): (\S+)$", told, re.MULTILINE))


def c_libraries(cache):
    """llama.cpp and what is compiled into it and into the program beside it."""
    name, _, checksum = (ROOT / "cmake" / "llama_cpp.txt").read_text().partition(" --hash=sha256:")
    own = cache.get("SHOAL_LLAMA_CPP_DIR")  # another tree than the pinned one
    source = cache.get("llama.cpp_SOURCE_DIR", "")
    inside = [package("llama.cpp", *(("of the builder", "MIT") if own else
                                     (name.strip().replace("==", " "), "MIT", UNKNOWN, checksum.strip()))),
              package("CLI11", said_in(cache.get("CLI11_DIR", "") + "/CLI11ConfigVersion.cmake",
                                       r'set\(PACKAGE_VERSION "([^"]+)"\)'), "BSD-3-Clause"),
              package("nlohmann-json", said_in(source + "/vendor/nlohmann/json.hpp", JSON_VERSION), "MIT"),
              package("cpp-httplib", said_in(source + "/vendor/cpp-httplib/httplib.h",
                                             r'CPPHTTPLIB_VERSION "([^"]+)"'), "MIT")]
    if kleidiai := cache.get("SHOAL_KLEIDIAI_FOUND"):
        debian = said_in(kleidiai + "/packages", r"libkleidiai-dev (\S+)")
        inside.append(package("KleidiAI", debian if debian != "unknown" else
                              said_in(kleidiai + "/CMakeLists.txt", r"VERSION (\d+\.\d+\.\d+)"), "Apache-2.0"))
    return inside


def document(version, build):
    cache = dict(re.findall(r"^([^#/:\n][^:\n]*):\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.MULTILINE))
    cargo = cache.get("SHOAL_CARGO") or cache.get("shoal_cargo_found") or "cargo"
    compiler = rust(cargo)
    target = cache.get("SHOAL_RUST_TARGET") or compiler["host"]
    locked = {(one["name"], one["version"]): one.get("checksum")
              for one in tomllib.loads((ROOT / "net" / "Cargo.lock").read_text())["package"]}
    inside = c_libraries(cache)
    inside.append(package("rust-standard-library", compiler["release"], "MIT OR Apache-2.0"))
    for crate in linked_crates(cargo, target, cache.get("SHOAL_NET_FEATURES", "mdns")):
        inside.append(package(crate["name"], crate["version"], spdx_licence(crate["license"]),
                              crate.get("repository") or UNKNOWN, locked.get((crate["name"], crate["version"]))))
    shoal = package("shoal", version, "Apache-2.0")
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
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    text = json.dumps(document(sys.argv[1], pathlib.Path(sys.argv[2])), indent=1) + "\n"
    if len(sys.argv) == 4:
        pathlib.Path(sys.argv[3]).write_text(text)
    else:
        sys.stdout.write(text)
