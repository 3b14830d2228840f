"""Tests `make dist` with programs in place of cargo that build nothing; `make test-dist` runs it."""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
NAME = f"loyalty-codes-{VERSION}"

# Writes what the real programs would write, as far as the archive needs it.
CARGO = f"""#!{sys.executable}
import pathlib, sys
arguments = sys.argv[1:]
def write(path, text):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
if arguments[:2] == ["lambda", "build"]:
    function = arguments[arguments.index("--bin") + 1]
    write(f"target/lambda/{{function}}/bootstrap", f"{{function}} for {{arguments[-1]}}")
elif arguments[0] == "cyclonedx":
    for function in ("loyalty-codes", "deliver", "loyaltyctl"):
        write(f"{{function}}_bin.cdx.json", f"{{function}} for {{arguments[-1]}}")
elif arguments[0] == "build":
    write("target/release/loyaltyctl", '''#!/bin/sh
case $1 in
completions) echo "completions for $2" ;;
man) echo page > "$2/loyaltyctl.1" ;;
esac
''')
else:
    sys.exit(f"cargo {{arguments}}")
"""


def copy_of_the_project(folder):
    """Returns a folder with the files that `make dist` reads, and tools that build nothing."""
    project = folder / "project"
    (project / "src/bin/loyaltyctl").mkdir(parents=True)
    shutil.copytree(ROOT / "docs", project / "docs")
    for path in ("Cargo.toml", "Makefile", "dist.py", "template.yaml", "requirements.txt", "README.md", "CHANGELOG.md",
                 "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT", "openapi.json", "src/bin/loyaltyctl/demo.toml"):
        shutil.copy(ROOT / path, project / path)
    for tool in (".venv/bin/cargo", ".tools/bin/cargo-cyclonedx", "path/cargo"):
        tool = project / tool
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(CARGO)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    # Newer than requirements.txt, so that make does not install anything.
    os.utime(project / ".venv")
    return project


def make_dist(project):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CARGO"))}
    environment |= {"PATH": f"{project / 'path'}:{environment['PATH']}", "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(["make", "--no-print-directory", "dist"], cwd=project, env=environment, check=True)
    return (project / f"dist/{NAME}.tar.gz").read_bytes()


def read(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        modes = {member.name.removeprefix(f"{NAME}/"): member.mode for member in members}
        return {name: tar.extractfile(f"{NAME}/{name}").read() for name in modes}, modes


def main():
    with tempfile.TemporaryDirectory() as folder:
        project = copy_of_the_project(Path(folder))
        archive = make_dist(project)
        files, modes = read(archive)
        outside = (project / "dist/SHA256SUMS").read_text()
        again = make_dist(project)
    assert archive == again, "the archive differs from one time to the next"
    assert outside == f"{hashlib.sha256(archive).hexdigest()}  {NAME}.tar.gz\n", outside

    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    actual = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "SHA256SUMS"}
    assert sums == actual, "SHA256SUMS"

    for architecture, option, target in (
        ("x86_64", "--x86-64", "x86_64-unknown-linux-gnu"),
        ("arm64", "--arm64", "aarch64-unknown-linux-gnu"),
    ):
        template = files[f"template-{architecture}.yaml"].decode()
        assert f"AllowedValues: [{architecture}]" in template
        assert "BuildMethod" not in template and "CodeUri: .\n" not in template
        for function in ("loyalty-codes", "deliver"):
            name = f"{function}-{VERSION}-{architecture}"
            assert f"      CodeUri: {name}.zip\n" in template, name
            with zipfile.ZipFile(io.BytesIO(files[f"{name}.zip"])) as package:
                assert package.namelist() == ["bootstrap"]
                assert package.read("bootstrap").decode() == f"{function} for {option}", name
                assert package.getinfo("bootstrap").external_attr >> 16 == 0o100755
            assert files[f"{name}.cdx.json"].decode() == f"{function} for {target}", name
    assert files[f"loyaltyctl-{VERSION}.cdx.json"].decode() == "loyaltyctl for x86_64-unknown-linux-gnu"
    assert modes["bin/loyaltyctl"] == 0o755 and modes["README.md"] == 0o644
    assert files["man/man1/loyaltyctl.1"] == b"page\n"
    for shell, name in (("bash", "loyaltyctl.bash"), ("zsh", "_loyaltyctl"), ("fish", "loyaltyctl.fish")):
        assert files[f"completions/{name}"].decode() == f"completions for {shell}\n"
    for document in ("CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "SECURITY.md", "docs/api.md", "docs/clients/loyalty.py", "org.toml"):
        assert files[document], document
    print(f"test dist: {len(files)} files, ok")


main()
