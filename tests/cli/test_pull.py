"""`shoal pull` and the store's commands against a real HTTP server: the right bytes, or a clear error."""
import base64
import email.utils
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.parse

import pytest

from gguf_parts import cut
from hub import FILE, REPOSITORY, Answering, CutWire, Hub


@pytest.fixture
def home(tmp_path, hub):
    return {**hub.environment(tmp_path / "home"), "HF_TOKEN": "secret"}


def blobs(home):
    return sorted(pathlib.Path(home["SHOAL_HOME"], "store", "blobs").glob("*"))


def served(hub, after=0, least=0):
    """Bytes that the hub's files were asked for since line `after` of the log; it waits for `least` of them."""
    deadline = time.monotonic() + 30
    while True:
        lines = [line for line in hub.log()[after:] if " 206 " in line]
        ranges = [line.split('range="bytes=')[1].split('"')[0].split("-") for line in lines]
        count = sum(int(last) - int(first) + 1 for first, last in ranges)
        if count >= least or time.monotonic() > deadline:
            return count
        time.sleep(0.05)


def test_the_hub_by_name_with_a_redirect_to_another_host(shoal, home, hub):
    hub.start()
    done = shoal("pull", f"hf:{REPOSITORY}:Q4_1", "--json", env=home)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert model["whole"] and model["origin"] == f"hf:{REPOSITORY}:Q4_1" and len(model["layers_held"]) == 30
    # The token goes to the hub, and not to where it redirects.
    assert any(str(hub.port) in line and 'token="Bearer secret"' in line for line in hub.log())
    assert all('token="-"' in line for line in hub.log() if line.startswith(str(hub.bytes_port)))

    answer = shoal("run", model["name"], "--local", "--raw", "-p", "Once upon a time", "-n", 8, "--temperature", 0,
                   "--stages", 3, "--json", env=home)
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)["tokens"]) == 8
    models = json.loads(shoal("models", "--json", env=home).stdout)["models"]
    assert [m["name"] for m in models] == [model["name"]]
    verified = shoal("verify", model["name"], "--json", env=home)
    assert verified.returncode == 0 and json.loads(verified.stdout)["damaged"] == []
    assert shoal("rm", model["name"], env=home).returncode == 0
    assert blobs(home) == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")
def test_https_with_an_authority_of_its_own(shoal, home, tmp_path, content):
    hub = Hub(tmp_path / "https", tls=True)
    hub.add(REPOSITORY, FILE, content, hashlib.sha256(content).hexdigest())
    hub.start()
    try:
        env = {**home, "HF_ENDPOINT": hub.url}
        stranger = shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=env)
        if "without TLS" in stranger.stderr:
            pytest.skip("this program was built without TLS")
        assert stranger.returncode != 0 and "certificate" in stranger.stderr, "nobody vouches for the server"
        assert not hub.log(), "nothing was asked of a server that is not who it says, no token told"
        done = shoal("pull", f"hf:{REPOSITORY}:Q4_1", "--json", env={**env, "SSL_CERT_FILE": str(hub.authority)})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["whole"]
        verified = json.loads(shoal("verify", json.loads(done.stdout)["name"], "--json", env=env).stdout)
        assert verified["damaged"] == []
        assert all('token="-"' in line for line in hub.log() if line.startswith(str(hub.bytes_port)))
    finally:
        hub.stop()


def test_the_catalogue_and_the_choice(shoal, home, hub, content):
    models = json.loads(shoal("models", "--catalogue", "--json", env=home).stdout)["models"]
    by_name = {model["name"]: model for model in models}
    assert len(by_name) >= 12 and all(model["licence"] and model["sizes"] for model in models)
    small = by_name["smollm2-135m"]
    assert small["fits"] == "Q8_0" and "small" in small["reason"]
    assert "llama-3.1-8b" in shoal("models", "--catalogue", env=home).stdout
    # By its name, from the repository that the catalogue names; which file, and why, is said.
    repository = small["pull"].removeprefix("hf:")
    hub.add(repository, "small-Q8_0.gguf", content)
    hub.add(repository, "small-Q4_K_M.gguf", content)
    hub.start()
    done = shoal("pull", "smollm2-135m", "--metadata-only", "--json", env=home)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert model["origin"] == small["pull"] + ":Q8_0" and "small" in model["chosen"]
    named = json.loads(shoal("pull", "smollm2-135m:Q4_K_M", "--metadata-only", "--json", env=home).stdout)
    assert named["origin"] == small["pull"] + ":Q4_K_M" and named["chosen"] == "as asked for"


