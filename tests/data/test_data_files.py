"""Finding, downloading and reading files, and what is said when that fails. The only server is on this machine."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from pyrovae.data import DataError, load, registry
from pyrovae.data.download import download, verify
from pyrovae.data.files import cache_folder, parse_idx, parse_mat, parse_npz


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.contents`; paths that start with /cut break off half way."""

    def do_GET(self):
        content = self.server.contents.get(self.path.removeprefix("/cut"))
        self.server.requests.append(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith("/unsized"):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path.startswith("/cut") else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.contents, server.requests = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder and no `$PYROVAE_DATA`."""
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    return tmp_path / "cache"


def digest_of(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_contents(rows=6):
    images = np.arange(rows * 784).reshape(rows, 28, 28) % 256
    return {
        f"{prefix}-{name}-ubyte.gz": idx(array)
        for prefix in ("train", "t10k")
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(rows)))
    }


def write_mnist(root, contents):
    (root / "mnist").mkdir(parents=True)
    for name, content in contents.items():
        (root / "mnist" / name).write_bytes(gzip.compress(content))


def write_npz(root, **arrays):
    (root / "frey_faces").mkdir(parents=True)
    path = root / "frey_faces" / "freyfaces.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def served_mnist(server, monkeypatch):
    """Six rows of MNIST's format on the local server, entered as the source of `mnist`."""
    contents = mnist_contents()
    server.contents = {f"/{name}": gzip.compress(content) for name, content in contents.items()}
    entry = registry._ENTRIES["mnist"]
    files = tuple(
        dataclasses.replace(file, url=f"{server.url}/{file.name}", digest=digest_of(contents[file.name]))
        for file in entry.files
    )
    monkeypatch.setitem(registry._ENTRIES, "mnist", dataclasses.replace(entry, files=files))
    return server


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
@pytest.mark.parametrize("prefix", ["", "/unsized"])
def test_download(server, tmp_path, algorithm, prefix):
    content = bytes(range(256)) * 5000
    server.contents[f"{prefix}/file.bin"] = content
    path = tmp_path / "new" / "file.bin"
    download(f"{server.url}{prefix}/file.bin", path, digest_of(content, algorithm))
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_checksum_is_of_the_decompressed_content(server, tmp_path):
    content = b"some rows" * 1000
    for level in (1, 9):
        server.contents["/file.gz"] = gzip.compress(content, level)
        download(f"{server.url}/file.gz", tmp_path / "file.gz", digest_of(content))
        assert gzip.decompress((tmp_path / "file.gz").read_bytes()) == content


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/file.gz", "wrong checksum .*was not kept: try again later, or put the file at .*file.gz by hand"),
        ("/plain/file.gz", "wrong checksum .*[Nn]ot a gzipped file"),
        ("/cut/file.gz", "broke off after .* bytes and was not kept: load again"),
        ("/missing.gz", "the server answered 404 Not Found; try again later, or put the file at"),
    ],
)
def test_failed_downloads_leave_nothing_behind(server, tmp_path, path, message):
    server.contents.update({"/file.gz": gzip.compress(bytes(10_000)), "/plain/file.gz": b"plain text"})
    with pytest.raises(DataError, match=message) as caught:
        download(server.url + path, tmp_path / "new" / "file.gz", digest_of(b"something else"))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failed_download_keeps_what_was_there(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"old")
    server.contents["/file.bin"] = b"new"
    with pytest.raises(DataError, match="wrong checksum"):
        download(f"{server.url}/file.bin", tmp_path / "file.bin", digest_of(b"newer"))
    assert (tmp_path / "file.bin").read_bytes() == b"old"


def test_nothing_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot download .*refused.*check the network connection, or put the file"):
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", digest_of(b""))


def test_a_server_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(DataError, match="timed out"):
            download(url, tmp_path / "file", digest_of(b""), timeout=0.2)


def test_an_unusable_cache(server, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    server.contents["/file"] = b""
    with pytest.raises(DataError, match=r"cannot download .*exists"):
        download(f"{server.url}/file", tmp_path / "cache" / "file", digest_of(b""))


def test_load_downloads_once(served_mnist, empty_cache):
    with pytest.raises(DataError, match="mnist is not on this machine and downloading is switched off: put train-"):
        load("mnist", download=False)
    first = load("mnist", validation=2)
    assert len(served_mnist.requests) == 4
    second = load("mnist", validation=2)
    assert len(served_mnist.requests) == 4
    assert torch.equal(first.train.x, second.train.x)
    assert first.train.y.tolist() == [0, 1, 2, 3]
    (empty_cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    load("mnist", validation=2)
    assert served_mnist.requests[4:] == ["/t10k-labels-idx1-ubyte.gz"]


def test_the_cache_is_verified_on_every_load(served_mnist, empty_cache):
    load("mnist", validation=2)
    path = empty_cache / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(6))))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz is damaged .*wrong checksum.*delete it and load"):
        load("mnist", validation=2)
    path.unlink()
    assert load("mnist", validation=2).test.y.tolist() == [0, 1, 2, 3, 4, 5]


