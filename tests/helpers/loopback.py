"""A server on loopback for small published files, and functions that pack them."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from urllib.parse import parse_qs, urlsplit


class Loopback:
    """Serves `files`, bytes by path, complete or truncated.

    Attributes:
      cut: paths of which the connection breaks off after half the file.
      asked: paths that were asked for, in order.
    """

    def __init__(self):
        self.files, self.cut, self.asked = {}, set(), []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server, self.address = server, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _handler(loopback):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = urlsplit(self.path).path.lstrip("/")
                loopback.asked.append(path)
                if path not in loopback.files:
                    return self.send_error(404)
                found = loopback.files[path]
                query = parse_qs(urlsplit(self.path).query)
                content = found(query) if callable(found) else found
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                kept = len(content) // (2 if path in loopback.cut else 1)
                if self.command == "GET":
                    self.wfile.write(content[:kept])
                return None

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        return Handler


@contextlib.contextmanager
def serving():
    server = Loopback()
    try:
        yield server
    finally:
        server.close()


def checksum(content, algorithm="sha256"):
    return hashlib.new(algorithm, content).hexdigest()


def pack(name, members):
    """Returns an archive of the name's kind, with an extra file in it."""
    members = {"README": b"unwanted", **members}
    file = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in members.items():
                archive.writestr(path, content)
        return file.getvalue()
    how = {"mode": "w"} if name.endswith(".tar") else {"mode": "w:gz"}
    with tarfile.open(fileobj=file, **how) as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def write(folder, files):
    """Writes files by path, with their folders."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def text(*lines):
    return "".join(f"{line}\n" for line in lines).encode()


def sgm(role, language, *segments):
    """Returns a test set in the mark-up of NIST and WMT."""
    inner = [f'<seg id="{n}">{line}</seg>' for n, line in enumerate(segments, 1)]
    head = f'<{role}set setid="newstest2014" srclang="any" trglang="{language}">'
    doc = '<doc sysid="ref" docid="abc.1" genre="news" origlang="en">'
    return text(head, doc, "<p>", *inner, "</p>", "</doc>", f"</{role}set>")


def talks(language, *segments):
    """Returns a test set in the mark-up of IWSLT."""
    inner = [f'<seg id="{n}"> {line} </seg>' for n, line in enumerate(segments, 1)]
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    about = ["<mteval>", f'<refset setid="x" trglang="{language}">', '<doc docid="1">']
    about += ["<url>http://ted.com</url>", "<title>Not a sentence</title>"]
    return text(head, *about, *inner, "</doc>", "</refset>", "</mteval>")


def listing(books, page_size=1):
    """Returns a function that lists the files of a bucket, page by page."""

    def answer(query):
        prefix = query["prefix"][0]
        names = sorted(name for name in books if name.startswith(prefix))
        start = int(query.get("pageToken", ["0"])[0])
        page = {"items": [{"name": name} for name in names[start:][:page_size]]}
        if start + page_size < len(names):
            page["nextPageToken"] = str(start + page_size)
        return json.dumps(page).encode()

    return answer


def gz(content):
    return gzip.compress(content)
