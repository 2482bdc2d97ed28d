"""load_interactions: every format gives the same matrix, and what is broken is named."""

import gzip
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from fastml.datasets import _text, load_interactions

ROWS = [("mia", "9", 3.0, 100), ("ben", "10", 1.5, 50), ("mia", "10", 2.0, 70), ("zoë", "9", 4.0, 20)]
MATRIX = [[0, 1.5], [3, 2], [4, 0]]
TIMES = [[0, 50], [100, 70], [20, 0]]


def written(tmp_path, content, name="interactions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(delimiter, rows=ROWS, end="\n"):
    return "".join(delimiter.join(map(str, row)) + end for row in rows)


def check(found, matrix=MATRIX, users=("ben", "mia", "zoë"), items=(9, 10)):
    assert isinstance(found.data, csr_array)
    assert found.data.dtype == np.float32
    assert found.data.has_canonical_format
    assert_array_equal(found.data.toarray(), matrix)
    assert_array_equal(found.user_ids, users)
    assert_array_equal(found.item_ids, items)


@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "::", "|", " ", "   "])
@pytest.mark.parametrize("header", ["", "user_id{0}item_id{0}rating{0}timestamp\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_headers_and_line_ends(tmp_path, delimiter, header, end):
    text = header.format(delimiter).replace("\n", end) + lines(delimiter, end=end)
    found = load_interactions(written(tmp_path, text), timestamp=3)
    check(found)
    assert found.timestamps.dtype == np.int64
    assert_array_equal(found.timestamps.toarray(), TIMES)
    assert_array_equal(found.timestamps.indices, found.data.indices)
    check(load_interactions(written(tmp_path, text.removesuffix(end)), delimiter=delimiter.strip(" ") or " "))


def test_bytes_around_the_text(tmp_path):
    text = lines(",")
    check(load_interactions(written(tmp_path, b"\xef\xbb\xbf" + text.encode())))
    check(load_interactions(written(tmp_path, "\n  \n" + text.replace("\n", "\n\n"))))
    check(load_interactions(written(tmp_path, " " + text.replace(",", " , "))))
    check(load_interactions(written(tmp_path, gzip.compress(text.encode()))))
    check(load_interactions(str(written(tmp_path, text.encode("latin-1"))), encoding="latin-1"))


def test_quotes(tmp_path):
    text = 'user,item,value\n"Smith, Mia","say ""hi""",2\nben,9,1\n'
    found = load_interactions(written(tmp_path, text))
    assert_array_equal(found.user_ids, ["Smith, Mia", "ben"])
    assert_array_equal(found.item_ids, ["9", 'say "hi"'])
    tabs = load_interactions(written(tmp_path, 'mia\t"Weird Al"\t1\nben\t"Weird\t2\n'))
    assert_array_equal(tabs.item_ids, ['"Weird', '"Weird Al"'])
    with pytest.raises(ValueError, match="line 2: unexpected end of data. The line is 'mia,\"x'"):
        load_interactions(written(tmp_path, 'ben,y,1\nmia,"x\ny",2\n'))
    with pytest.raises(ValueError, match="line 3: unexpected end of data"):
        load_interactions(written(tmp_path, 'ben,y,1\nben,z,1\nmia,"x\ny",2\nben,"y",1\n'))
    with pytest.raises(ValueError, match="line 1: unexpected end of data"):
        load_interactions(written(tmp_path, 'ben,"y,1\n'))


def test_columns_by_name_position_and_usual_name(tmp_path):
    rows = [(t, i, v, u) for u, i, v, t in ROWS]
    swapped = written(tmp_path, "timestamp,movieId,stars,userId\n" + lines(",", rows))
    check(load_interactions(swapped))
    check(load_interactions(swapped, user="userId", item=1, value="stars"))
    without = load_interactions(swapped, value=False)
    check(without, matrix=np.sign(MATRIX))
    assert without.timestamps is None
    dated = written(tmp_path, "who,what,time\nmia,a,2001-09-09T01:46:40Z\nben,b,2001-09-09 03:46:40.500+02:00\n")
    found = load_interactions(dated, timestamp="time")
    check(found, matrix=[[0, 1], [1, 0]], users=["ben", "mia"], items=["a", "b"])
    assert_array_equal(found.timestamps.toarray(), [[0, 1e9 + 0.5], [1e9, 0]])


@pytest.mark.parametrize(
    ("text", "n_entries"),
    [
        ("user,item\nmia,x\nben,y\n", 2),
        ("mia,x\nben,y\n", 2),
        ("mia,x\nben,1984\n", 2),
        ("a,b\n1,2\n", 1),
        ("who,what,stars\nmia,x,1\n", 1),
        ("1,2\n3,4\n", 2),
        ("mia", 0),
    ],
)
def test_whether_there_is_a_header(tmp_path, text, n_entries):
    path = written(tmp_path, text)
    if not n_entries:
        with pytest.raises(ValueError, match="line 1: there is none for the item among 1 columns"):
            load_interactions(path)
        return
    assert load_interactions(path).data.nnz == n_entries
    if text.startswith("mia"):
        assert load_interactions(path, header=True).data.nnz == n_entries - 1


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["10", "9", "-3"], np.array([-3, 9, 10])),
        (["10", "9", "007"], np.array(["007", "10", "9"])),
        (["10", "9", "1.0"], np.array(["1.0", "10", "9"])),
        (["1", str(10**18)], np.array(["1", str(10**18)])),
        (["0", "-0"], np.array(["-0", "0"])),
        (["b ", " a", "b"], np.array(["a", "b"])),
    ],
)
def test_ids(tmp_path, ids, expected):
    found = load_interactions(written(tmp_path, lines("\t", [(i, "x", 1) for i in ids])))
    assert_array_equal(found.user_ids, expected)
    assert found.user_ids.dtype.kind == expected.dtype.kind
    assert found.data.sum() == len(ids)


