"""A model larger than any host's memory runs on three hosts, and one of them alone says what is missing.

The model has the shape of an 8B one as Q4_0, and random weights; each host's memory is limited by a control group. It
takes some minutes and 10 GB of disk, so it runs only when asked for: SHOAL_TEST_LARGE=1 ./dev test --label cluster -R
larger
"""
import json
import os
import pathlib
import re
import subprocess

import nodes
import pytest

LIMIT = 2_500_000_000
GROUPS = [pathlib.Path(path) for path in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")]
JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'

pytestmark = pytest.mark.skipif(not os.environ.get("SHOAL_TEST_LARGE"), reason="SHOAL_TEST_LARGE is not set")


class Group:
    """A control group that may use LIMIT bytes of memory, page cache included."""

    def __init__(self, name):
        root = next((one for one in GROUPS if os.access(one, os.W_OK) and (one / "cgroup.procs").exists()), None)
        if root is None:
            pytest.skip("no control groups can be made here")
        self.folder = root / f"shoal-test-{os.getpid()}-{name}"
        self.folder.mkdir()
        old = self.folder / "memory.limit_in_bytes"
        try:
            (old if old.exists() else self.folder / "memory.max").write_text(str(LIMIT))
        except OSError as error:
            self.folder.rmdir()
            pytest.skip(f"no memory limit can be set here: {error}")

    @property
    def before(self):
        return ("sh", "-c", JOIN, str(self.folder))

    def peak(self):
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (self.folder / name).exists():
                return int((self.folder / name).read_text())
        return None

    def close(self):
        nodes.wait_for("its processes have ended", lambda: not (self.folder / "cgroup.procs").read_text(), 30)
        self.folder.rmdir()


@pytest.fixture(scope="module")
def model(smollm2, tmp_path_factory):
    program = pathlib.Path(nodes.BINARY).parent / "tests/tools/shoal_random_model"
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    subprocess.run([program, "8B", smollm2, path], check=True)
    yield path
    path.unlink()


def test_three_hosts_run_what_one_cannot(lan, model):
    hosts = lan.add_hosts(3)
    groups = []
    for host in hosts:
        groups.append(Group(host.name))
        host.lan.at_end(groups[-1].close)  # after the node that is in it
    first = nodes.Node(hosts[0], models=[model], before=groups[0].before)
    members = [first]
    for host, group in zip(hosts[1:], groups[1:]):
        members.append(nodes.join_on(host, first, before=group.before))
    assert model.stat().st_size > 1.5 * LIMIT
    nodes.wait_for("all nodes see each other", lambda: nodes.all_alive(members), 20)
    nodes.wait_for("all know the model", lambda: all("large" in json.dumps(one.status()["nodes"][0]["models"])
                                                     for one in members), 120)

    alone = first.cli("place", "large", "--stages", 1, "--nodes", first.name, "--ctx", 512, "--slots", 1, check=False)
    assert alone.returncode != 0
    print(alone.stderr)
    sizes = re.findall(r"[0-9.]+ [GM]iB", alone.stderr)
    assert len(sizes) >= 2, "what it needs, and what there is: " + alone.stderr

    first.cli("place", "large", "--ctx", 512, "--slots", 1, "--standby", "off", timeout=600)
    stages = first.placement("large")["stages"]
    assert sorted(stage["name"] for stage in stages) == sorted(one.name for one in members)
    assert members[2].complete("large", "Once upon a time", 4)
    for group in groups:
        print(group.folder.name, group.peak())
