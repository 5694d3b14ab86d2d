"""A Hub on this machine, in memory: as much of the real one as the libraries ask for to push and to load.

It has models and datasets of one user and one organisation, on one branch, with git LFS for what isn't text.
"""

import base64
import hashlib
import json
import re
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


USER, ORGANISATION = "user", "lab"
TOKEN, READ_TOKEN = "hf_write", "hf_read"
DATE = "2024-01-01T00:00:00.000Z"
REPOSITORY = r"(?P<repo>(?:models/|datasets/)?[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[\w.-]+)"


class Refused(Exception):
    """What the Hub answers instead: a status, a message and, for the libraries, a code and more fields."""

    def __init__(self, status, message, code=None, **fields):
        self.status, self.message, self.code, self.fields = status, message, code, fields


class Server(ThreadingHTTPServer):
    """
    Attributes:
        repositories (`dict`): By kind and name, such as models/user/speech: whether it is private, and its commits from
            the first to the last, each with a title and its files.
        objects (`dict`): The content of the files in LFS, by SHA-256.
        requests (`list[str]`): Method and path of all that were made.
        breaks_at (`str`, *optional*): The first request that starts like this is not answered.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.objects, self.requests, self.breaks_at = {}, {}, [], None
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """Clients come and go."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        """What is asked stands in `requests`."""

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {self.path}"
        self.server.requests.append(request)
        if self.server.breaks_at is not None and request.startswith(self.server.breaks_at):
            self.server.breaks_at = None
            self.close_connection = True
            return
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            with self.server.lock:
                self.check_token()
                for methods, pattern, answer in ROUTES:
                    match = re.fullmatch(pattern, url.path)
                    if match and self.command in methods:
                        self.answer(200, *answer(self, body, **match.groupdict()))
                        return
                raise Refused(404, "Nothing is there", "EntryNotFound")
        except Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self.answer(refused.status, {"error": refused.message} | refused.fields, headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer(self, status, content=b"", headers=()):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def check_token(self):
        if self.token not in ("", TOKEN, READ_TOKEN):
            raise Refused(401, "Invalid credentials in Authorization header")

    def check_may_write(self, repo):
        if self.token != TOKEN:
            raise Refused(403 if self.token else 401, "This token may not write")
        if repo.split("/")[-2] not in (USER, ORGANISATION):
            raise Refused(403, "This token may not write under that name")

    def find(self, repo):
        """The name with its kind, and the repository, which those without a token can't tell from a missing one."""
        repo = repo if repo.count("/") == 2 else f"models/{repo}"
        found = self.server.repositories.get(repo)
        if not self.token and (found is None or found["private"]):
            raise Refused(401, "Invalid username or password.", "RepoNotFound")
        if found is None:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo, found

    def find_commit(self, repo, revision):
        _, found = self.find(repo)
        for commit in reversed(found["commits"]):
            if revision in ("main", commit["id"]):
                return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def make_commit(title, files):
    return {"id": secrets.token_hex(20), "title": title, "files": files}


def front_matter(text):
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return yaml.safe_load(block[1]) if block else None


def is_text(path, sample):
    return b"\0" not in sample and not path.endswith((".safetensors", ".parquet", ".png", ".bin"))