def test_duplicates(tmp_path):
    path = written(tmp_path, lines(",", [*ROWS, ("mia", "9", 5.0, 60), ("mia", "9", 0.5, 80)]))
    check(load_interactions(path), matrix=[[0, 1.5], [8.5, 2], [4, 0]])
    check(load_interactions(path, duplicates="last"), matrix=[[0, 1.5], [0.5, 2], [4, 0]])
    found = load_interactions(path, duplicates="last", timestamp=3)
    check(found)
    assert_array_equal(found.timestamps.toarray(), TIMES)
    check(load_interactions(path, value=False), matrix=[[0, 1], [3, 1], [1, 0]])
    check(load_interactions(path, value=False, duplicates="last"), matrix=np.sign(MATRIX))
    with pytest.raises(ValueError, match="user mia and item 9 come 3 times, and there are 2 repetitions"):
        load_interactions(path, duplicates="error")


def test_zeros_are_stored_and_arrays_are_not_shared(tmp_path):
    found = load_interactions(written(tmp_path, "a,x,0,5\na,y,1,0\n"), timestamp=3)
    assert (found.data.nnz, found.timestamps.nnz) == (2, 2)
    found.data.eliminate_zeros()
    assert_array_equal(found.timestamps.toarray(), [[5, 0]])


def test_ids_of_another_file(tmp_path):
    train = load_interactions(written(tmp_path, lines(",")))
    test = written(tmp_path, "mia,10,5\n")
    check(load_interactions(test, user_ids=train.user_ids, item_ids=train.item_ids), matrix=[[0, 0], [0, 5], [0, 0]])
    check(
        load_interactions(test, user_ids=["mia", "x"], item_ids=["10", "9"]),
        matrix=[[5, 0], [0, 0]],
        users=["mia", "x"],
        items=["10", "9"],
    )
    with pytest.raises(ValueError, match="the item 10 is not in item_ids"):
        load_interactions(test, item_ids=[9])
    with pytest.raises(ValueError, match="the user 'ben' and 2 more is not in user_ids|the user 'mia' and 2 more"):
        load_interactions(written(tmp_path, lines(",")), user_ids=["x"])
    with pytest.raises(ValueError, match="user_ids has duplicates"):
        load_interactions(test, user_ids=["mia", "mia"])
    with pytest.raises(ValueError, match="user_ids must be one-dimensional"):
        load_interactions(test, user_ids=[["mia"]])


