"""A stand-in for the hub: nginx on loopback with a configuration of its own, and a wire that can be cut.

Serves the paths of the hub's API that shoal uses from a folder, with ranges; needs Debian's nginx.
"""
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

REPOSITORY = "owner/SmolLM2-GGUF"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Hub:
    """Two servers: the hub, which answers and redirects, and the host that has the bytes."""

    def __init__(self, folder, tls=False, host=None, rate="0"):
        """`tls`: both by HTTPS, with a certificate of an authority of their own, in `authority`. `host`: of a LAN,
        where they run (else on loopback here). `rate`: the most bytes a second of a connection ("4m"; "0": any)."""
        self.folder = pathlib.Path(folder)
        self.host, self.rate = host, rate
        self.address, self.bytes_name = (host.ipv4, host.ipv4) if host else ("127.0.0.1", "localhost")
        self.port, self.bytes_port = free_ports(2)
        self.tls, self.authority = tls, self.folder / "ca.pem"
        self.files = {}
        (self.folder / "files").mkdir(parents=True)
        (self.folder / "www").mkdir()
        self.process = None

    def environment(self, home):
        """In which this is the hub, and nothing is between."""
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return {**clean, "SHOAL_HOME": str(home), "HF_ENDPOINT": self.url}

    @property
    def url(self):
        return f"{self.scheme}://{self.address}:{self.port}"

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    def make_certificates(self):
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
        openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                "2", "-extfile", "names", "-out", "server.pem")

    def add(self, repository, name, content, sha256=None):
        """A file of a repository; `sha256` is what the hub says it is."""
        (self.folder / "files" / name).write_bytes(content)
        self.files.setdefault(repository, {})[name] = (len(content), sha256)
        self.write()

    def write(self):
        for repository, files in self.files.items():
            tree = self.folder / "www" / "api" / "models" / repository / "tree"
            tree.mkdir(parents=True, exist_ok=True)
            entries = [{"type": "directory", "path": "x", "size": 0}]
            for name, (size, sha256) in files.items():
                entry = {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                if sha256:
                    entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
                entries.append(entry)
            (tree / "main").write_text(json.dumps(entries))

    def configuration(self):
        places = []
        for repository, files in self.files.items():
            for name, (_, sha256) in files.items():
                linked = f'add_header X-Linked-Etag \'"{sha256}"\' always;' if sha256 else ""
                places.append(f"""
      location = /{repository}/resolve/main/{name} {{
        {linked}
        return 302 {self.scheme}://{self.bytes_name}:{self.bytes_port}/files/{name};
      }}""")
        ssl = " ssl" if self.tls else ""
        certificate = "ssl_certificate server.pem; ssl_certificate_key server.key;" if self.tls else ""
        return f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 256; }}
http {{
  log_format heads '$server_port $status $request_uri range="$http_range" token="$http_authorization" '
                   'sent=$body_bytes_sent';
  access_log {self.folder}/access.log heads;
  client_body_temp_path {self.folder}/t1; proxy_temp_path {self.folder}/t2; fastcgi_temp_path {self.folder}/t3;
  uwsgi_temp_path {self.folder}/t4; scgi_temp_path {self.folder}/t5;
  limit_req_zone $binary_remote_addr zone=few:1m rate=8r/s;
  server {{
    listen {self.address}:{self.port}{ssl}; {certificate}
    root {self.folder}/www;
    location / {{ default_type application/json; }}
    location /private/ {{ if ($http_authorization != "Bearer right") {{ return 401; }} alias {self.folder}/files/; }}
    location /busy/ {{
      limit_req zone=few burst=2 nodelay; limit_req_status 429; add_header Retry-After 1 always;
      alias {self.folder}/files/;
    }}
    location /whole/ {{ max_ranges 0; alias {self.folder}/files/; }}
    {"".join(places)}
  }}
  server {{
    listen {self.address}:{self.bytes_port}{ssl}; {certificate}
    location /files/ {{
      if ($http_authorization) {{ return 400; }}
      limit_rate {self.rate};
      root {self.folder};
    }}
  }}
}}
"""

    def start(self):
        if self.tls:
            self.make_certificates()
        config = self.folder / "nginx.conf"
        config.write_text(self.configuration())
        words = [NGINX, "-c", str(config), "-p", str(self.folder)]
        self.process = subprocess.Popen(self.host.command(*words) if self.host else words,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                if self.host:
                    self.host.connect(self.bytes_port, self.address, 1).close()
                else:
                    socket.create_connection((self.address, self.bytes_port), 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise RuntimeError((self.folder / "error.log").read_text())

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)

    def set_rate(self, rate):
        """From the next request on."""
        self.stop()
        self.rate = rate
        self.start()

    def sent(self):
        """Bytes of files that went out."""
        return sum(int(line.rsplit("sent=", 1)[1]) for line in self.log() if " /files/" in line)

    def log(self):
        return (self.folder / "access.log").read_text().splitlines()


class Answering:
    """A server of the test's own: `answer(handler)` gets each GET."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                answer(self)

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class CutWire:
    """Passes connections on to a port, and cuts `cuts` of them at a random byte. Rests `pause_s` after each 64 KiB."""

    def __init__(self, port, cuts, seed=1, pause_s=0.0):
        self.to, self.cuts, self.made, self.pause_s = port, cuts, 0, pause_s
        self.answered = 0  # bytes that clients got
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        with self.lock:
            limit = self.random.randrange(1, 3 << 20) if self.made < self.cuts else None
        server = socket.create_connection(("127.0.0.1", self.to))
        threading.Thread(target=self.copy, args=(client, server, None, lambda count: None), daemon=True).start()
        self.copy(server, client, limit, self.count)

    def count(self, answered):
        with self.lock:
            self.answered += answered

    def copy(self, source, sink, limit, count):
        passed = 0
        try:
            while data := source.recv(65536):
                count(len(data))
                if limit is not None and passed + len(data) >= limit:
                    sink.sendall(data[:limit - passed])
                    with self.lock:
                        self.made += 1
                    break
                sink.sendall(data)
                passed += len(data)
                if self.pause_s:
                    time.sleep(self.pause_s)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