def test_metadata_is_kept_for_planning(shoal, home, hub, content):
    hub.start()
    name = f"hf:{REPOSITORY}:Q4_1"

    def known():
        models = json.loads(shoal("models", "--json", env=home).stdout)["models"]
        return [(model["name"], model["id"], model["held_bytes"]) for model in models]

    assert json.loads(shoal("pull", name, "--metadata-only", "--json", env=home).stdout)["kept"]
    first = known()
    assert [(model[0], model[2]) for model in first] == [(FILE[:-5], 0)]
    os.utime(hub.folder / "files" / FILE, (1, 1))  # as from another server of the same bytes, with an ETag of its own
    assert shoal("pull", name, "--metadata-only", env=home).returncode == 0
    assert known() == first, "the hub's hash says that it is the same file"
    hub.stop()
    for words in (("plan", FILE[:-5]), ("model", name)):
        assert shoal(*words, env=home).returncode == 0, words
    hub.start()
    assert shoal("pull", name, env=home).returncode == 0
    assert [model[2] > 0.9 * len(content) for model in known()] == [True]
    assert json.loads(shoal("pull", name, "--metadata-only", "--json", env=home).stdout)["kept"]
    assert [model[2] > 0.9 * len(content) for model in known()] == [True], "what is here stays"


def test_the_option_of_llama_cpp(shoal, home, hub):
    hub.start()
    done = shoal("pull", "-hf", f"{REPOSITORY}:Q4_1", "--metadata-only", "--json", env=home)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert model["layers"] == 30 and len(model["layer_bytes"]) == 30
    # Planning needs the header alone.
    asked = [line for line in hub.log() if line.startswith(str(hub.bytes_port))]
    wanted = sum(int(line.split('range="bytes=')[1].split('"')[0].split("-")[1]) + 1 for line in asked)
    assert wanted < 3 * model["metadata_bytes"] + (1 << 20) and wanted < model["bytes"] / 5


def test_forty_disconnects(shoal, home, hub, content):
    hub.start()
    wire = CutWire(hub.bytes_port, cuts=40)
    done = shoal("pull", f"http://127.0.0.1:{wire.port}/files/{FILE}", "--json", env=home, timeout=300)
    wire.close()
    assert done.returncode == 0, done.stderr
    assert wire.made >= 40, "the wire was cut fewer times than it should"
    assert "connection" in done.stderr   # a person is told why it waits
    verified = json.loads(shoal("verify", json.loads(done.stdout)["name"], "--json", env=home).stdout)
    assert verified["damaged"] == [] and verified["verified_bytes"] > 0.97 * len(content)
    # The bytes are the file's: every blob is a part of it.
    for blob in blobs(home):
        assert blob.read_bytes()[:4096] in content


def test_a_killed_pull_goes_on(binary, shoal, home, hub, content):
    hub.start()
    wire = CutWire(hub.bytes_port, cuts=0, pause_s=0.002)  # slow enough to be killed in the middle
    url = f"http://127.0.0.1:{wire.port}/files/{FILE}"
    kills = 8
    for attempt in range(kills):
        process = subprocess.Popen([binary, "pull", url, "--connections", "1"], env=home, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        enough = wire.answered + (8 << 20) + attempt * 200_003   # somewhere inside of a chunk
        deadline = time.monotonic() + 60
        while wire.answered < enough and time.monotonic() < deadline:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = shoal("pull", url, env=home)
    wire.close()
    assert done.returncode == 0, done.stderr
    # What a kill costs: the chunk that was on its way, and what lay between the server and the program.
    again = wire.answered - len(content)
    assert again <= kills * (3 << 20), again
    assert json.loads(shoal("verify", FILE[:-5], "--json", env=home).stdout)["damaged"] == []


def test_a_finished_model_is_completed(shoal, home, hub):
    hub.start()
    assert shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=home).returncode == 0
    whole = blobs(home)
    # Nothing is missing: the hub is asked whether it is the same file still, which is one byte.
    for name in ([], ["--name", "also"]):
        before = len(hub.log())
        assert shoal("pull", f"hf:{REPOSITORY}:Q4_1", *name, env=home).returncode == 0
        assert served(hub, before, least=1) == 1
    # One layer goes, as by `verify` or for room: that one is fetched, to the byte.
    lost = min(whole, key=lambda blob: blob.stat().st_size)
    content = bytearray(lost.read_bytes())
    content[-1] ^= 1
    lost.write_bytes(content)
    assert len(json.loads(shoal("verify", "also", "--json", env=home).stdout)["damaged"]) == 1
    assert not lost.exists()
    before = len(hub.log())
    done = shoal("pull", f"hf:{REPOSITORY}:Q4_1", "--json", env=home)
    assert done.returncode == 0 and json.loads(done.stdout)["whole"], done.stderr
    assert served(hub, before, least=len(content) + 1) == len(content) + 1
    assert blobs(home) == whole
    assert json.loads(shoal("verify", FILE[:-5], "--json", env=home).stdout)["damaged"] == []
    # What is removed is not known any more.
    for name in ("also", FILE[:-5]):
        assert shoal("rm", name, env=home).returncode == 0
    assert blobs(home) == []
    assert shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=home).returncode == 0
    assert blobs(home) == whole


