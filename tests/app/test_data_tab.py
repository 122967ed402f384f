"""What the Data tab shows and does, without the page."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import pytest

from app.data_view import count_html, list_html, work_html
from app.dataset import Dataset, Work
from app.errors import AppError
from app.library import Library
from finetune.data.report import Report
from finetune.feedback.browse import Page, browse
from finetune.feedback.filters import Filters
from tests.finetune.collected import Collected

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def made(tmp_path: Path) -> Collected:
    return Collected(tmp_path / "data")


@pytest.fixture
def dataset(made: Collected, tmp_path: Path) -> Dataset:
    return Dataset(made.store, Library(made.videos), tmp_path / "exports")


def finished(dataset: Dataset) -> Work:
    assert dataset._thread is not None
    dataset._thread.join(120)
    return dataset.work()


def test_nothing_that_somebody_wrote_becomes_markup(made: Collected) -> None:
    made.ask(EVIL, f'{EVIL}" onerror="x', video=made.bare("a"), model=EVIL)
    made.ask("long", "word " * 500)
    page = browse(made.store)
    for lang in ("en", "zh"):
        html = list_html(page, lambda entry: None, False, lang)
        assert "<script" not in html and 'onerror="' not in html and html.count("kx-card") == 2
        assert html.count("<details class='kx-more'>") == 1
    report = Report("import", made=1, came=2)
    report.drop(EVIL, EVIL, EVIL)
    for work in (Work(error=EVIL), Work(what="import", reports=(report,)), Work(what="check", found={EVIL: 2})):
        assert "<script" not in work_html(work, "en")


def test_an_empty_list_says_what_to_do() -> None:
    nothing = Page((), None, True)
    assert "Ask about a video" in list_html(nothing, lambda entry: None, False, "en")
    assert "Nothing fits" in list_html(nothing, lambda entry: None, True, "en")
    assert "没有符合" in list_html(nothing, lambda entry: None, True, "zh")
    assert "Press Older" in list_html(Page((), 5, False), lambda entry: None, True, "en")
    assert ">1 answer<" in count_html(1, True, "en") and ">0 answers<" in count_html(0, True, "en")
    assert "1,234 answers" in count_html(1234, True, "en") and "more than 5" in count_html(5, False, "en")


def test_progress_and_what_came_of_it_are_told() -> None:
    assert "50 %" in work_html(Work(True, "check", 5, 10), "en") and "正在检查" in work_html(Work(True, "check"), "zh")
    assert "Nothing was found" in work_html(Work(what="check", found={}), "en")
    report = Report("import", made=3, came=5)
    report.drop("line 4", "names a file that is missing", "x.mp4")
    report.drop("line 5", "names a file that is missing", "y.mp4")
    html = work_html(Work(what="import", reports=(report,)), "en")
    assert "3 rows taken in, of 5" in html and "line 4: x.mp4; line 5: y.mp4" in html
    assert "引用的文件不存在" in work_html(Work(what="import", reports=(report,)), "zh")


def test_pictures_are_made_once_of_the_clips_first_frame(made: Collected, dataset: Dataset) -> None:
    sha = made.clip("a.mp4")
    made.ask("What?", "A dot.", video=sha)
    made.ask("What?", "Gone.", video=made.bare("b"))
    page = dataset.page(Filters())
    gone, there = (dataset.picture(entry) for entry in page.entries)
    assert gone is None and there is not None and there.name == f"{sha}.0.thumb.jpg"
    for _ in range(200):
        if there.is_file():
            break
        time.sleep(0.05)
    assert there.stat().st_size < 20_000
    before = there.stat().st_mtime_ns
    dataset.page(Filters())
    dataset.close()
    assert there.stat().st_mtime_ns == before
    assert dataset.library.find(sha) == made.videos / f"{sha}.mp4"  # a picture is not taken for the video
    dataset.library.remove(sha)
    assert not there.exists()


def test_work_is_begun_once_and_its_files_are_fetched_and_taken_in_again(
    made: Collected, dataset: Dataset, tmp_path: Path
) -> None:
    made.ask("What?", "A dot.", video=made.clip("a.mp4"))
    dataset.export("trl-sft", Filters(), videos=True)
    work = finished(dataset)
    assert work.error == "" and work.file is not None and work.reports[0].made == 1
    with zipfile.ZipFile(work.file) as archive:
        assert archive.namelist()[0] == "keye-trl-sft.jsonl" and archive.namelist()[1].startswith("videos/")
        archive.extractall(tmp_path / "unpacked")
    files = [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file()]
    flat = [Path(shutil.copy(path, tmp_path / path.name)) for path in files]  # as a browser sends them: without folders
    other = Collected(tmp_path / "other")
    taker = Dataset(other.store, Library(other.videos), tmp_path / "exports2")
    taker.take_in(flat)
    assert finished(taker).reports[0].made == 1
    assert [entry.said for entry in browse(other.store).entries] == ["A dot."]
    taker.check()
    assert finished(taker).found == {}
    with pytest.raises(AppError, match=r"\.jsonl"):
        taker.take_in([tmp_path / "film.mp4"])
    taker.take_in([tmp_path / "nowhere.jsonl"])
    assert "cannot be read" in finished(taker).error
