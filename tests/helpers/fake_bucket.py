"""Google Cloud Storage on loopback, in memory, so far as gcsfs and orbax use it.

The JSON API of https://cloud.google.com/storage/docs/json_api/v1: objects are made
whole by one request or by a resumable one, read whole or by range, listed by prefix
and delimiter, copied and deleted; each writing gives them a new generation.
"""

import collections
import contextlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/?]+)$")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o/?$")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o/?$")
COPY = re.compile(
    r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)$"
)
MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)$")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)$")
Answer = tuple[int, dict, bytes]


class FakeBucket:
    """The objects of all buckets but gs://missing.

    Attributes:
      objects: by (bucket, name): bytes and generation.
      refuses: requests that change something are answered with 403.
      ignores_conditions: ifGenerationMatch has no effect.
      faults: what befalls the next requests, in order: None, a status (429, 503) with
        which they are refused, "lost" (the connection breaks after they took effect)
        or "slow".
      draw_fault: returns the fault of a request to a URL when `faults` is empty.
      staleness: listings show the objects of this many changes ago.
    """

    def __init__(self):
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.refuses = self.ignores_conditions = False
        self.faults: list[str | int | None] = []
        self.draw_fault = lambda url: None
        self.staleness = 0
        self._history = collections.deque([{}], maxlen=64)
        self.lock = threading.Lock()
        self._generation = 0
        self._sessions: dict[str, tuple[tuple[str, str], bytearray]] = {}

    def names(self) -> list[str]:
        """Returns the names of all objects."""
        return sorted(name for _, name in [*self.objects])

    def answer(self, method: str, url: str, headers, body: bytes) -> Answer:
        """Returns status, headers and body of the answer to a request.

        Raises:
          ConnectionError: the answer is lost.
        """
        fault = self.faults.pop(0) if self.faults else self.draw_fault(url)
        if isinstance(fault, int):
            text = {"error": {"message": "injected", "code": fault}}
            return fault, {}, json.dumps(text).encode()
        if fault == "slow":
            time.sleep(0.3)
        answer = self._answer(method, url, headers, body)
        if fault == "lost":
            raise ConnectionError
        return answer

    def _answer(self, method: str, url: str, headers, body: bytes) -> Answer:
        parts = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if self.refuses and method != "GET":
            return 403, {}, b'{"error": {"message": "refused", "code": 403}}'
        if parts.path.startswith("/batch/"):
            return self._batch(headers, body)
        routes = {
            OBJECT: {"GET": self._read, "DELETE": self._delete},
            LISTING: {"GET": self._list},
            UPLOAD: {"POST": self._upload, "PUT": self._go_on},
            COPY: {"POST": self._copy},
            MOVE: {"POST": self._move},
            BUCKET: {"GET": self._bucket},
        }
        for pattern, methods in routes.items():
            found = pattern.match(parts.path)
            if found and method in methods:
                names = [urllib.parse.unquote(name) for name in found.groups()]
                if names[0] == "missing":
                    return 404, {}, b"{}"
                with self.lock:
                    answer = methods[method](names, query, headers, body)
                    if self.staleness and method != "GET":
                        self._history.append(dict(self.objects))
                    return answer
        raise NotImplementedError(f"{method} {url}")

    def _bucket(self, names, query, headers, body) -> Answer:
        return _json({"name": names[0], "kind": "storage#bucket"})

    def _read(self, names, query, headers, body) -> Answer:
        found = self.objects.get(tuple(names))
        if found is None:
            return 404, {}, b"{}"
        content, generation = found
        if query.get("alt") != "media":
            return _json(_about(tuple(names), found))
        if query.get("ifGenerationNotMatch") == str(generation):
            return 304, {}, b""
        about = {"x-goog-generation": str(generation)}
        bounds = re.match(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if bounds is None:
            return 200, about, content
        start, stop = int(bounds[1]), int(bounds[2] or len(content) - 1) + 1
        if start >= len(content):
            return 416, {}, b""
        part = content[start:stop]
        about["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        return 206, about, part

    def _list(self, names, query, headers, body) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], {}
        past = min(self.staleness, len(self._history))
        shown = self._history[-past] if past else self.objects
        for key in sorted(shown):
            bucket, name = key
            if bucket != names[0] or not name.startswith(prefix):
                continue
            if not query.get("startOffset", "") <= name:
                continue
            if "endOffset" in query and not name < query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.split(delimiter)[0] + delimiter] = None
            else:
                items.append(_about(key, shown[key]))
        return _json(
            {"kind": "storage#objects", "items": items, "prefixes": [*folders]}
        )

    def _delete(self, names, query, headers, body) -> Answer:
        found = self.objects.pop(tuple(names), None)
        return (404 if found is None else 204), {}, b""

    def _upload(self, names, query, headers, body) -> Answer:
        if "upload_id" in query:
            return self._go_on(names, query, headers, body)
        kind = query["uploadType"]
        if kind == "media":
            return self._store((names[0], query["name"]), query, body)
        if kind == "multipart":
            about, content = _parts(headers, body)
            return self._store((names[0], json.loads(about)["name"]), query, content)
        name = query.get("name") or json.loads(body)["name"]
        session = str(len(self._sessions))
        self._sessions[session] = (names[0], name), bytearray()
        address = f"http://{headers['Host']}/upload/storage/v1/b/{names[0]}/o"
        address += f"?uploadType=resumable&upload_id={session}"
        return 200, {"Location": address}, b""

    def _go_on(self, names, query, headers, body) -> Answer:
        key, content = self._sessions[query["upload_id"]]
        content.extend(body)
        if headers["Content-Range"].endswith("/*"):
            return 308, {"Range": f"bytes=0-{len(content) - 1}"}, b""
        return self._store(key, query, bytes(content))

    def _store(self, key, query, content: bytes) -> Answer:
        there = self.objects.get(key, (b"", 0))[1]
        wanted = query.get("ifGenerationMatch", str(there))
        if wanted != str(there) and not self.ignores_conditions:
            return 412, {}, b"{}"
        self._generation += 1
        self.objects[key] = content, self._generation
        return _json(_about(key, self.objects[key]))

    def _copy(self, names, query, headers, body) -> Answer:
        found = self.objects.get((names[0], names[1]))
        if found is None:
            return 404, {}, b"{}"
        _, _, about = self._store((names[2], names[3]), {}, found[0])
        return _json({"done": True, "resource": json.loads(about)})

    def _move(self, names, query, headers, body) -> Answer:
        bucket, old, new = names
        answer = self._copy((bucket, old, bucket, new), query, headers, body)
        self.objects.pop((bucket, old), None)
        return answer

    def _batch(self, headers, body: bytes) -> Answer:
        """Answers several requests without a body in one."""
        mark = re.search(r'boundary="?([^";]+)', headers["Content-Type"])[1].encode()
        parts = []
        for number, part in enumerate(body.split(b"--" + mark)[1:-1], 1):
            line = re.search(rb"(DELETE|GET|POST) (\S+)", part)
            status, _, _ = self.answer(line[1].decode(), line[2].decode(), {}, b"")
            parts.append(
                f"--{mark.decode()}\r\nContent-Type: application/http\r\n"
                f"Content-ID: <response-{number}>\r\n\r\n"
                f"HTTP/1.1 {status} OK\r\n\r\n\r\n"
            )
        text = "".join(parts) + f"--{mark.decode()}--"
        kind = f"multipart/mixed; boundary={mark.decode()}"
        return 200, {"Content-Type": kind}, text.encode()