def test_too_many_requests_with_retry_after(shoal, home, hub):
    hub.start()
    done = shoal("pull", f"{hub.url}/busy/{FILE}", "--connections", 2, env=home, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "429" in done.stderr and "again in 1 s" in done.stderr
    assert any(" 429 " in line for line in hub.log())


def serve_part(handler, content, moved=0, more=0):
    """A range of a file; of what is not its beginning the answer is `moved`, or has so many bytes `more`."""
    first, last = (int(number) for number in handler.headers["Range"].removeprefix("bytes=").split("-"))
    moved, more = (moved, more) if first else (0, 0)
    body = content[first:last + 1 + more]
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first + moved}-{last + moved}/{len(content)}")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except OSError:
        pass   # it has heard enough


@pytest.mark.parametrize("oddity, says", [({"moved": 1}, "sends other bytes than it was asked for"),
                                          ({"more": 10}, "sends more bytes than it was asked for")])
def test_a_server_that_sends_something_else(shoal, home, content, oddity, says):
    server = Answering(lambda handler: serve_part(handler, content, **oddity))
    try:
        done = shoal("pull", f"http://127.0.0.1:{server.port}/{FILE}", env=home)
        assert done.returncode != 0 and says in done.stderr, done.stderr
        assert json.loads(shoal("models", "--json", env=home).stdout)["models"] == []
    finally:
        server.close()


def test_retry_after_a_date(shoal, home, content):
    refused = []

    def answer(handler):
        if refused:
            return serve_part(handler, content)
        refused.append(True)
        handler.send_response(429)   # with its Date
        handler.send_header("Retry-After", email.utils.formatdate(time.time() + 2, usegmt=True))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server = Answering(answer)
    try:
        done = shoal("pull", f"http://127.0.0.1:{server.port}/{FILE}", "--metadata-only", env=home)
        assert done.returncode == 0, done.stderr
        assert "again in 2 s" in done.stderr or "again in 1 s" in done.stderr, done.stderr
    finally:
        server.close()


