"""The C driver as a shared library, with its structures as ctypes knows them."""

import ctypes
import subprocess
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

from gen.registers import c_header
from sim.build import ROOT

__all__ = ["Counters", "Device", "Image", "Job", "Platform", "Tiling", "compile_driver"]

SOURCES = ROOT / "hosts" / "c"
STRICT = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-pedantic", "-O2"]


def words(*names: str) -> list:
    return [(name, c_uint32) for name in names]


class Image(Structure):
    _fields_ = [("bytes", c_void_p), ("size", c_size_t), ("end", c_void_p), *words("packets")]


class Job(Structure):
    _fields_ = [
        *words("tokens", "inputs", "outputs", "group_size", "fp16", "datatypes"),
        ("weights", Image),
        ("activations", Image),
        ("results", c_void_p),
        ("results_size", c_size_t),
        *words("ticks"),
    ]


class Platform(Structure):
    KINDS = {
        "read": CFUNCTYPE(c_uint32, c_void_p, c_size_t),
        "write": CFUNCTYPE(None, c_void_p, c_size_t, c_uint32),
        "now": CFUNCTYPE(c_uint32, c_void_p),
        "sleep": CFUNCTYPE(None, c_void_p, c_uint32),
        "barrier": CFUNCTYPE(None, c_void_p),
        "clean": CFUNCTYPE(None, c_void_p, c_void_p, c_size_t),
        "invalidate": CFUNCTYPE(None, c_void_p, c_void_p, c_size_t),
        "send": CFUNCTYPE(c_int, c_void_p, c_int, POINTER(Image), c_uint32, c_uint32),
        "receive": CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t),
        "poll": CFUNCTYPE(c_int, c_void_p),
        "settle": CFUNCTYPE(c_int, c_void_p),
    }
    _fields_ = [("context", c_void_p), *KINDS.items()]

    @classmethod
    def of(cls, **functions) -> "Platform":
        """From Python functions without the context; those left out are NULL. What they raise is kept in ``raised``."""
        raised = []

        def guarded(name, call):
            def guard(_context, *values):
                try:
                    if not raised:
                        return call(*values)
                except BaseException as error:
                    raised.append(error)
                return -1 if name in ("send", "receive", "poll", "settle") else 0

            return guard

        made = cls(**{name: cls.KINDS[name](guarded(name, call)) for name, call in functions.items()})
        made.raised = raised
        return made


class Device(Structure):
    _fields_ = [
        ("platform", POINTER(Platform)),
        *words("rows", "columns", "lanes", "token_sets", "chunk", "block_outputs", "group_sizes", "datatypes"),
        *words("max_inputs", "max_outputs"),
    ]


class Tiling(Structure):
    _fields_ = words(
        "token_blocks", "block_tokens", "super_blocks", "super_outputs", "chunks", "chunk_inputs", "blocks"
    )


class Counters(Structure):
    _fields_ = [
        *((name, c_uint64) for name in ("cycles", "busy", "stalled", "macs")),
        *words("errors", "error_flags", "numeric_flags"),
    ]


def compile_driver(path: Path) -> Path:
    """The driver, with every warning an error, as C99 and as C++; returns the library."""
    (path / "bitmosaic_core.h").write_text(c_header("core"))
    source, includes = SOURCES / "bitmosaic.c", [f"-I{path}", f"-I{SOURCES}"]
    library = path / "bitmosaic.so"
    subprocess.run(["cc", "-std=c99", *STRICT, *includes, "-shared", "-fPIC", source, "-o", library], check=True)
    subprocess.run(["c++", "-x", "c++", *STRICT, *includes, "-c", source, "-o", path / "bitmosaic.o"], check=True)
    return library


def load_driver(library: Path) -> ctypes.CDLL:
    driver = ctypes.CDLL(str(library))
    driver.bitmosaic_result.restype = c_size_t
    driver.bitmosaic_read_counters.restype = None
    return driver