def _json(content: dict) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _about(key: tuple[str, str], found: tuple[bytes, int]) -> dict:
    return {
        "kind": "storage#object",
        "bucket": key[0],
        "name": key[1],
        "size": str(len(found[0])),
        "generation": str(found[1]),
        "metageneration": "1",
        "updated": "2026-01-01T00:00:00.000Z",
        "timeCreated": "2026-01-01T00:00:00.000Z",
    }


def _parts(headers, body: bytes) -> tuple[bytes, bytes]:
    """Parses an upload into the object's metadata and its content."""
    mark = re.search(r'boundary="?([^";]+)', headers["Content-Type"])[1].encode()
    mark = mark.strip(b"'")
    pieces = body.split(b"--" + mark)[1:3]
    about, content = (
        piece.split(b"\n\n", 1)
        if b"\r\n\r\n" not in piece
        else piece.split(b"\r\n\r\n", 1)
        for piece in pieces
    )
    return about[1], content[1].removesuffix(b"\n").removesuffix(b"\r")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: small ones would wait for each other

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, headers, content = self.server.fake.answer(
                self.command, self.path, self.headers, body
            )
        except ConnectionError:
            self.close_connection = True
            self.connection.close()
            return
        except Exception as error:
            status, headers, content = 501, {}, repr(error).encode()
            print("fake bucket:", repr(error), self.command, self.path, flush=True)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # a client that has what it wants
            self.wfile.write(content)
            self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignores clients that disconnect."""


@contextlib.contextmanager
def serve() -> Iterator[tuple[FakeBucket, dict[str, str]]]:
    """Yields the bucket, and the environment in which gcsfs and orbax find it."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.fake = FakeBucket()
    address = f"http://127.0.0.1:{server.server_port}"
    fsspec.config.conf["gs"] = {"token": "anon"}  # looks for no credentials
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield (
            server.fake,
            {
                "STORAGE_EMULATOR_HOST": address,
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        del fsspec.config.conf["gs"]
        server.shutdown()
        server.server_close()
