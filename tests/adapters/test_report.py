"""The report says what the comparison holds, and is a file on its own."""

from __future__ import annotations

import csv
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adapters import report
from adapters.comparison import Comparison, Fold, Run
from adapters.metrics import Score
from adapters.report.findings import find, gaps, headline, surface_means
from featcache.errors import FeatcacheError, TaskError

CLASSES = ("liver", "<script>alert(1)</script>", "$x^2$ | 肝")
CASES = tuple(f"case_{number}" for number in range(6))
FOLDS = tuple(Fold(("s1", "s2", "s3")[n:] + ("s1", "s2", "s3")[:n], CASES) for n in range(2))
DEVIATION = "Features are blended <once> & not per window."
VOID = {"meta", "img", "br", "link", "input", "hr"}


def run(method: str, shots: int, fold: int, dice: float, **changes: object) -> Run:
    """Return a run whose cases lie .01 apart: case n has dice + .01 n for the liver, .1 less for the others."""
    scores = {
        case: {
            name: Score("scored", round(dice + 0.01 * n - 0.1 * (number > 0), 6))
            for number, name in enumerate(CLASSES)
        }
        for n, case in enumerate(CASES)
    }
    curve = tuple(1 / (1 + n) for n in range(60)) if shots else ()
    found = Run(
        method, shots, fold, FOLDS[fold].support[:shots], scores, 12.0 * shots, 0.5, 49 * shots, curve
    )
    return dataclasses.replace(found, **changes)


def comparison(**changes: object) -> Comparison:
    """Return zero-shot at .60, linear at .50 and .70, spatial at .55 and .80; folds lie .03 apart."""
    runs = [run("zero-shot", 0, 0, 0.6)]
    for method, shots, dice in (
        ("linear", 1, 0.5),
        ("spatial", 1, 0.55),
        ("linear", 3, 0.7),
        ("spatial", 3, 0.8),
    ):
        runs += [run(method, shots, 0, dice), run(method, shots, 1, dice + 0.03)]
    settings = {"encoder": "A & B", "levels": ["fine", "coarse"], "recipe": "fast", "seed": 7, "note": "own"}
    whole = Comparison(settings, CLASSES, FOLDS, tuple(runs), "zero-shot", (DEVIATION,))
    return dataclasses.replace(whole, **changes)


def replaced(runs: tuple[Run, ...], name: str, case: str, score: Score) -> tuple[Run, ...]:
    """Return runs in which the liver of one case of one run has another score."""
    changed = []
    for old in runs:
        if old.name == name:
            row = {**old.scores[case], "liver": score}
            changed.append(dataclasses.replace(old, scores={**old.scores, case: row}))
        else:
            changed.append(old)
    return tuple(changed)


