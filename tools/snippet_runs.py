"""Runs the commands and Python of README and docs as a reader would, from built wheels.

Every package is built and installed into an empty environment, without the workspace. Each page
gets a folder of its own with the files it speaks of; its commands run there from top to bottom,
shortened to a few steps, then its Python. What nobody could run here is passed over and named:
files of the reader's own that the page does not make, a scheduler, a network.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import snippets

ROOT = Path(__file__).resolve().parents[1]
STEPS, BATCH, COUNT, PATIENCE = 4, 16, 120, 900
# A network of so many nodes has some left for each part of a public split.
COUNTS = {"ssl-graph": 480}
EXTRAS = {"ssl_core": "[onnx,figures,table]", "ssl_vision": "[onnx,transformers]"}
COPIES = ("labelled", "spring", "summer", "scans", "videos", "sounds", "documents", "graphs")
# Questions about the nodes of one network, which a run on many graphs cannot answer.
NODES = {"nodes", "clusters", "links"}
# Names that a snippet takes from its reader, as README's loss does.
PRELUDE = "import torch\nz0, z1 = torch.randn(2, 64, 32)\n"


@dataclass
class Outcome:
    """What became of one page."""

    page: str
    ran: int = 0
    seconds: float = 0.0
    passed_over: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_pages(pages: Sequence[Path], folder: Path) -> list[Outcome]:
    """Builds, installs, prepares files, and runs every page; prints a line for each."""
    # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bench = Bench(folder, environment(folder))
    outcomes = []
    print("| page | run | passed over | failed | seconds |\n|---|---|---|---|---|", flush=True)
    for page in pages:
        found = bench.page(page)
        if found.ran or found.failed or found.passed_over:
            outcomes.append(found)
            print(
                f"| {found.page} | {found.ran} | {len(found.passed_over)} "
                f"| {len(found.failed)} | {found.seconds:.0f} |",
                flush=True,
            )
    for title in ("passed_over", "failed"):
        for found in outcomes:
            for line in getattr(found, title):
                print(f"{title.replace('_', ' ')}: {found.page}: {line}")
    return outcomes


def environment(folder: Path) -> Path:
    """An empty environment with every package from its wheel; returns its programs' folder."""
    wheels = folder / "dist"
    if not wheels.is_dir():
        build = ["uv", "build", "--all-packages", "--wheel", "--out-dir", str(wheels)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["uv", "venv", "--quiet", str(folder / "env")], check=True)
        pins = re.findall(r'^    "([^"]+==[^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
        (folder / "constraints.txt").write_text("\n".join(pins) + "\n")
        found = [
            f"{wheel}{EXTRAS.get(wheel.name.partition('-')[0], '')}"
            for wheel in sorted(wheels.glob("*.whl"))
        ]
        python = folder / "env" / "bin" / "python"
        install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        install += ["-c", str(folder / "constraints.txt"), *found]
        subprocess.run(install, cwd=folder, check=True)
    return folder / "env" / "bin"


class Bench:
    """The environment, the files that pages speak of, and how a command is shortened."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "SSL_CACHE": str(folder / "cache")}
        self.env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            self.env.pop(name, None)

    def page(self, page: Path) -> Outcome:
        """Runs one page in a folder of its own."""
        found = Outcome(str(page.relative_to(ROOT)))
        home = self.folder / "pages" / found.page.replace("/", "-").removesuffix(".md")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        blocks = snippets.snippets(page)
        lines = [line for block in blocks if is_shell(block) for line in commands(block.code)]
        began = time.perf_counter()
        self.prepare(home, lines, page.read_text(encoding="utf-8"))
        for program, arguments, launcher in lines:
            line = f"{program} {shlex.join(arguments)}"
            reason = self.passed_over(home, program, arguments, launcher)
            if reason:
                found.passed_over.append(f"{line} ({reason})")
                continue
            found.ran += 1
            words = self.shortened(home, program, arguments)
            note(found, line, began, self.run(home, program, words, launcher))
        python = [block.code for block in blocks if block.language == "python"]
        if python and (missing := absent(home, "\n".join(python))):
            found.passed_over.append(f"its Python (no {missing} here)")
        elif python:
            found.ran += len(python)
            note(found, "its Python", began, self.python(home, python))
        found.seconds = time.perf_counter() - began
        return found

    def prepare(self, home: Path, lines: Sequence[Command], text: str) -> None:
        """The files a page speaks of and does not write itself."""
        written = {
            Path(arguments[1]).name
            for _, arguments, _ in lines
            if arguments[:1] == ["samples"] and len(arguments) > 1
        }
        if any(program == "ssl-vision" for program, *_ in lines) or "ssl_vision" in text:
            photos = self.samples("vision")
            if "photos" not in written:
                shutil.copytree(photos, home / "photos")
                write_tables(home / "photos", home)
            made = any(
                pair == ("--out", "runs/photos")
                for _, words, _ in lines
                for pair in itertools.pairwise(words)
            )
            if not made and re.search(r'(?<!--out )(?<!out=")\bruns/photos\b', text):
                shutil.copytree(self.base("ssl-vision"), home / "runs" / "photos")
            for name in COPIES:
                if name not in written and re.search(rf"\b{name}/", text):
                    shutil.copytree(photos, home / name)

    def samples(self, domain: str) -> Path:
        """Sample files of a domain, written once."""
        target = self.folder / "samples" / domain
        if not target.is_dir():
            program = f"ssl-{domain}"
            words = [program, "samples", str(target), "--count", str(COUNTS.get(program, COUNT))]
            subprocess.run(words, env=self.env, check=True, capture_output=True)
        return target

    def passed_over(
        self, home: Path, program: str, arguments: Sequence[str], launcher: str
    ) -> str | None:
        """Why a command is not run, or None."""
        if launcher == "srun":
            return "needs a scheduler"
        if any(re.match(r"my\w*[.:/]|my_\w+|hf:|https://host/", word) for word in arguments):
            return "names what is the reader's own"
        if "RECIPE" in arguments:
            return "stands for any recipe"
        for flag, value in itertools.pairwise(arguments):
            if flag == "--data" and not known(home, value):
                return f"no {value} here"
        if arguments[:1] in (["inspect"], ["pack"]) and not known(home, arguments[1]):
            return f"no {arguments[1]} here"
        if program == "ssl-lab" and arguments[:1] != ["list"]:
            return "an experiment takes longer"
        return None

    def shortened(self, home: Path, program: str, arguments: Sequence[str]) -> list[str]:
        """The same command with few steps, few samples, and runs in the place of RUN."""
        kind = "nodes" if NODES & set(arguments) else ""
        words = [self.own(home, program, word, kind) for word in arguments]
        name = words[0] if words else ""
        if "--help" in words:
            return words
        count = COUNTS.get(program, COUNT)
        trains = name in ("pretrain", "adapt", "finetune") and "--dry-run" not in words
        for option, value in (("--count", count), ("--steps", STEPS), ("--batch-size", BATCH)):
            if option in words and name != "plan":
                words[words.index(option) + 1] = str(value)
            elif trains and option != "--count":
                words += [option, str(value)]
        if "--more" in words and "finetune" in words:
            words += ["--set", f"finetune.steps={STEPS}"]
        words = [re.sub(r"^(train\.accumulate)=.*", r"\1=2", word) for word in words]
        return [re.sub(r"^(train\.steps)=.*", rf"\1={STEPS}", word) for word in words]

    def own(self, home: Path, program: str, word: str, kind: str = "") -> str:
        """What a word in capitals stands for: a run of this domain, or a new folder."""
        if re.fullmatch(r"RUN(_OR_FILE)?\d?", word):
            number = word[-1] if word[-1].isdigit() else ""
            run = home / "runs" / f"own-{program[4:]}{kind}{number}"
            if not run.exists():
                shutil.copytree(self.base(program, kind), run)
            return str(run)
        return "new" if word in ("DIR", "FOLDER", "OUT") else word.replace("DIR/", "new/")

    def base(self, program: str, kind: str = "") -> Path:
        """A short run of a program, trained once: on its samples, or on the nodes of a network."""
        target = self.folder / "base" / f"{program}{kind}"
        if not (target / "summary.json").is_file():
            data = ["--recipe", "grace"] if kind else ["--data", str(self.samples(program[4:]))]
            words = ["pretrain", *data, "--steps", str(STEPS), "--out", str(target)]
            problem = self.run(self.folder, program, words, "")
            if problem:
                sys.exit(f"{program} {shlex.join(words)}\n{problem}")
        return target

    def run(self, home: Path, program: str, words: Sequence[str], launcher: str) -> str | None:
        """Runs one command; returns the end of what it said where it fails."""
        command = [program, *words]
        if launcher == "torchrun":
            module = program.replace("-", "_")
            command = ["torchrun", "--nproc-per-node", "2", "-m", module, *words]
        if words[:1] == ["watch"]:
            return self.watched(home, command)
        return self.finished(home, command)

    def finished(self, home: Path, command: Sequence[str]) -> str | None:
        try:
            done = subprocess.run(
                command, cwd=home, env=self.env, capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return f"not done after {PATIENCE} s"
        return (done.stdout + done.stderr)[-1500:] if done.returncode else None

    def watched(self, home: Path, command: Sequence[str]) -> str | None:
        """A server: it must say its address, and end cleanly on Ctrl-C."""
        with subprocess.Popen(
            command, cwd=home, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline().decode()
            process.send_signal(signal.SIGINT)
            try:
                rest, _ = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                return "did not end on Ctrl-C"
        return None if "127.0.0.1" in said else said + rest.decode()[-1500:]

    def python(self, home: Path, blocks: Sequence[str]) -> str | None:
        """A page's Python as one program, from top to bottom."""
        text = re.sub(r"\bsteps=\d+", f"steps={STEPS}", PRELUDE + "\n\n".join(blocks))
        unsaid = r'\.pretrain\((?![^)]*\bsteps=)(?!.*\bsteps=)("\w+"(?:, )?)?'
        text = re.sub(unsaid, rf".pretrain(\1steps={STEPS}, ", text)
        (home / "page.py").write_text(text)
        return self.finished(home, [str(self.programs / "python"), "page.py"])


Command = tuple[str, list[str], str]


def note(found: Outcome, line: str, began: float, problem: str | None) -> None:
    """Keeps a failure, and says on stderr how far the page is."""
    if problem:
        found.failed.append(f"{line}\n{problem}")
    seconds = time.perf_counter() - began
    print(f"{seconds:5.0f} s {'FAILED' if problem else 'ok'} {line}", file=sys.stderr, flush=True)
    if problem:
        print(problem, file=sys.stderr, flush=True)


def is_shell(block: snippets.Snippet) -> bool:
    return block.language in ("", "bash", "sh", "console")


def commands(code: str) -> Iterator[Command]:
    """(program, arguments, launcher) of every command of ours, in order."""
    for line in code.replace("\\\n", " ").splitlines():
        for program, arguments in snippets.commands(line):
            launchers = [name for name in ("srun", "torchrun") if re.search(rf"\b{name}\b", line)]
            yield program, arguments, launchers[0] if launchers else ""


def known(home: Path, value: str) -> bool:
    """Whether data of that name is there, or will be: a word in capitals, a made-up network."""
    return "*" in value or ":" in value or (home / value).exists() or value.startswith("DIR")


def absent(home: Path, code: str) -> str | None:
    """The first folder or run that Python reads, and neither it nor the page has made."""
    made = set(re.findall(r'out="([^"]+)"', code))
    read = re.findall(r'(?:\bdata=|load\()"([^"]+[/\w])"', code)
    return next((name for name in read if name not in made and not known(home, name)), None)


def write_tables(photos: Path, home: Path) -> None:
    """The tables, captions and shards that pages speak of, made of the sample images."""
    files = sorted(path for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))
    with open(home / "photos.csv", "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["path", "label", "tags", "age"])
        for number, path in enumerate(files):
            tags = "round;dark" if number % 2 else "long"
            table.writerow([path.relative_to(home), path.parent.name, tags, number % 90])
    with open(home / "pairs.csv", "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["path", "caption"])
        for path in files:
            table.writerow([path.relative_to(home), f"the digit {path.parent.name}"])
    (home / "shards").mkdir()
    with tarfile.open(home / "shards" / "train-0000.tar", "w") as tar:
        for number, path in enumerate(files):
            tar.add(path, f"{number:06d}{path.suffix}")
