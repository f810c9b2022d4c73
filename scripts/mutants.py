#!/usr/bin/env python3
"""Proves the oracle's teeth: each wrong variant of the source in tests/mutants.toml must be found out.

    scripts/mutants.py [NAME ...]      all, or those with NAME in their name

Each mutant is a small change of the source, made to a scratch copy under target/mutants, built, and run: as
many seeds of the simulation as it takes to find a violation, or the test that the list names. The scratch
package holds the lower three layers only, which is all that the simulation needs: a mutant builds in seconds.

A mutant that survives is a failure, and so is a change that does not apply any more. What is found counts only
as far as the sound rules run clean: the same seeds and tests are run without any change, too.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "target/mutants/tree"
LAYERS = ("model", "protocol", "store")
SEEDS_MAX = int(os.environ.get("SEEDS_MAX", 5_000))
SECONDS_MAX = 400

MANIFEST = """
[workspace]
[package]
name = "lastword"
version = "0.0.0"
edition = "{edition}"
autotests = false
[[test]]
name = "convergence"
[profile.dev]
debug = false
opt-level = 1
[profile.dev.package."*"]
opt-level = 3
"""


def dependencies(manifest, section, source):
    """Those of a section that the source names, as lines of a manifest."""
    lines = [f"[{section}]"]
    for name, wanted in manifest[section].items():
        if re.search(rf"\b{name.replace('-', '_')}::", source):
            # A table that holds strings, lists of them and booleans reads in TOML as it does in Python.
            if isinstance(wanted, dict):
                fields = (f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                          for key, value in wanted.items())
                wanted = "{ " + ", ".join(fields) + " }"
            else:
                wanted = repr(wanted)
            lines.append(f"{name} = {wanted}")
    return "\n".join(lines) + "\n"


def copy_where_changed(source, target):
    """Keeps the times of files that are the same, so that they are not built again."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def make_tree():
    """The scratch package, as the sources are now."""
    files = [path for layer in LAYERS for path in (ROOT / "src" / layer).rglob("*.rs")]
    files += [ROOT / "tests/convergence.rs", ROOT / "Cargo.lock"]
    files += [*(ROOT / "tests/sim").rglob("*.rs")]
    files += [ROOT / "tests/common" / name for name in ("dice.rs", "disk.rs")]
    wanted = {TREE / path.relative_to(ROOT) for path in files}
    for path in TREE.rglob("*.rs"):
        if path not in wanted and path != TREE / "src/lib.rs":
            path.unlink()
    for path in files:
        if path.name != "Cargo.lock" or not (TREE / "Cargo.lock").exists():
            copy_where_changed(path, TREE / path.relative_to(ROOT))
    source = "".join(path.read_text() for path in files if path.suffix == ".rs")
    real = tomllib.loads((ROOT / "Cargo.toml").read_text())
    manifest = MANIFEST.format(edition=real["workspace"]["package"]["edition"])
    manifest += "".join(dependencies(real, section, source)
                        for section in ("dependencies", "dev-dependencies"))
    for name, text in (("Cargo.toml", manifest),
                       ("src/lib.rs", "".join(f"pub mod {layer};\n" for layer in LAYERS))):
        path = TREE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def change(mutant):
    """Makes a mutant's changes; gives the files as they were, and what hinders it."""
    before = {}
    for edit in mutant["edit"]:
        path = TREE / edit["file"]
        text = path.read_text()
        before.setdefault(path, text)
        count = text.count(edit["old"])
        if count != 1:
            return before, f"occurs {count} times in {edit['file']}: {edit['old']!r}"
        path.write_text(text.replace(edit["old"], edit["new"]))
    return before, None


def cargo(*arguments, timeout, **environment):
    """Runs cargo in the scratch package; gives its exit code and what it printed."""
    environment = os.environ | environment | {
        "CARGO_TARGET_DIR": str(TREE.parent / "build"),
        "RUSTFLAGS": "-Awarnings",
    }
    running = subprocess.Popen(["cargo", "test", *arguments], cwd=TREE, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, 9)
        return None, running.communicate()[0]
    return running.returncode, output


def run(test, seeds):
    """Runs what should find a mutant out; gives what did, or None, and what was printed."""
    if test == "many":
        arguments = ("--test", "convergence", "many", "--", "--ignored", "--exact")
    elif "::" in test:
        arguments = ("--lib", test)
    else:
        arguments = ("--test", "convergence", test, "--", "--exact")
    code, output = cargo(*arguments, timeout=SECONDS_MAX, SEEDS=f"0..{seeds}", RUST_BACKTRACE="0")
    if code is None:
        return None, f"no end within {SECONDS_MAX} s\n{output}"
    if code != 0 and "test result: FAILED" not in output:
        return None, f"does not build\n{output}"
    ran = sum(int(count) for count in re.findall(r"running (\d+) test", output))
    if ran == 0:
        return None, f"there is no test {test}"
    if code == 0:
        return None, "survives"
    found = re.search(r"seed (\d+) of", output) if test == "many" else None
    return (found.group(1) if found else "-" if test == "many" else test), output


def main(names):
    mutants = tomllib.loads((ROOT / "tests/mutants.toml").read_text())["mutant"]
    chosen = [m for m in mutants if not names or any(name in m["name"] for name in names)]
    if not chosen:
        return f"no mutant is named like {' or '.join(names)}"
    make_tree()
    code, output = cargo("--no-run", timeout=1_200)
    if code != 0:
        return f"the scratch package does not build:\n{output}"
    failures, found_after, tests = [], {}, set()
    print(f"{'mutant':44} {'seeds, or the test':44} seconds", flush=True)
    for mutant in chosen:
        begin = time.monotonic()
        before, error = change(mutant)
        found, output = (None, error) if error else run(
            mutant.get("by", "many"), mutant.get("seeds", SEEDS_MAX))
        for path, text in before.items():
            path.write_text(text)
        (TREE.parent / f"{mutant['name']}.log").write_text(output)
        if found is None:
            failures.append(mutant["name"])
        elif found.isdigit():
            found_after[mutant["name"]] = int(found) + 1
            found = f"{int(found) + 1}"
        else:
            tests.add(mutant.get("by", "many"))
        shown = found or output.splitlines()[0].upper()
        print(f"{mutant['name']:44} {shown:44} {time.monotonic() - begin:.0f}", flush=True)
    # All that was found is a proof only where the sound rules run clean.
    seeds_max = max(found_after.values(), default=1)
    for test in sorted(tests - {"many"}) + ["many"]:
        found, output = run(test, seeds_max)
        if output != "survives":
            failures.append(f"the sound rules, by {test}, {found}")
            (TREE.parent / "sound.log").write_text(output)
        if found and found.isdigit():
            failures += [name for name, after in found_after.items() if after > int(found)]
    print(f"the sound rules were played through {seeds_max} seeds")
    return f"NOT FOUND OUT: {', '.join(failures)}" if failures else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
