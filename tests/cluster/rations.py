"""Processor time rationed by control groups: slow devices on a fast machine. Needs root."""
import os
import pathlib

import nodes

PERIOD_US = 10_000


class Ration:
    """A control group whose processes get `share` of a core; version 1 or 2."""

    def __init__(self, name):
        legacy = pathlib.Path("/sys/fs/cgroup/cpu")
        self.is_legacy = (legacy / "cgroup.procs").exists()
        self.folder = (legacy if self.is_legacy else pathlib.Path("/sys/fs/cgroup")) / f"shoal-{os.getpid()}-{name}"
        self.folder.mkdir()

    def give(self, share):
        quota = int(share * PERIOD_US)
        if self.is_legacy:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self.folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")

    def before(self):
        """Words in front of a program that make it start in here."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$@"', "sh"]

    def close(self):
        nodes.wait_for("the group is empty", lambda: not (self.folder / "cgroup.procs").read_text().strip())
        self.folder.rmdir()
