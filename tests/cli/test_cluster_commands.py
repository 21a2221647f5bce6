"""Commands that need a node when none runs here: a clear error and the documented exit code."""
import json
import os
import socket

import pytest

WORDS = [["status"], ["status", "--json"], ["invite"], ["invite", "--json"], ["revoke", "beta"],
         ["place", "smollm2"], ["unplace", "smollm2"]]


@pytest.fixture
def home(tmp_path):
    return {**os.environ, "SHOAL_HOME": str(tmp_path)}


def test_leave_without_a_node_and_without_a_cluster(shoal, home):
    done = shoal("leave", env=home, timeout=20)
    assert done.returncode != 0 and done.stdout == ""
    assert "this device is in no cluster" in done.stderr


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_no_node_here(shoal, home, words):
    done = shoal(*words, env=home, timeout=20)
    assert done.returncode == 5 and done.stdout == ""
    assert "no node runs here: start one with `shoal up`" in done.stderr


def test_up_says_what_a_relay_is(shoal, home):
    done = shoal("up", "--relay", "my-server", env=home, timeout=20)
    assert done.returncode == 2 and "/ip4/A.B.C.D/tcp/PORT/p2p/ID" in done.stderr


def test_a_node_that_died_left_its_socket(shoal, home):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(home["SHOAL_HOME"] + "/control.sock")
    done = shoal("status", env=home, timeout=20)
    assert done.returncode == 5 and "no node runs here" in done.stderr


def test_a_home_whose_socket_path_is_too_long(shoal, home):
    home["SHOAL_HOME"] += "/" + "x" * 120
    done = shoal("status", env=home, timeout=20)
    assert done.returncode == 2 and "SHOAL_HOME" in done.stderr


def test_run_is_local_without_a_node(shoal, home, smollm2):
    for local in ([], ["--local"]):
        done = shoal("run", smollm2, "-p", "The capital of France is", "--raw", "-n", "4", "--temperature", "0",
                     "--json", *local, env=home)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["tokens"]) == 4


def test_missing_words(shoal, home):
    for words in (["revoke"], ["place"], ["unplace"], ["status", "--watchful"], ["place", "m", "--slots", "many"]):
        assert shoal(*words, env=home, timeout=20).returncode == 2, words
