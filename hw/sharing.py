"""Equal components made once: a large array as one module and many instances of it."""

import re
from collections.abc import Callable

from amaranth import ClockSignal, Instance, Module, ResetInserter, ResetSignal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring

__all__ = ["ModuleLibrary", "place"]

_CLOCKS = re.compile(r"^  wire width 1 input \d+ +\\(clk|rst)$", re.MULTILINE)


class ModuleLibrary:
    """Collects shared modules while a design is elaborated: pass it as Amaranth's ``platform``.

    Elaborating and emitting a component takes seconds, and Amaranth does it for each of its instances. With a library,
    :func:`place` does it once for each key.

    Parameters
    ----------
    top : str
        Shared modules are called ``top__key``.

    Attributes
    ----------
    modules : dict[str, str]
        RTLIL text by name, in the order of their first use.
    """

    def __init__(self, top: str):
        self.top = top
        self.modules: dict[str, str] = {}
        self._interfaces: dict[str, tuple[wiring.Signature, list[str]]] = {}

    def instance(self, key: str, make: Callable[[], wiring.Component], reset: Value, path: str):
        """An instance of the module ``key``, and its interface. ``make`` is called for the first one only."""
        name = f"{self.top}__{key}"
        if name not in self.modules:
            self.modules[name] = ""  # it comes before what it is made of
            component = make()
            text = rtlil.convert(component, name=name, platform=self, emit_src=False)
            self.modules[name] = text.replace("attribute \\top 1\n", "")
            own = text.split(f"\nmodule \\{name}\n", 1)[1].split("\nend\n", 1)[0]
            self._interfaces[name] = component.signature, _CLOCKS.findall(own)
        signature, clocks = self._interfaces[name]
        ports = {"clk": ClockSignal(), "rst": reset}
        arguments = {f"i_{port}": ports[port] for port in clocks}
        interface = signature.create(path=(path,))
        for port, member, value in signature.flatten(interface):
            way = "i" if member.flow == wiring.In else "o"
            arguments[f"{way}_{'__'.join(map(str, port))}"] = Value.cast(value)
        return Instance(name, **arguments), interface


def place(
    m: Module, platform, name: str, key: str, make: Callable[[], wiring.Component], *, clear: Value | None = None
):
    """Add ``make()`` to ``m`` as submodule ``name``; returns it, or an interface object with its members.

    Where a :class:`ModuleLibrary` collects modules, all components placed under ``key`` become instances of one module.
    ``clear`` resets the component beside the domain's reset.
    """
    if isinstance(platform, ModuleLibrary):
        reset = ResetSignal() if clear is None else ResetSignal() | clear
        m.submodules[name], interface = platform.instance(key, make, reset, name)
        return interface
    component = make()
    m.submodules[name] = component if clear is None else ResetInserter(clear)(component)
    return component