class Page(HTMLParser):
    """What a browser would see: tags that close, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table, escapes undone."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip().replace("\\|", "|").replace("&lt;", "<") for cell in row] for row in split]


def test_the_csv_has_a_line_a_case_and_class(tmp_path: Path) -> None:
    runs = replaced(comparison().runs, "linear-3-1", "case_2", Score("missed", 0.0, 0.0, 400.0))
    runs = replaced(runs, "linear-3-1", "case_3", Score("both_empty"))
    report.write_csv(comparison(runs=runs), tmp_path / "cases.csv")
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["method", "shots", "fold", "case", "class", "outcome", "dice", "nsd", "hd95_mm"]
    assert len(rows) == len(runs) * len(CASES) * len(CLASSES)
    key = ("method", "shots", "fold", "case", "class")
    lines = {
        tuple(row[name] for name in key): [row[n] for n in ("outcome", "dice", "nsd", "hd95_mm")]
        for row in rows
    }
    assert len(lines) == len(rows)
    assert lines["linear", "3", "1", "case_2", "liver"] == ["missed", "0.0", "0.0", "400.0"]
    assert lines["linear", "3", "1", "case_3", "liver"] == ["both_empty", "", "", ""]
    assert lines["spatial", "1", "0", "case_5", CLASSES[2]] == ["scored", "0.5", "", ""]


def test_the_table_in_markdown() -> None:
    runs = replaced(comparison().runs, "linear-1-0", "case_0", Score("missed", 0.0))
    titles, rule, *rows = rows_of(report.markdown(comparison(runs=runs)))
    end = ["missed", "Δ to zero-shot", "p", "trained parameters", "fit", "predict a case"]
    assert titles == ["method", "shots", "mean Dice", *CLASSES, *end]
    assert len({len(titles), len(rule), *map(len, rows)}) == 1
    named = {(row[0], row[1]): row[2:] for row in rows}
    assert list(named) == [
        ("zero-shot", "–"),
        ("linear", "1"),
        ("spatial", "1"),
        ("linear", "3"),
        ("spatial", "3"),
    ]
    # Mean over cases adds .025; two of three classes lie .1 lower; the second fold .03 higher: sd .03 / √2.
    assert named["zero-shot", "–"] == ["0.558", "0.62", "0.53", "0.53", "0", "–", "–", "0", "–", "0.5 s"]
    spatial = ["0.773 ± 0.021", "0.84", "0.74", "0.74", "0", "+0.215", "0.031", "147", "36 s", "0.5 s"]
    assert named["spatial", "3"] == spatial
    assert named["linear", "1"][4] == "1", "missed"


def test_markdown_tells_the_test_and_the_deviations() -> None:
    text = report.markdown(comparison())
    assert "Baseline: zero-shot" in text
    assert "Wilcoxon" in text
    assert "(6 cases)" in text
    assert "impossible" not in text
    assert "* Features are blended &lt;once> & not per window." in text


@pytest.mark.parametrize(("cases", "least"), [(5, "0.0625"), (3, "0.25")])
def test_too_few_cases_to_be_significant(cases: int, least: str) -> None:
    runs = tuple(
        dataclasses.replace(r, scores={c: r.scores[c] for c in CASES[:cases]}) for r in comparison().runs
    )
    folds = tuple(Fold(fold.support, CASES[:cases]) for fold in FOLDS)
    text = report.markdown(comparison(runs=runs, folds=folds))
    assert f"only {cases} test cases, p < .05 is impossible: p cannot be below {least}." in text
    assert "too few to tell it from chance" in headline(
        comparison(runs=runs, folds=folds), find(comparison(runs=runs))
    )


def test_the_headline_says_the_best_at_most_shots() -> None:
    whole = comparison()
    assert headline(whole, find(whole)) == (
        "With 3 labelled scans, spatial reached a mean Dice of 0.773 ± 0.021 on 6 test cases: 0.215 above zero-shot "
        "(p = 0.031)."
    )


def test_the_headline_admits_that_training_did_not_help() -> None:
    few = comparison(runs=tuple(r for r in comparison().runs if r.shots < 3))
    said = headline(few, find(few))
    assert said.startswith("With 1 labelled scan, spatial reached")
    assert "below zero-shot" in said
    assert said.endswith("zero-shot, which needs no labels, did better: 0.558.")


def test_the_headline_where_the_baseline_wins() -> None:
    whole = comparison(baseline="spatial")
    assert "spatial is the baseline, and no other method did better" in headline(whole, find(whole))


def test_only_untrained_methods() -> None:
    whole = comparison(runs=(run("zero-shot", 0, 0, 0.6),))
    assert (
        headline(whole, find(whole))
        == "Without training, zero-shot reached a mean Dice of 0.558 on 6 test cases."
    )
    page = report.html_page(whole)
    assert "Learning curves" not in page
    assert "Nothing is tested" in page


def test_what_cannot_be_compared_does_not_count_as_few_cases() -> None:
    text = report.markdown(comparison(baseline="linear"))
    assert "(6 cases)" in text
    assert "impossible" not in text, "zero-shot has no linear of 0 shots to stand beside"


def test_missing_folds_are_told() -> None:
    whole = comparison()
    assert gaps(whole, find(whole)) == [], "zero-shot runs once for the same test cases"
    less = comparison(runs=tuple(r for r in whole.runs if r.name != "spatial-3-1"))
    sentence = "spatial at 3 shots: 1 of 2 folds; the others failed or were not run."
    assert gaps(less, find(less)) == [sentence]
    assert sentence in report.markdown(less)
    assert sentence in report.html_page(less)


def test_no_runs() -> None:
    with pytest.raises(TaskError, match="no runs"):
        report.markdown(comparison(runs=()))


def test_surfaces_appear_where_they_were_scored() -> None:
    whole = comparison()
    assert "HD95" not in report.markdown(whole)
    one = Score("scored", 0.5, 0.8, 4.0), Score("missed", 0.0, 0.0, 100.0), Score("scored", 0.5, 0.6, 2.0)
    scores = {"a": {"x": one[0], "y": one[2]}, "b": {"x": one[1], "y": Score("both_empty")}}
    scored = dataclasses.replace(whole.runs[0], scores=scores)
    assert surface_means([scored]) == pytest.approx(((0.4 + 0.6) / 2, (52 + 2) / 2))
    text = report.markdown(comparison(runs=(scored, *whole.runs[1:])))
    titles, _, first, second, *_ = rows_of(text)
    column = titles.index("NSD")
    assert titles[column + 1] == "HD95 mm"
    assert first[column : column + 2] == ["0.500", "27.0"]
    assert second[column : column + 2] == ["–", "–"]


@pytest.fixture(scope="module")
def page() -> str:
    """Return a page with a picture."""
    picture = report.CasePicture("best", 'a"<b>', 0.9, "spatial, 3 shots, fold 0", "the scan", b"\x89PNG")
    return report.html_page(comparison(), [picture])


def test_the_page_says_everything(page: str) -> None:
    parsed = Page(page)
    assert not parsed.open
    told = [*CLASSES, "zero-shot", "linear", "spatial", DEVIATION, "A & B", "fine, coarse", "7, 8", "own"]
    told += [
        "0.773 ± 0.021",
        "+0.215",
        "0.031",
        "s2, s3, s1",
        *CASES,
        "Wilcoxon",
        'Best case: a"<b>, Dice 0.900',
    ]
    missing = [text for text in told if " ".join(text.split()) not in parsed.text]
    assert missing == []
    assert {"title", "h1", "details"} <= {tag for tag, _ in parsed.tags}


def test_the_page_stands_alone(page: str) -> None:
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "link" not in {tag for tag, _ in parsed.tags}
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
        assert not any(name.startswith("on") for name in attributes)


def test_charts_are_told_to_those_who_do_not_see_them(page: str) -> None:
    tags = Page(page).tags
    charts = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(charts) == 3
    assert all(chart["role"] == "img" for chart in charts)
    assert "spatial 0.523 at 1, 0.773 at 3" in str(charts[0]["aria-label"])
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {str(a["href"])[1:] for tag, a in tags if tag == "use"} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)


def test_a_method_has_one_colour_everywhere(page: str) -> None:
    legend = dict(re.findall(r'--hue:(#\w+)" aria-hidden="true"></span>([\w-]+)', page)[::-1])
    assert len(legend) == 3
    assert all(page.count(colour.lower()) + page.count(colour) > 3 for colour in legend)


def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        report.write_html(comparison(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "no" / "a.html", tmp_path / "there"):
        with pytest.raises(FeatcacheError, match="cannot be written") as caught:
            report.write_html(comparison(), path)
        assert caught.value.path == path
        with pytest.raises(FeatcacheError, match="cannot be written"):
            report.write_csv(comparison(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"], "nothing half-written is left"
