"""Nothing is fetched or reported anywhere: importing and a tiny job with every socket blocked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# An audit hook sees connections of every library, also those made through C's socket module.
BLOCKED = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError(f"{event}: {arguments[1:]}")
sys.addaudithook(refuse)
"""
JOB = """
from pathlib import Path
import ssl_{domain} as package
out = Path(sys.argv[1])
package.write_samples(out / "data", count=48)
if "{domain}" == "medical":
    settings = {{"evaluation.more.few_label_dice.steps": 1}}
    data = out / "data" / "volumes.csv"
else:
    settings, data = {{}}, out / "data"
run = package.pretrain(
    data=data, steps=1, batch_size=16, settings=settings, out=out / "run", progress=False
)
assert package.load(run).embed(data).shape[0] > 0
"""
LONGER = ("audio", "medical", "video", "vision")


@pytest.mark.parametrize(
    "domain",
    ["graph", "text", *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)],
)
def test_a_job_needs_no_network(domain, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + JOB.format(domain=domain), str(tmp_path)],
        # Libraries must stay at home without being told to.
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_block_blocks():
    code = BLOCKED + "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RuntimeError: socket." in done.stderr


def test_every_package_carries_the_licence():
    for project in [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "apps/lab/pyproject.toml"]:
        text = project.read_text()
        assert (project.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes(), project
        assert 'license-files = ["LICENSE"]' in text, project
        assert "Typing :: Typed" in text, project