def describe(path, content):
    digest = {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    return {"type": "file", "path": path, "size": len(content), **digest}


def whoami(handler, body):
    if not handler.token:
        raise Refused(401, "Invalid username or password.")
    role = "write" if handler.token == TOKEN else "read"
    user = {"type": "user", "name": USER, "fullname": USER, "orgs": [{"type": "org", "name": ORGANISATION}]}
    return [user | {"auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}}]


def validate_card(handler, body):
    try:
        front_matter(json.loads(body)["content"])
    except yaml.YAMLError as error:
        raise Refused(400, "Invalid YAML metadata") from error
    return [{"errors": [], "warnings": []}]


def create(handler, body):
    asked = json.loads(body)
    name = f"{asked.get('organization') or USER}/{asked['name']}"
    repo = f"{asked.get('type') or 'model'}s/{name}"
    handler.check_may_write(repo)
    url = f"{handler.server.address}/{repo.removeprefix('models/')}"
    if repo in handler.server.repositories:
        raise Refused(409, f"You already created this repo: {name}", url=url)
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    commits = [make_commit("initial commit", {".gitattributes": b""})]
    handler.server.repositories[repo] = {"private": private, "commits": commits}
    return [{"url": url, "name": name}]


def describe_repository(handler, body, repo, revision=None):
    repo, found = handler.find(repo)
    commit = handler.find_commit(repo, revision or "main")
    card = front_matter(commit["files"].get("README.md", b"").decode())
    name = repo.split("/", 1)[1]
    about = {"id": name, "modelId": name, "author": name.split("/")[0], "sha": commit["id"], "cardData": card}
    about |= {"private": found["private"], "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
    about |= {"lastModified": DATE, "createdAt": DATE}
    return [about | {"siblings": [{"rfilename": path} for path in sorted(commit["files"])]}]


def list_commits(handler, body, repo, revision):
    _, found = handler.find(repo)
    shown = {"message": "", "date": DATE, "authors": [{"user": USER}]}
    return [[{"id": commit["id"], "title": commit["title"], **shown} for commit in reversed(found["commits"])]]


def list_tree(handler, body, repo, revision, folder=""):
    files = handler.find_commit(repo, revision)["files"]
    folder = unquote(folder or "")
    inside = {path: content for path, content in sorted(files.items()) if path.startswith(folder)}
    if folder and not inside:
        raise Refused(404, f"{folder.strip('/')} does not exist", "EntryNotFound")
    entries, start = {}, len(folder.strip("/")) + bool(folder)
    for path, content in inside.items():
        below, *deeper = path[start:].split("/")
        if deeper and handler.query.get("recursive") != "true":
            path = path[:start] + below
            entries[path] = {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
        else:
            entries[path] = describe(path, content)
    return [list(entries.values())]


def read_file(handler, body, repo, revision, path):
    commit = handler.find_commit(repo, revision)
    content = commit["files"].get(unquote(path))
    if content is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    digest = describe(path, content)["oid"]
    return content, {"X-Repo-Commit": commit["id"], "ETag": f'"{digest}"', "Content-Type": "text/plain"}


def tell_how_to_upload(handler, body, repo, revision):
    handler.find(repo)
    files = [(file["path"], base64.b64decode(file.get("sample") or "")) for file in json.loads(body)["files"]]
    modes = [(path, "regular" if is_text(path, sample) else "lfs") for path, sample in files]
    return [{"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}]


def tell_where_to_upload(handler, body, repo):
    handler.check_may_write(repo)
    objects = []
    for file in json.loads(body)["objects"]:
        href = f"{handler.server.address}/lfs/{file['oid']}"
        is_here = file["oid"] in handler.server.objects
        objects.append(file | ({} if is_here else {"actions": {"upload": {"href": href}}}))
    return [{"transfer": "basic", "objects": objects}]


def receive(handler, body, digest):
    if hashlib.sha256(body).hexdigest() != digest:
        raise Refused(400, "Something else was promised")
    handler.server.objects[digest] = body
    return []


def commit(handler, body, repo, revision):
    repo, found = handler.find(repo)
    handler.check_may_write(repo)
    files, title = dict(found["commits"][-1]["files"]), ""
    for line in body.splitlines():
        key, value = (json.loads(line)[name] for name in ("key", "value"))
        if key == "header":
            title = value["summary"]
        elif key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = handler.server.objects[value["oid"]]
        else:
            raise Refused(400, f"{key} is more than the tests need")
    made = make_commit(title, files)
    found["commits"].append(made)
    url = f"{handler.server.address}/{repo.removeprefix('models/')}/commit/{made['id']}"
    return [{"success": True, "commitOid": made["id"], "commitUrl": url}]


API = rf"/api/{REPOSITORY}"
ROUTES = [
    (["GET"], "/api/whoami-v2", whoami),
    (["POST"], "/api/validate-yaml", validate_card),
    (["POST"], "/api/repos/create", create),
    (["GET"], rf"{API}(?:/revision/{REVISION})?", describe_repository),
    (["GET"], rf"{API}/commits/{REVISION}", list_commits),
    (["GET"], rf"{API}/tree/{REVISION}(?:/(?P<folder>.*))?", list_tree),
    (["POST"], rf"{API}/preupload/{REVISION}", tell_how_to_upload),
    (["POST"], rf"{API}/commit/{REVISION}", commit),
    (["POST"], rf"/{REPOSITORY}\.git/info/lfs/objects/batch", tell_where_to_upload),
    (["PUT"], r"/lfs/(?P<digest>[0-9a-f]{64})", receive),
    (["GET", "HEAD"], rf"/{REPOSITORY}/resolve/{REVISION}/(?P<path>.*)", read_file),
]


@contextmanager
def serve():
    """A new [`Server`], in a thread of this process."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()