@pytest.mark.parametrize("block", [1, 10, 1 << 16])
def test_a_random_file_equals_its_definition(tmp_path, block, monkeypatch):
    monkeypatch.setattr(_text, "_BLOCK", block)
    rng = np.random.default_rng(0)
    users, items, values = rng.integers(0, 30, 400), rng.integers(0, 20, 400) * 10**9, rng.integers(1, 9, 400)
    rows = list(zip(users, items, values, strict=True))
    found = load_interactions(written(tmp_path, lines("::", rows)))
    expected = np.zeros((30, 20))
    np.add.at(expected, (users, items // 10**9), values)
    check(found, matrix=expected, users=range(30), items=np.arange(20) * 10**9)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("mia,x", "2 fields, but the first line has 3"),
        ("mia,x,1,2", "4 fields, but the first line has 3"),
        (",x,1", "the user id is empty"),
        ("mia, ,1", "the item id is empty"),
        ("m\0a,x,1", "NUL"),
        ("mia,x,", "the value is not a number"),
        ("mia,x,3.5*", "the value is not a number"),
        ("mia,x,nan", "the value is not finite"),
        ("mia,x,-inf", "the value is not finite"),
        ("mia,x,1e999", "the value is not finite"),
        (f"mia,{'x' * 500},a", "the value is not a number"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 7000])
def test_broken_lines_are_named(tmp_path, broken, reason, before):
    text = "user,item,value\n" + "ben,y,1\n" * before + "\n" + broken + "\nben,y,1\n"
    with pytest.raises(ValueError, match=f"interactions, line {before + 3}: .*{reason}") as caught:
        load_interactions(written(tmp_path, text))
    assert broken.replace("\0", "\\x00")[:60] in str(caught.value)
    assert len(str(caught.value)) < 250 + len(str(tmp_path))


def test_broken_timestamps(tmp_path):
    for stamp in ("yesterday", "nan", ""):
        with pytest.raises(ValueError, match="line 2: the timestamp is not"):
            load_interactions(written(tmp_path, f"a,x,1,5\nb,y,1,{stamp}\n"), timestamp=3)


def test_a_broken_first_line_is_no_header(tmp_path):
    with pytest.raises(ValueError, match="line 1: the value is not a number"):
        load_interactions(written(tmp_path, "1,2,good\n3,4,5\n"))
    with pytest.raises(ValueError, match="line 1: the value is not a number"):
        load_interactions(written(tmp_path, "mia,x,good\nben,y,5\n"), header=False)


def test_other_encodings(tmp_path):
    text = lines(",", [("ben", "x", 1)] * 5000 + [("zoë", "x", 1)])
    with pytest.raises(ValueError, match=r"line 5001 is not utf-8: b'zo\\xeb,x,1'\. Give its encoding"):
        load_interactions(written(tmp_path, text.encode("latin-1")))
    with pytest.raises(ValueError, match="line 1 is not utf-8"):
        load_interactions(written(tmp_path, text.encode("utf-16")))
    with pytest.raises(ValueError, match="encoding must have ASCII as a part"):
        load_interactions(written(tmp_path, text), encoding="utf-16")
    with pytest.raises(LookupError, match="unknown encoding"):
        load_interactions(written(tmp_path, text), encoding="no-such")


def test_files_without_interactions(tmp_path):
    for content in ("", "\n", "\n\n", "user,item\n", "user_id\titem_id\trating", gzip.compress(b"")):
        with pytest.raises(ValueError, match="has no interactions"):
            load_interactions(written(tmp_path, content))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_interactions(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        load_interactions(tmp_path)
    with pytest.raises(ValueError, match="zip archive"):
        load_interactions(written(tmp_path, b"PK\x03\x04..."))
    packed = gzip.compress(lines(",", ROWS * 100).encode())
    for damaged in (packed[:-20], packed[:40] + b"xxxx" + packed[44:], packed[:-8] + b"xxxx" + packed[-4:]):
        with pytest.raises(ValueError, match="damaged or cut short"):
            load_interactions(written(tmp_path, damaged))


def test_values_beyond_float32(tmp_path):
    path = written(tmp_path, "a,x,3e38\na,x,3e38\n")
    with pytest.raises(ValueError, match=r"6e\+38 is beyond float32"):
        load_interactions(path)
    assert load_interactions(path, dtype=np.float64).data.toarray() == 6e38


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"user": 1.0}, TypeError, "user must be the name of a column, its position or None"),
        ({"value": True}, TypeError, "value must be .* None or False"),
        ({"item": False}, TypeError, "item must be"),
        ({"user": "who"}, ValueError, "user='who' must be one column of the header"),
        ({"user": "who", "header": False}, ValueError, "without a header there are none"),
        ({"value": 7}, ValueError, r"line 1: value=7 must be a position in 0\.\.3"),
        ({"user": 0, "item": 0}, ValueError, "must be different columns"),
        ({"duplicates": "mean"}, ValueError, "duplicates must be"),
        ({"delimiter": ""}, ValueError, "delimiter must be"),
        ({"header": "yes"}, ValueError, "header must be"),
        ({"dtype": np.int32}, ValueError, "dtype must be float32 or float64"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        load_interactions(written(tmp_path, lines(",")), **options)
    with pytest.raises(TypeError, match="path must be a str or path-like"):
        load_interactions(7)


def parquet(tmp_path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), tmp_path / "interactions", row_group_size=2)
    return tmp_path / "interactions"


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    user, item, value, time = (list(column) for column in zip(*ROWS, strict=True))
    when = pa.array([t * 1000 for t in time], pa.timestamp("ms"))
    for users in (user, pa.array(user).dictionary_encode(), pa.array(user, pa.large_string())):
        path = parquet(tmp_path, rating=value, when=when, item_id=list(map(int, item)), user=users)
        check(load_interactions(path))
        found = load_interactions(path, timestamp="when", value=0)
        check(found)
        assert_array_equal(found.timestamps.toarray(), TIMES)
    numbered = load_interactions(parquet(tmp_path, u=["10", "9"], i=pa.array([7, 5], pa.uint8())))
    check(numbered, matrix=[[0, 1], [1, 0]], users=["10", "9"], items=[5, 7])


