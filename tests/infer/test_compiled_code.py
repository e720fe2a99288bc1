"""Code that a process has is taken again for the same graph, and for no other one."""

import linecache
import threading

import pytest
import torch
from pairs import linear_pair
from torch._inductor import codecache, config, cpu_vec_isa
from torch._inductor.exc import CppCompileError
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.infer import CompiledLoss, CompileError, compiled_code, make_objective
from pyrovae.infer.compiled_code import OPTIONS, compiled, prepare_headers

TABLE = torch.arange(3.0)


@pytest.fixture(autouse=True)
def made(monkeypatch):
    """How often inductor is asked; what it gives runs the graph."""
    asked = []

    def by_inductor(graph, example, options):
        asked.append(graph)
        return graph

    monkeypatch.setattr("torch._inductor.compile", by_inductor)
    monkeypatch.setattr(compiled_code, "_MADE", {})
    return asked


def doubled(x):
    return 2.0 * x


def shifted(number):
    return lambda x: x + torch.tensor([number, 1.0, 1.0])


def code(function=doubled, example=None, **options):
    example = torch.ones(3) if example is None else example
    return compiled(make_fx(function)(example), [example], "inductor", **options)


def test_the_same_graph_is_compiled_once(made):
    assert code() is code()
    assert len(made) == 1
    assert code(shifted(1.0)) is code(shifted(1.0))
    assert len(made) == 2


@pytest.mark.parametrize(
    ("function", "example"),
    [
        (lambda x: 3.0 * x, None),
        (doubled, torch.ones(4)),
        (doubled, torch.ones(3, dtype=torch.float64)),
        (doubled, torch.ones(3, 3).t()[0]),
        (shifted(2.0), None),
        (shifted(-0.0), None),
    ],
)
def test_another_graph_is_not(made, function, example):
    code()
    code(shifted(0.0))
    before = len(made)
    code(function, example)
    assert len(made) == before + 1


@pytest.mark.parametrize("change", ["threads", "dtype", "matmul", "inductor"])
def test_nor_is_one_under_other_settings(monkeypatch, made, change):
    code()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        if change == "threads":
            torch.set_num_threads(threads + 1)
        elif change == "dtype":
            torch.set_default_dtype(torch.float64)
        elif change == "matmul":
            torch.set_float32_matmul_precision("high")
        else:
            monkeypatch.setattr(torch._inductor.config, "epilogue_fusion", not torch._inductor.config.epilogue_fusion)
        code(example=torch.ones(3, dtype=torch.float32))
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(precision)
    assert len(made) == 2


def test_tensors_of_the_programs_are_not_shared(made):
    """Somebody may write to them."""
    one, other = code(lambda x: x * TABLE), code(lambda x: x * TABLE)
    assert one is not other
    assert not compiled_code._MADE


def test_the_oldest_goes(monkeypatch, made):
    monkeypatch.setattr(compiled_code, "AT_MOST", 2)
    for count in (1, 2, 1, 3):  # the first one is used again, so the second one goes
        code(example=torch.ones(count))
    assert len(made) == len(compiled_code._MADE) + 1 == 3
    code(example=torch.ones(1))
    assert len(made) == 3
    code(example=torch.ones(2))
    assert len(made) == 4


def test_the_text_of_graphs_is_not_kept():
    """Torch keeps that of each graph, and the memory of a process that compiles many pairs grows by it."""

    def kept():
        return len(graph_module._loader.eval_cache), sum(name.startswith("<eval_with_key>") for name in linecache.cache)

    before = kept()
    graph = make_fx(doubled)(torch.ones(3))
    assert kept() > before, "else there is nothing to forget"
    before = kept()
    x = torch.ones(4, 5)
    CompiledLoss(linear_pair().prepare(x), make_objective("elbo", max_plate_nesting=1), backend="eager")(x)
    assert kept() == before
    assert graph(torch.ones(1)) == 2


@pytest.mark.parametrize(
    "error",
    [
        CppCompileError(["g++", "-mavx9"], "unrecognized option"),
        RuntimeError("CppCompileError: C++ compile error"),  # as inductor wraps it
        OSError("undefined symbol"),
    ],
)
def test_instructions_are_trusted_until_the_compiler_refuses_them(monkeypatch, error):
    """As a compiler that is older than the processor does."""
    asked = []

    def by_inductor(graph, example, options):
        asked.append(options.get("cpp.vec_isa_ok"))
        if options.get("cpp.vec_isa_ok"):
            raise error
        return graph

    kinds = [type(one).__bool__ for one in cpu_vec_isa.supported_vec_isa_list]
    remembering = [one for one in (cpu_vec_isa.valid_vec_isa_list, *kinds) if hasattr(one, "cache_info")]
    assert len(remembering) > 1
    with config.patch({"cpp.vec_isa_ok": True}):
        for isa in cpu_vec_isa.supported_vec_isa_list:
            bool(isa)
        cpu_vec_isa.valid_vec_isa_list()
    monkeypatch.setattr("torch._inductor.compile", by_inductor)
    assert torch.equal(code()(torch.ones(3)), torch.full((3,), 2.0))
    assert asked == [True, None]
    assert [one.cache_info().currsize for one in remembering] == [0] * len(remembering), "all are found out anew"


def test_what_the_user_says_of_instructions_stays(monkeypatch):
    asked = []

    def by_inductor(graph, example, options):
        asked.append(options)
        raise CppCompileError(["g++"], "broken")

    monkeypatch.setattr("torch._inductor.compile", by_inductor)
    with config.patch({"cpp.vec_isa_ok": False}), pytest.raises(CompileError, match="inductor cannot compile"):
        code()
    assert asked == [OPTIONS["cpu"]]


@pytest.mark.parametrize("fails", [False, True])
def test_headers_are_prepared_beside_other_work(monkeypatch, tmp_path, fails):
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(tmp_path))
    goes_on, ended = threading.Event(), []

    def load_async(text, device, **options):
        assert config.cpp_wrapper, "as in the compilation itself"
        assert goes_on.wait(60)
        ended.append(device)
        if fails:
            raise RuntimeError("no compiler")

    monkeypatch.setattr(codecache.CppWrapperCodeCache, "load_async", load_async)
    beside = prepare_headers()
    assert not ended
    goes_on.set()
    beside.join()
    assert ended == ["cpu"]
    assert not beside.daemon, "Python waits for it"
    (tmp_path / "torch.h.gch").touch()
    assert prepare_headers() is None