def test_search_order(tmp_path, monkeypatch):
    for place, rows in (("root", 3), ("environment", 4), ("cache", 5)):
        write_npz(tmp_path / place, images=np.zeros((rows + 200, 28, 20), np.uint8))
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path / "environment"))

    def rows_from(root=None):
        return len(load("frey-faces", root=root, validation=1).train.x) + 1

    assert rows_from(tmp_path / "root") == 3
    assert rows_from(str(tmp_path)) == 4
    assert rows_from() == 4
    monkeypatch.setenv("PYROVAE_DATA", "")
    assert rows_from() == 5
    with pytest.raises(DataError, match="is not a folder"):
        rows_from(tmp_path / "nowhere")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROVAE_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("PYROVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "pyrovae"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "pyrovae"


def test_without_a_public_source(empty_cache):
    message = (
        r"frey-faces .*no public source.*put freyfaces.npz \(array images, uint8 \(N, 28, 20\)\) into .*frey_faces"
    )
    with pytest.raises(DataError, match=message) as caught:
        load("frey-faces")
    assert str(empty_cache / "frey_faces") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_gzip(tmp_path):
    write_mnist(tmp_path, mnist_contents())
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{path} is damaged or incomplete .*: delete it and load again"):
        load("mnist", root=tmp_path, validation=2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t10k-images-idx3-ubyte.gz", idx(np.zeros((6, 28, 28)))[:-1], "4703 values, its header says 4704"),
        (
            "t10k-images-idx3-ubyte.gz",
            idx(np.zeros((6, 28, 20))),
            r"shape \(6, 28, 20\), expected uint8 of .*N, 28, 28",
        ),
        ("t10k-images-idx3-ubyte.gz", b"", "not an IDX file"),
        ("t10k-images-idx3-ubyte.gz", b"\x00\x00\x08\x03\x00", "not an IDX file"),
        ("t10k-labels-idx1-ubyte.gz", b"<html>", "not an IDX file"),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros(5)), "6 images with 5 labels"),
    ],
)
def test_wrong_idx_files(tmp_path, name, content, message):
    write_mnist(tmp_path, mnist_contents() | {name: content})
    with pytest.raises(DataError, match=message):
        load("mnist", root=tmp_path, validation=2)


def test_truncated_npz(tmp_path):
    path = write_npz(tmp_path, images=np.zeros((500, 28, 20), np.uint8))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"freyfaces.npz is damaged or incomplete .*: put an intact copy in its place"):
        load("frey-faces", root=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"faces": np.zeros((500, 28, 20), np.uint8)}, "no array 'images'"),
        ({"images": np.zeros((500, 20, 28), np.uint8)}, r"images is uint8 of shape \(500, 20, 28\), expected"),
        ({"images": np.zeros((500, 28, 20))}, "images is float64"),
    ],
)
def test_wrong_npz_files(tmp_path, arrays, message):
    write_npz(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        load("frey-faces", root=tmp_path)


def test_grey_values_are_not_binary(tmp_path):
    (tmp_path / "binarized_mnist").mkdir()
    arrays = dict.fromkeys(("train", "valid", "test"), np.full((3, 784), 2, np.uint8))
    np.savez(tmp_path / "binarized_mnist" / "binarized_mnist.npz", **arrays)
    with pytest.raises(DataError, match="train has values other than 0 and 1"):
        load("binarized-mnist", root=tmp_path)


class Trap:
    """Its pickle writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_not_opened(tmp_path):
    opened = tmp_path / "opened"
    path = write_npz(tmp_path, images=np.array([Trap(opened)], dtype=object))
    with pytest.raises(DataError, match="allow_pickle=False"):
        load("frey-faces", root=tmp_path)
    assert not opened.exists()
    assert np.load(path, allow_pickle=True)["images"].shape == (1,)
    assert opened.exists()  # so the trap does work


def test_npy_is_not_npz():
    array = io.BytesIO()
    np.save(array, np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r"not an .npz file"):
        parse_npz(array.getvalue(), {"images": (None,)})


def test_mat_files():
    file = io.BytesIO()
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    scipy.io.savemat(file, {"X": array}, do_compression=True)
    content = file.getvalue()
    assert np.array_equal(parse_mat(content, {"X": (2, 3, None)})["X"], array)
    with pytest.raises(ValueError, match="no array 'y'"):
        parse_mat(content, {"y": (None, 1)})
    with pytest.raises(ValueError, match=r"X is uint8 of shape \(2, 3, 4\), expected uint8 of shape \(3, N\)"):
        parse_mat(content, {"X": (3, None)})
    for damaged in (content[:-10], content[:100], b"", b"<html>" * 40):
        with pytest.raises(ValueError, match=r"not a readable MATLAB 5 file|no array 'X'"):
            parse_mat(damaged, {"X": (2, 3, None)})


def test_idx_of_any_rank():
    array = np.arange(12).reshape(2, 3, 2)
    assert np.array_equal(parse_idx(idx(array), (None, 3, 2)), array)


def test_verify():
    with pytest.raises(ValueError, match=r"wrong checksum: md5:.* instead of md5:0"):
        verify(b"text", "md5:0")
