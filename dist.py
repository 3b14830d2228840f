"""Makes the release archive `dist/loyalty-codes-VERSION.tar.gz`; `make dist` runs it.

It has both functions for the architectures in `ARCHS`, each as a zip with a template that deploys it,
`loyaltyctl` for x86-64 Linux with its completions and man pages, bills of materials, the documents,
and the checksums of all that. `make` and `cargo` build what goes into it.
"""

import gzip
import hashlib
import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
ARCHITECTURES = os.environ["ARCHS"].split()
FUNCTIONS = ("loyalty-codes", "deliver")
DOCUMENTS = (
    "README.md",
    *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").rglob("*")) if file.is_file()),
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "openapi.json",
)
COMPLETIONS = {"bash": "loyaltyctl.bash", "zsh": "_loyaltyctl", "fish": "loyaltyctl.fish"}
# The earliest time that a zip can hold.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def run(*command):
    """Runs a command in the project's folder, and returns what it prints."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def zipped(program):
    """Returns the zip of a function's program, which is the same for the same program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        entry = zipfile.ZipInfo("bootstrap", ZIP_TIME)
        entry.create_system = 3  # Unix, so that the mode counts
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, program, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def template(architecture, version):
    """Returns the template for the zips of an architecture instead of the sources."""
    text = (ROOT / "template.yaml").read_text()
    built = re.compile(
        r"    Metadata:\n(?:      .*\n)*?        Binary: (\S+)\n    Properties:\n((?:      .*\n)*?)      CodeUri: \.\n"
    )
    text, count = built.subn(rf"    Properties:\n\2      CodeUri: \1-{version}-{architecture}.zip\n", text)
    if count != len(FUNCTIONS):
        sys.exit(f"template.yaml: {count} functions are built, not {len(FUNCTIONS)}")
    chosen = "    Default: arm64\n    AllowedValues: [arm64, x86_64]\n"
    if text.count(chosen) != 1:
        sys.exit("template.yaml: the parameter Architecture is not found")
    only = f"    Default: {architecture}\n    AllowedValues: [{architecture}]\n"
    return text.replace(chosen, only).encode()


def bills(architecture, *programs):
    """Writes the bills of materials of programs for an architecture."""
    run("make", "--no-print-directory", "sbom-files", f"ARCH={architecture}", f"BINS={' '.join(programs)}")


def functions(version):
    """Builds the functions and their bills of materials."""
    files = {}
    for architecture in ARCHITECTURES:
        run("make", "--no-print-directory", "build", f"ARCH={architecture}")
        bills(architecture, *FUNCTIONS)
        for function in FUNCTIONS:
            name = f"{function}-{version}-{architecture}"
            files[f"{name}.zip"] = zipped((TARGET / f"lambda/{function}/bootstrap").read_bytes())
            files[f"{name}.cdx.json"] = (ROOT / f"target/{function}.cdx.json").read_bytes()
        files[f"template-{architecture}.yaml"] = template(architecture, version)
    return files


def tool(version):
    """Builds `loyaltyctl` and its bill of materials, and has it write its completions and man pages."""
    run("cargo", "build", "--locked", "--release", "--features", "cli", "--bin", "loyaltyctl")
    program = TARGET / "release/loyaltyctl"
    bills("x86_64", "loyaltyctl")
    files = {
        "bin/loyaltyctl": program.read_bytes(),
        f"loyaltyctl-{version}.cdx.json": (ROOT / "target/loyaltyctl.cdx.json").read_bytes(),
    }
    for shell, name in COMPLETIONS.items():
        files[f"completions/{name}"] = run(program, "completions", shell)
    with tempfile.TemporaryDirectory() as folder:
        run(program, "man", folder)
        for page in sorted(Path(folder).iterdir()):
            files[f"man/man1/{page.name}"] = page.read_bytes()
    return files


def archive(name, files, time):
    """Returns a compressed tar of the files, which is the same for the same files."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=time, filename="") as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, content in sorted(files.items()):
                entry = tarfile.TarInfo(f"{name}/{path}")
                entry.size, entry.mtime = len(content), time
                entry.mode = 0o755 if path.startswith("bin/") else 0o644
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def checksums(files):
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))


def main():
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("loyaltyctl is released for x86-64 Linux: run this there")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    time = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))
    files = {**functions(version), **tool(version)}
    for document in DOCUMENTS:
        files[document] = (ROOT / document).read_bytes()
    files["org.toml"] = (ROOT / "src/bin/loyaltyctl/demo.toml").read_bytes()
    files["SHA256SUMS"] = checksums(files).encode()
    name = f"loyalty-codes-{version}"
    released = {f"{name}.tar.gz": archive(name, files, time)}
    folder = ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for path, content in {**released, "SHA256SUMS": checksums(released).encode()}.items():
        (folder / path).write_bytes(content)
    print(f"dist/{name}.tar.gz: {len(files)} files, {len(released[f'{name}.tar.gz']) / 2**20:.1f} MiB")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # The command has said what went wrong.
        sys.exit(error.returncode)
