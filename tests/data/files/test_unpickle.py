import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pet_cifar.data.files.unpickle import read_pickle
from pet_cifar.errors import InputError


def python2_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_batch(data: bytes, shape: tuple[int, int], core: bytes = b"numpy.core.multiarray") -> bytes:
    """Writes what Python 2 wrote for {"data": an uint8 array, "labels": [3, 7]}, opcode by opcode."""
    code, order = python2_string(b"u1"), python2_string(b"|")
    dtype = (
        b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    raw = b"T" + struct.pack("<I", len(data)) + data
    array = b"c" + core + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string(b"b") + b"\x87R"
    array += b"(K\x01" + b"K%cK%c\x86" % shape + dtype + b"\x89" + raw + b"tb"
    labels = b"](K\x03K\x07e"
    items = python2_string(b"data") + array + python2_string(b"labels") + labels
    return b"\x80\x02}(" + items + b"u."


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_python_2_batch_is_read_right(core: bytes) -> None:
    data = bytes(range(12))
    batch = read_pickle(io.BytesIO(python2_batch(data, (2, 6), core)))
    assert isinstance(batch, dict)
    assert list(batch) == [b"data", b"labels"]
    assert batch[b"labels"] == [3, 7]
    assert batch[b"data"].dtype == np.uint8
    assert batch[b"data"].tolist() == [list(data[:6]), list(data[6:])]
    batch[b"data"][0, 0] = 1  # writable, like what numpy makes


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">f4", "?"])
@pytest.mark.parametrize("shape", [(3, 4), (0, 5), ()])
def test_arrays_of_python_3_round_trip(protocol: int, core: bytes, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asfortranarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))
    value = {b"data": array, b"names": ["a", b"b", b"", 1, -2.5, None, True, 10**30, (1, [2])]}
    written = pickle.dumps(value, protocol)
    for either in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        if protocol < 4:  # later ones write the length before the name
            written = written.replace(either, core)
    read = read_pickle(io.BytesIO(written))
    assert isinstance(read, dict)
    np.testing.assert_array_equal(read[b"data"], array)
    assert read[b"data"].dtype == array.dtype
    assert read[b"names"] == value[b"names"]


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    for protocol in range(6):
        (tmp_path / "batch").write_bytes(pickle.dumps({b"data": [Evil()]}, protocol))
        with (tmp_path / "batch").open("rb") as stream, pytest.raises(InputError) as caught:
            read_pickle(stream)
        assert f"{tmp_path}/batch is refused: it asks for posix.system" in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "written",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"(inumpy\nmatrix\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        b"\x80\x04\x8c\x02os\x8c\x07sys\ntem\x93.",
        b"cnumpy\nndarray\n.",
        b"cnumpy\ndtype\n(Vu1\ntR.",
        pickle.dumps(np.array([1, "x", None], dtype=object), 2),
        pickle.dumps(np.zeros(2, [("a", "u1")]), 2),
        pickle.dumps(np.array(["x"]), 2),
        pickle.dumps({1, 2}, 4),
        pickle.dumps(1j, 2),
    ],
)
def test_all_else_is_refused(written: bytes) -> None:
    with pytest.raises(InputError, match=r"^the pickle is refused: it .*; get the file from its source$"):
        read_pickle(io.BytesIO(written))


def test_object_array_is_refused_by_its_type() -> None:
    with pytest.raises(InputError, match="array of type 'O8'"):
        read_pickle(io.BytesIO(pickle.dumps({b"data": np.array([[]], dtype=object)}, 2)))


def test_damaged_pickles_are_told_in_one_line() -> None:
    whole = python2_batch(bytes(range(12)), (2, 6))
    cut = [whole[:length] for length in range(len(whole))]
    wrong_shape = python2_batch(bytes(12), (2, 7))
    endless = b"\x80\x02]q\x00h\x00a."  # a list that holds itself
    lengths = b"\x80\x04\x8e" + b"\x7f" * 8 + b"x"
    encoded = b"c_codecs\nencode\n(Vx\nVzlib\ntR."
    no_bytes = b"c__builtin__\nbytes\n(I1000\ntR."
    for written in [*cut, wrong_shape, endless, lengths, encoded, no_bytes, b"<html>\n</html>\n"]:
        with pytest.raises(InputError, match=r"the pickle is damaged or no pickle: .*; delete it") as caught:
            read_pickle(io.BytesIO(written))
        assert "\n" not in str(caught.value)


def test_pickle_that_repeats_itself_is_read_in_no_time() -> None:
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    assert isinstance(read_pickle(io.BytesIO(pickle.dumps(value, 2))), list)


MEMO = b"\x80\x02N"
NESTED = b"N" + b"2\x86" * 60
"""A tuple that holds a tuple twice, and so on: 121 bytes, and 2^60 values to whoever visits all."""


@pytest.mark.parametrize(
    "written",
    [
        MEMO + b"r\xff\xff\xff\xff.",
        MEMO + b"p4294967295\n.",
        b"\x80\x02}" + NESTED + b"Ns.",
        b"\x80\x02}(" + NESTED + b"Nu.",
        b"\x80\x02(" + NESTED + b"Nd.",
        b"\x80\x04\x8f(" + NESTED + b"\x90.",
        b"c_codecs\nencode\n(Va\n" + NESTED + b"tR.",
        pickle.dumps({index * (2**61 - 1): None for index in range(3)}, 2),
        python2_batch(bytes(12), (2, 6)).replace(b"K\x02K\x06\x86", NESTED + b"\x85"),
    ],
    ids=["memo", "memo in text", "key", "keys", "dict", "set", "codec", "numbers", "shape"],
)
def test_a_few_bytes_take_neither_memory_nor_time(written: bytes) -> None:
    tracemalloc.start()
    try:
        if written.startswith(MEMO):
            assert read_pickle(io.BytesIO(written)) is None
        else:
            with pytest.raises(InputError) as caught:
                read_pickle(io.BytesIO(written))
            assert len(str(caught.value)) < 500
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_function_cannot_be_changed_for_later_pickles() -> None:
    poison = b"\x80\x02c__builtin__\nbytes\n(N}U\x0c__defaults__)stb."
    with pytest.raises(InputError, match="it changes what is no array"):
        read_pickle(io.BytesIO(poison))


def test_a_long_name_is_told_shortly() -> None:
    with pytest.raises(InputError, match="it asks for") as caught:
        read_pickle(io.BytesIO(b"cos\n" + b"a" * 100_000 + b"\n."))
    assert len(str(caught.value)) < 500
