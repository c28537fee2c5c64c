"""The watching server: live pages, for this machine only, of found runs only."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_core.errors import UserError
from ssl_core.report.watch import find_runs, server, version_of
from ssl_core.runs.config import build, save_recipe
from ssl_core.runs.folder import Run
from ssl_core.testing.vectors import VECTORS

RECORD = (
    '{{"step":{0},"steps":40,"loss":1.5,"grad_norm":1.0,"samples_per_second":9.0,"step_ms":3.0,'
    '"data_wait":0.1,"lr":0.1,"skipped":0,"verdict":"healthy"}}\n'
)


def start(folder: Path, steps: int = 0) -> Run:
    """A run that has logged so many steps."""
    run = Run(folder)
    folder.mkdir(parents=True)
    save_recipe(build(VECTORS, flags={"train": {"steps": 40}}), run.recipe_file)
    run.metrics_file.write_text("".join(RECORD.format(step) for step in range(1, steps + 1)))
    return run


class Client:
    """Requests to one server, over real sockets."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(
        self, path: str, *, host: str | None = None, method: str = "GET"
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    start(folder / "first", steps=3)
    start(folder / "deep" / "<b> & second")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "first" / "notes.txt").write_text("secret")
    return folder


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with server(root, port=0) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(serving.server_port)
        serving.shutdown()
        thread.join()


def test_the_index_lists_every_run_with_its_state(client: Client) -> None:
    status, page, headers = client.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert 'href="/run/first/"' in page
    assert "3 of 40" in page
    assert "deep/&lt;b&gt; &amp; second" in page
    assert 'href="/run/deep%2F%3Cb%3E%20%26%20second/"' in page
    assert client.get("/run/deep%2F%3Cb%3E%20%26%20second/")[0] == 200


def test_a_page_follows_its_run(client: Client, root: Path) -> None:
    _, page, _ = client.get("/run/first/")
    assert "Step 3 of 40, healthy" in page
    assert "connect-src 'self'" in page
    before = client.get("/run/first/version")[1], client.get("/version")[1]
    assert before[0] in page
    assert client.get("/run/first/version")[1] == before[0]
    with (root / "first" / "metrics.jsonl").open("a") as file:
        file.write(RECORD.format(4))
    after = client.get("/run/first/version")[1], client.get("/version")[1]
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert "Step 4 of 40" in client.get("/run/first/")[1]
    start(root / "third")
    assert 'href="/run/third/"' in client.get("/")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/run/../../secret.txt",
        "/run/..%2f..%2fsecret.txt/",
        "/run/%2e%2e/",
        "/run/first/notes.txt",
        "/run/first/../first/",
        "/run/first%00/",
        "//first/",
        "/run//etc/passwd",
        "/recipe.yaml",
    ],
)
def test_nothing_but_found_runs_is_served(client: Client, path: str) -> None:
    status, text, _ = client.get(path)
    assert status == 404
    assert "secret" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "[::1]", ""])
def test_only_its_own_name_is_answered(client: Client, host: str) -> None:
    """A page of another site that resolves its name to this machine sends its own name."""
    assert client.get("/", host=host)[0] == 421
    assert client.get("/", host=f"localhost:{client.port}")[0] == 200


def test_it_listens_on_the_loopback_only_and_reads_only(client: Client, root: Path) -> None:
    with server(root, port=0) as other:
        assert other.server_address[0] == "127.0.0.1"
    for method in ("POST", "PUT", "DELETE"):
        assert client.get("/", method=method)[0] == 501
    status, text, headers = client.get("/", method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 0
    status, _, headers = client.get("/run/first")
    assert (status, headers["Location"]) == (301, "/run/first/")


def test_a_damaged_run_is_told_and_the_others_shown(client: Client, root: Path) -> None:
    (root / "first" / "recipe.yaml").write_text("domain: [")
    status, text, _ = client.get("/run/first/")
    assert status == 503
    assert "cannot be read" in text
    index = client.get("/")[1]
    assert "cannot be read" in index
    assert "second" in index


def test_a_taken_port_and_a_missing_folder_are_user_errors(root: Path) -> None:
    with (
        server(root, port=0) as serving,
        pytest.raises(UserError, match=f"port: {serving.server_port} .*--port 0"),
    ):
        server(root, port=serving.server_port)
    with pytest.raises(UserError, match="not a folder"):
        server(root / "none", port=0)


def test_runs_are_found_to_a_depth_and_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    start(root / "a" / "b" / "c")
    start(root / "a" / "b" / "d" / "too deep")
    outside = tmp_path / "outside"
    start(outside / "other")
    os.symlink(outside, root / "link")
    assert sorted(find_runs(root)) == ["a/b/c", "deep/<b> & second", "first"]
    assert list(find_runs(root / "first")) == ["first"]
    assert version_of(Run(root / "nowhere")) == version_of(Run(root / "neither"))
