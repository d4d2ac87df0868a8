"""A server in this process that answers as the Hugging Face Hub does to an upload."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".wav")


class StandIn(BaseHTTPRequestHandler):
    """As much of the hub's API as an upload takes: repository, card, upload modes, large files, one commit."""

    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub = self.server
        hub.asked.append((self.path, self.headers.get("Authorization", "")))
        if hub.refuses:
            self._answer({"error": "You don't have the rights"}, 403)
        elif self.path == "/api/repos/create":
            hub.repository = json.loads(data)
            hub.repositories.append(hub.repository)
            name = f"{hub.repository['organization']}/{hub.repository['name']}"
            self._answer({"url": f"{hub.address}/{name}", "id": "1", "name": name})
        elif self.path == "/api/validate-yaml":
            hub.card = json.loads(data)["content"]
            self._answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(data)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in names}
            self._answer(
                {"files": [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]}
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{hub.address}/large/{item['oid']}"}}}
                for item in json.loads(data)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")
        elif self.path.endswith("/commit/main"):
            hub.commit = [json.loads(line) for line in data.decode().splitlines()]
            hub.commits[self.path.removeprefix("/api/").removesuffix("/commit/main")] = hub.commit
            self._answer(
                {"commitUrl": f"{hub.address}/ada/tune/commit/abc", "commitOid": "abc", "success": True}
            )
        else:
            self._answer({"error": f"unexpected {self.path}"}, 404)

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _answer(self, document: object, status: int = 200, kind: str = "application/json") -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class FakeHub(ThreadingHTTPServer):
    """Remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StandIn)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.refuses = False
        self.asked: list[tuple[str, str]] = []
        self.repository: dict[str, object] = {}
        self.card = ""
        self.large: dict[str, bytes] = {}
        self.commit: list[dict[str, dict[str, str]]] = []
        self.repositories: list[dict[str, object]] = []
        self.commits: dict[str, list[dict[str, dict[str, str]]]] = {}

    def files(self, repository: str | None = None) -> dict[str, bytes]:
        """Files of a commit by name: the last one, or that of a repository such as `datasets/ada/clips`."""
        found: dict[str, bytes] = {}
        for line in self.commit if repository is None else self.commits[repository]:
            value = line["value"]
            if line["key"] == "file":
                found[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found[value["path"]] = self.large[value["oid"]]
        return found


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Run a hub while the block runs."""
    server = FakeHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