def test_broken_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    good = {"user": ["a", "b", "c"], "item": [1, 2, 3], "value": [1.0, 2.0, 3.0]}
    for column, values, message in (
        ("item", [1, None, 3], "column 'item' has 1 missing values, the first in row 1"),
        ("item", [1.0, 2.0, 3.0], "must be integers or strings to be ids, got double"),
        ("user", ["a", "b", ""], "column 'user' has an empty id, the first in row 2"),
        ("value", ["1", "2", "3"], "must be numbers, got string"),
        ("value", [1.0, 2.0, np.nan], "is not finite in row 2"),
    ):
        with pytest.raises(ValueError, match=message):
            load_interactions(parquet(tmp_path, **{**good, column: values}))
    with pytest.raises(ValueError, match="user='who' must be one column"):
        load_interactions(parquet(tmp_path, **good), user="who")
    with pytest.raises(ValueError, match="has no interactions"):
        load_interactions(parquet(tmp_path, user=pa.array([], pa.string()), item=pa.array([], pa.int64())))
    content = parquet(tmp_path, **good).read_bytes()
    for damaged in (content[:-10], content[:4] + b"x" * 60 + content[64:]):
        with pytest.raises(ValueError, match="damaged Parquet"):
            load_interactions(written(tmp_path, damaged))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r'interactions needs pyarrow: pip install "fastml\[datasets\]"'):
        load_interactions(written(tmp_path, b"PAR1..."))