def test_a_proxy_with_a_password(shoal, home, hub):
    hub.start()
    asked = []

    def answer(handler):
        asked.append(handler.path)
        right = base64.b64encode(b"us@er:pass word").decode()
        wanted = {name: value for name, value in handler.headers.items() if name != "Proxy-Authorization"}
        if handler.headers["Proxy-Authorization"] != f"Basic {right}":
            status, headers, body = 407, [], b""
        else:
            there = urllib.parse.urlsplit(handler.path)
            connection = http.client.HTTPConnection(there.hostname, there.port)
            connection.request("GET", there.path + (f"?{there.query}" if there.query else ""), headers=wanted)
            response = connection.getresponse()
            status, body = response.status, response.read()
            headers = [(k, v) for k, v in response.getheaders() if k.lower() not in ("connection", "content-length")]
        handler.send_response_only(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    proxy = Answering(answer)
    pull = ("pull", f"hf:{REPOSITORY}:Q4_1", "--metadata-only")
    try:
        env = {**home, "http_proxy": f"http://us%40er:pass%20word@127.0.0.1:{proxy.port}"}
        done = shoal(*pull, env=env)
        assert done.returncode == 0, done.stderr
        assert {urllib.parse.urlsplit(url).port for url in asked} == {hub.port, hub.bytes_port}
        asked.clear()
        assert shoal(*pull, env={**env, "no_proxy": "localhost, 127.0.0.1"}).returncode == 0
        assert not asked
        stranger = shoal(*pull, env={**home, "http_proxy": f"http://127.0.0.1:{proxy.port}"})
        assert stranger.returncode != 0 and "407" in stranger.stderr, stranger.stderr
        # One that is none is said, not passed by.
        before = len(hub.log())
        none = shoal(*pull, env={**home, "http_proxy": "socks5://user:secret@127.0.0.1:1"})
        assert none.returncode == 2 and "proxy" in none.stderr and "secret" not in none.stderr, none.stderr
        assert len(hub.log()) == before
    finally:
        proxy.close()


def test_a_wrong_byte(shoal, home, hub, content):
    wrong = bytearray(content)
    wrong[len(wrong) // 2] ^= 1
    hub.add(REPOSITORY, FILE, bytes(wrong), hashlib.sha256(content).hexdigest())
    hub.start()
    done = shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=home)
    assert done.returncode == 3 and "SHA-256" in done.stderr
    assert blobs(home) == [] and json.loads(shoal("models", "--json", env=home).stdout)["models"] == []


def test_a_file_of_the_wrong_length(shoal, home, hub, content):
    hub.add("owner/cut", FILE, content[:len(content) // 2])
    hub.start()
    done = shoal("pull", f"hf:owner/cut/{FILE}", env=home)
    assert done.returncode == 3 and "truncated" in done.stderr
    assert not blobs(home)


def test_a_file_that_changes_meanwhile(binary, home, hub, content):
    hub.start()
    path = hub.folder / "files" / FILE
    wire = CutWire(hub.bytes_port, cuts=0, pause_s=0.003)  # so that it takes seconds
    process = subprocess.Popen([binary, "pull", f"http://127.0.0.1:{wire.port}/files/{FILE}", "--connections", "1"],
                               env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len([line for line in hub.log() if " 206 " in line]) < 3:
        assert process.poll() is None, "it was too fast for this test"
        time.sleep(0.002)
    os.utime(path, (1, 1))   # nginx makes the ETag of time and length
    _, err = process.communicate(timeout=120)
    wire.close()
    assert process.returncode != 0 and "has changed while it was fetched" in err


def test_what_may_not_be_had(shoal, home, hub):
    hub.start()
    refused = shoal("pull", f"{hub.url}/private/{FILE}", env={**home, "HF_TOKEN": ""})
    assert refused.returncode == 2 and "HF_TOKEN" in refused.stderr
    # By a URL of the hub, it gets the token too, and by one of another host nobody does.
    allowed = ("pull", f"{hub.url}/private/{FILE}", "--metadata-only")
    assert shoal(*allowed, env={**home, "HF_TOKEN": "right"}).returncode == 0
    elsewhere = {**home, "HF_TOKEN": "right", "HF_ENDPOINT": f"http://127.0.0.1:{hub.bytes_port}"}
    assert shoal(*allowed, env=elsewhere).returncode == 2
    absent = shoal("pull", "hf:owner/nothing", env=home)
    assert absent.returncode == 3 and "no repository 'owner/nothing'" in absent.stderr
    kind = shoal("pull", f"hf:{REPOSITORY}:Q9_9", env=home)
    assert kind.returncode == 3 and "there are Q4_1 (93.8 MiB)" in kind.stderr
    whole = shoal("pull", f"{hub.url}/whole/{FILE}", env=home)
    assert whole.returncode == 3 and "does not serve parts" in whole.stderr
    page = shoal("pull", f"{hub.url}/api/models/{REPOSITORY}/tree/main", env=home)
    assert page.returncode == 3 and "not a GGUF file" in page.stderr


def test_no_room(shoal, home, hub, content):
    changed = content[:-1] + bytes([content[-1] ^ 1])
    hub.add("owner/Other-GGUF", "Other-Q4_1.gguf", changed, hashlib.sha256(changed).hexdigest())
    hub.start()
    small = {**home, "SHOAL_STORE_MAX": "20M"}
    done = shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=small)
    assert done.returncode == 1 and "no room for 9" in done.stderr, done.stderr   # all of it, not a layer
    kept = pathlib.Path(home["SHOAL_HOME"], "store")
    assert not [path for path in kept.rglob("*") if path.is_file()], "room was taken for what does not fit"
    assert shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=home).returncode == 0
    whole = blobs(home)
    assert shoal("pull", "hf:owner/Other-GGUF:Q4_1", env=small).returncode == 1
    assert blobs(home) == whole, "what is here went for what does not fit"


def test_a_file_here_is_used_as_it_lies(shoal, home, smollm2):
    done = shoal("pull", smollm2, "--name", "here", "--json", env=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(pathlib.Path(smollm2)) and not blobs(home)
    assert shoal("verify", "here", env=home).returncode == 0
    assert json.loads(shoal("gc", "--json", env=home).stdout)["removed_bytes"] == 0
    for name in ("../x", "a/b", ""):
        assert shoal("pull", smollm2, "--name", name or "-", env=home).returncode == 2


def add_parts(hub, content, count=3):
    """Into the hub; their names."""
    names = [f"Cut-Q4_1-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for name, part in zip(names, cut(content, count)):
        hub.add("owner/Cut-GGUF", name, part, hashlib.sha256(part).hexdigest())
    return names


def tokens(shoal, home, model):
    answer = shoal("run", model, "--local", "--raw", "-p", "Once upon a time", "-n", 8, "--temperature", 0,
                   "--stages", 2, "--json", env=home)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)["tokens"]


def test_a_model_in_parts_is_one_model(shoal, home, hub, content, smollm2, tmp_path):
    names = add_parts(hub, content)
    hub.start()
    done = shoal("pull", "hf:owner/Cut-GGUF:Q4_1", "--json", env=home)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert model["name"] == "Cut-Q4_1" and model["whole"] and len(model["layers_held"]) == 30
    expected = tokens(shoal, home, smollm2)
    assert tokens(shoal, home, "Cut-Q4_1") == expected

    # The same model by the URL of any part, and by the path of any part: what is here is not fetched again.
    before = len(hub.log())
    by_url = shoal("pull", f"{hub.url}/owner/Cut-GGUF/resolve/main/{names[1]}", "--name", "by-url", "--json", env=home)
    assert by_url.returncode == 0, by_url.stderr
    assert json.loads(by_url.stdout)["id"] == model["id"]
    assert served(hub, before) < len(content) / 5, "more than the parts' headers"
    folder = pathlib.Path(home["SHOAL_HOME"], "models")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(hub.folder / "files" / name, folder / name)
    assert tokens(shoal, home, folder / names[2]) == expected
    by_path = shoal("pull", folder / names[0], "--name", "by-path", "--json", env=home)
    assert by_path.returncode == 0 and json.loads(by_path.stdout)["id"] == model["id"], by_path.stderr
    assert shoal("rm", "Cut-Q4_1", env=home).returncode == 0
    assert tokens(shoal, home, "Cut-Q4_1") == expected, "by its name among the models' files"


def test_a_part_that_is_missing_or_of_another_model(shoal, home, hub, content, tmp_path):
    names = add_parts(hub, content)
    (hub.folder / "files" / names[1]).unlink()
    hub.start()
    gone = shoal("pull", f"hf:owner/Cut-GGUF/{names[0]}", env=home)
    assert gone.returncode != 0 and "part 2 of 3" in gone.stderr, gone.stderr
    parts = cut(content, 3)
    for name, part in zip(names, [parts[0], cut(content, 4)[1], parts[2]]):
        (tmp_path / name).write_bytes(part)
    other = shoal("pull", tmp_path / names[0], env=home)
    assert other.returncode != 0 and "part 2 of 4, where part 2 of 3" in other.stderr, other.stderr
    (tmp_path / names[2]).unlink()
    (tmp_path / names[1]).write_bytes(parts[1])
    for command in (["pull"], ["run", "--local", "--raw", "-p", "x"]):
        missing = shoal(command[0], tmp_path / names[0], *command[1:], env=home)
        assert missing.returncode != 0 and names[2] in missing.stderr, missing.stderr


def test_a_wrong_byte_in_a_part(shoal, home, hub, content):
    names = add_parts(hub, content)
    part = bytearray((hub.folder / "files" / names[2]).read_bytes())
    part[-1000] ^= 1
    (hub.folder / "files" / names[2]).write_bytes(part)
    hub.start()
    done = shoal("pull", "hf:owner/Cut-GGUF:Q4_1", env=home)
    assert done.returncode != 0 and names[2] in done.stderr and "SHA-256" in done.stderr, done.stderr
    assert blobs(home) == []


def test_a_name_is_not_taken_from_another_model(shoal, home, hub, content):
    name = FILE.removesuffix(".gguf")
    changed = content[:-1] + bytes([content[-1] ^ 1])
    hub.add("owner/Other-GGUF", "Other-Q4_1.gguf", changed, hashlib.sha256(changed).hexdigest())
    hub.start()
    assert shoal("pull", f"hf:{REPOSITORY}:Q4_1", env=home).returncode == 0
    taken = shoal("pull", "hf:owner/Other-GGUF:Q4_1", "--name", name, env=home)
    assert taken.returncode != 0 and "another model is called" in taken.stderr, taken.stderr
    assert shoal("pull", "hf:owner/Other-GGUF:Q4_1", env=home).returncode == 0
    models = json.loads(shoal("models", "--json", env=home).stdout)["models"]
    assert {m["name"]: m["origin"] for m in models} == {
        name: f"hf:{REPOSITORY}:Q4_1", "Other-Q4_1": "hf:owner/Other-GGUF:Q4_1"}
