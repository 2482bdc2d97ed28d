"""What turns results of the benchmarks into pages, and what notices that speed was lost."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _format, compare, quick, report
from benchmarks._memory import MemoryWatch, peak_extra_memory
from benchmarks._results import load, ratios

ROOT = Path(__file__).parents[1]
LIMITS = {"machine_triad": 40.0, "machine_copy": 30.0, "machine_copy_to_new_memory": 10.0, "machine_sgemm": 190.0}
CURVE = {
    "axis": "rows",
    "fixed": "10 classes",
    "values": [100, 1000, 10_000],
    "seconds": {"fastml": [1e-5, 1e-4, 1e-3], "numpy": [1e-4, 1e-3, 1e-2]},
    "memory": {"fastml": [None, 4096, 2**21], "numpy": [None, 4096, 2**22]},
}


def timed(group, candidate, seconds, **facts):
    facts = {"bytes": 2**24, "flops": 10**8, "gigaflops": 1e-1 / seconds, "limit": "triad", **LIMITS, **facts}
    facts |= {"candidate": candidate, "share_of_limit": 0.83, "peak_extra_bytes": 3 * 2**20}
    return result(group, facts, seconds, {"name": candidate})


def result(group, facts, seconds=1.0, params=None, file="bench_softmax"):
    name = f"benchmarks/{file}.py::test_it[{group}]"
    return {
        "group": group,
        "name": "test_it",
        "fullname": name,
        "params": params,
        "extra_info": facts,
        "stats": {"median": seconds},
    }


def write(path, benchmarks):
    cpu = {"brand_raw": "A processor"}
    info = {"cpu": cpu, "n_threads": 2, "system": "Linux", "python_version": "3.11", "versions": {"numpy": "2.4"}}
    path.write_text(json.dumps({"machine_info": info, "benchmarks": benchmarks}))
    return str(path)


def groups(**numpy_over_fastml):
    """Results in which fastml takes 2 ms and NumPy this many times as long."""
    entries = []
    for name, ratio in numpy_over_fastml.items():
        entries += [timed(name, "fastml", 2e-3), timed(name, "numpy", 2e-3 * ratio), timed(name, "torch", 8e-3)]
    return entries


# ---------------------------------------------------------------------------------------------- compare


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [(4.0, 4.0, 0), (4.0, 8.0, 0), (4.0, 3.0, 0), (4.0, 2.99, 1), (0.5, 0.2, 1), (1.1, 0.825, 0)],
)
def test_a_ratio_may_drop_by_a_quarter(tmp_path, capsys, before, now, code):
    old, new = write(tmp_path / "old", groups(a=before, b=2.0)), write(tmp_path / "new", groups(a=now, b=2.0))
    assert compare.main([old, new]) == code
    assert ("a: dropped by more than 25%" in capsys.readouterr().err) == bool(code)


def test_times_do_not_matter(tmp_path):
    old = write(tmp_path / "old", [timed("a", "fastml", 1e-3), timed("a", "numpy", 4e-3)])
    new = write(tmp_path / "new", [timed("a", "fastml", 1.0), timed("a", "numpy", 4.0)])
    assert compare.main([old, new]) == compare.main([new, old]) == 0


def test_the_small_file_of_ratios_does(tmp_path):
    stored = tmp_path / "ratios.json"
    stored.write_text(json.dumps({"ratios": {"a": 4.0}}))
    assert compare.main([str(stored), write(tmp_path / "new", groups(a=3.5))]) == 0
    assert compare.main([str(stored), write(tmp_path / "new", groups(a=2.0))]) == 1
    assert compare.main([str(stored), write(tmp_path / "new", groups(a=3.5)), "--drop", "0.1"]) == 1


def test_missing_groups_are_told(tmp_path, capsys):
    old, new = write(tmp_path / "old", groups(a=4.0, gone=2.0)), write(tmp_path / "new", groups(a=4.0, fresh=2.0))
    assert compare.main([old, new]) == 0
    told = capsys.readouterr().out
    assert "gone   only in the old file" in told
    assert "fresh  only in the new file" in told


def test_a_group_without_numpy_is_not_compared(tmp_path):
    path = write(tmp_path / "results", [timed("a", "fastml", 1.0), timed("a", "torch", 2.0), *groups(b=3.0)])
    assert ratios(path) == {"b": pytest.approx(3.0)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "got list"),
        ("{}", "not what pytest --benchmark-json writes"),
        ('{"ratios": {"a": NaN}}', "the ratio of 'a' must be a number above 0, got nan"),
        ('{"ratios": {"a": 0}}', "got 0"),
        ('{"ratios": {"z": 2}}', "no group with fastml and NumPy in both"),
    ],
)
def test_nothing_to_compare(tmp_path, capsys, content, message):
    path = tmp_path / "old"
    if content is not None:
        path.write_text(content)
    assert compare.main([str(path), write(tmp_path / "new", groups(a=3.0))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("second", "lost"), [(3.9, []), (1.0, ["softmax"])])
def test_what_dropped_is_measured_once_more(monkeypatch, second, lost):
    measured = iter([{"softmax": 2.0, "top_k": 3.0}, {"softmax": second}])
    asked = []
    monkeypatch.setattr(quick, "CASES", {"softmax": None, "top_k": None})
    monkeypatch.setattr(quick, "measure", lambda names: asked.append(list(names)) or next(measured))
    assert quick.check({"softmax": 4.0, "top_k": 3.0}) == lost
    assert asked == [["softmax", "top_k"], ["softmax"]]


def test_stored_ratios_are_of_the_quick_cases():
    assert ratios(ROOT / "benchmarks" / "ratios.json").keys() == quick.CASES.keys()


# ---------------------------------------------------------------------------------------------- report


@pytest.fixture
def checkout(tmp_path):
    """The pages of this checkout, to be written."""
    for page in report.PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    (tmp_path / "docs" / "_static").mkdir()
    return tmp_path


def everything():
    names = [name for _, name in report.GROUPS]
    fits = [name.split(": ", 1) for _, _, name in report.FITS]
    compared = {"ratio": 7.77, "seconds_peer": 7.77, "seconds_fastml": 1.0, "note": "both converged"}
    starts = {"import fastml": {"import": 0.456}, "WALS()": {"empty cache": 12.3, "full cache": 0.345, "next": 0.012}}
    return [
        *(entry for name in names for entry in groups(**{name: 6.31})),
        *(result(None, compared, params={"name": case}, file=file) for file, case in fits),
        result("softmax by rows", CURVE),
        result("by threads", {**CURVE, "axis": "threads", "fixed": "", "values": [1, 2, 4]}),
        *(result(f"cold start: {name}", {"cold_start": seconds}) for name, seconds in starts.items()),
    ]


def written(checkout, *results):
    """The pages, after the report has written them twice with the same outcome."""
    pytest.importorskip("matplotlib")
    paths = [write(checkout / f"results{i}.json", entries) for i, entries in enumerate(results)]
    contents = []
    for _ in range(2):
        assert report.main([*paths, "--root", str(checkout)]) == 0
        contents.append({page: (checkout / page).read_text() for page in report.PAGES})
    assert contents[0] == contents[1]
    return contents[0]


def test_pages_have_what_was_measured(checkout, capsys):
    pages = written(checkout, everything())
    assert capsys.readouterr().out == ""
    speed = pages["docs/speed.md"]
    assert "| softmax_cross_entropy_grad 8192x1000 | 2.00 ms | 6.3 | 4.0 |  |  |  | 83 % of triad |" in speed
    assert "| softmax_cross_entropy_grad 8192x1000 | 3.00 MiB | 3.00 MiB | 3.00 MiB |  |  |" in speed
    assert "| lbfgs, Fashion-MNIST | 7.77 s | 1.00 s | 7.8 | both converged | `bench_softmax_classifier.py` |" in speed
    assert "| `import fastml` | 456 ms |" in speed
    assert "| `WALS()` | 12.3 s | 345 ms | 12.0 ms |" in speed
    assert "40.0 GB/s of a triad" in speed
    assert (
        "| softmax by rows (10 classes) | 100 to 10k | 1.00 ms | 100 ns | 100 ns | 1.00 | 2.00 MiB |"
        in pages["docs/cost.md"]
    )
    assert "8192 x 1000 | NumPy / PyTorch | 6.3 / 4.0 | `pytest benchmarks/bench_softmax.py` |" in pages["README.md"]
    for name in ("limits", "scaling"):
        assert (checkout / "docs" / "_static" / f"speed_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_stays(checkout, capsys):
    before = {page: (checkout / page).read_text() for page in report.PAGES}
    pages = written(checkout, [result("softmax by rows", CURVE)])
    told = capsys.readouterr().out
    assert pages["README.md"] == before["README.md"]
    assert "README.md: ratios stays as it was, no results of softmax_cross_entropy_grad 8192x1000" in told
    assert "docs/speed.md: cold-start stays as it was, no results of cold starts" in told
    assert "| softmax by rows" in pages["docs/cost.md"]


def test_a_later_file_replaces_whole_groups(tmp_path):
    first = write(tmp_path / "first", groups(a=2.0, b=3.0))
    second = write(tmp_path / "second", [timed("a", "fastml", 1.0)])
    merged = load(first, second).groups
    assert set(merged["a"]) == {"fastml"}
    assert set(merged["b"]) == {"fastml", "numpy", "torch"}


def test_a_page_without_its_markers_is_left_alone(checkout, capsys):
    page = checkout / "docs" / "cost.md"
    page.write_text("no markers")
    assert report.main([write(checkout / "results.json", [result("rows", CURVE)]), "--root", str(checkout)]) == 2
    assert "docs/cost.md: expected <!-- growth:begin -->" in capsys.readouterr().err
    assert page.read_text() == "no markers"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_format.seconds(1.5), "1.50 s"),
        (_format.seconds(0.0123), "12.3 ms"),
        (_format.seconds(3e-10), "0.300 ns"),
        (_format.memory(512), "0.500 KiB"),
        (_format.memory(3 * 2**29), "1.50 GiB"),
        (_format.memory(0), "0 KiB"),
        (_format.ratio(1.234), "1.23"),
        (_format.ratio(6.31), "6.3"),
        (_format.ratio(1234.5), "1,234"),
        (_format.count(1000), "1k"),
        (_format.count(4_500_000), "4.5M"),
        (_format.count(4096), "4,096"),
        (_format.share(0.834), "83 %"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


def test_a_bar_in_a_cell_does_not_end_it():
    assert _format.table(["a"], [["x | y"]]) == ["| a |", "| --- |", r"| x \| y |"]


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="there is no measure")
@pytest.mark.parametrize("is_noted", [True, False])
def test_peak_of_a_call(monkeypatch, is_noted):
    """Scratch and the result count, what was there before does not; with the kernel's note and by looking often."""
    if not is_noted:
        monkeypatch.setattr("benchmarks._memory._RESET_PEAK", "refused")
    there = np.ones(2**24, np.uint8)

    def call():
        scratch = np.ones(2**25, np.uint8)
        return there[: len(scratch)].copy()

    call()
    assert peak_extra_memory(call) == pytest.approx(2**25 + 2**24, rel=0.2)


def test_watch_survives_an_error():
    with pytest.raises(ZeroDivisionError), MemoryWatch() as watch:
        1 / 0  # noqa: B018
    assert watch.extra is None or watch.extra >= 0
