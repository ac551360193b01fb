"""The papers' tables: complete, as printed, and adding up where the papers do."""

import importlib

import pytest

from omniq_verl.evaluation.papers import Misprint, PaperTable, list_tables, load_table
from omniq_verl.preparation.cli import DataSet

SHAPES = {  # rows, columns
    "omniquality_r:1": (11, 7),
    "omniquality_r:2": (15, 5),
    "omniquality_r:3": (8, 3),
    "omniquality_r:4": (6, 6),
    "omniquality_r:5": (6, 7),
    "omniquality_r:6": (3, 3),
    "omniquality_r:7": (3, 3),
    "omniquality_r:8": (3, 3),
    "q_insight:2": (13, 8),
    "q_insight:3": (2, 6),
    "q_insight:4": (2, 8),
    "q_insight:5": (2, 6),
    "rali:1": (2, 4),
    "rali:2": (12, 8),
    "rali:3": (5, 10),
    "rali:4": (6, 1),
    "rali:5": (3, 4),
    "rali:A.1": (3, 8),
    "rali:A.2": (6, 9),
    "rali:A.3": (2, 9),
    "rali:A.5": (10, 1),
    "rali:A.6": (2, 8),
}
AVERAGED = [name for name in SHAPES if any(column.mean_of for column in load_table(name).columns)]


def cells(name: str, method: str, group: str | None = None) -> dict[str, tuple[float | None, ...] | None]:
    """The cells of one method by the name of their column."""
    table = load_table(name)
    (row,) = [row for row in table.rows if row.method == method and group in (None, row.group)]
    return dict(zip((column.name for column in table.columns), row.values, strict=True))


def averages_that_do_not_add_up(table: PaperTable) -> list[Misprint]:
    """Those further from the mean than both being rounded explains: half a unit of the last decimal each."""
    found, names = [], [column.name for column in table.columns]
    for column in table.columns:
        for row in table.rows:
            printed = row.values[names.index(column.name)]
            parts = [row.values[names.index(name)] for name in column.mean_of]
            for ref, metric in enumerate(table.metrics if parts and printed else ()):
                known = [part[ref] for part in parts if part[ref] is not None]
                mean = sum(known) / len(known)
                if abs(mean - printed[ref]) > 10**-table.decimals + 1e-9:
                    rounded = round(mean, table.decimals + 1)
                    found.append(Misprint(row.method, row.group, column.name, metric, printed[ref], rounded))
    return found


def without_group(misprint: Misprint) -> tuple:
    return misprint.method, misprint.column, misprint.metric, misprint.printed, misprint.mean


def test_every_results_table_is_there():
    assert sorted(list_tables()) == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_has_its_rows_and_columns(name):
    table = load_table(name)
    assert (len(table.rows), len(table.columns)) == SHAPES[name]
    assert {len(row.values) for row in table.rows} == {len(table.columns)}
    assert {len(cell) for row in table.rows for cell in row.values if cell is not None} == {len(table.metrics)}
    assert len({column.name for column in table.columns}) == len(table.columns)
    assert len({(row.group, row.method) for row in table.rows}) == len(table.rows)
    assert table.name == name and table.title and table.source and table.caption.isascii()


@pytest.mark.parametrize("name", SHAPES)
def test_numbers_have_the_decimals_that_are_printed(name):
    table = load_table(name)
    numbers = [value for row in table.rows for cell in row.values for value in cell or () if value is not None]
    assert all(round(number, table.decimals) == number for number in numbers)
    if name != "omniquality_r:7":  # scores from 1 to 5
        assert all(0 <= number <= 1 for number in numbers)


@pytest.mark.parametrize("name", AVERAGED)
def test_averages_add_up_but_for_the_misprints(name):
    table = load_table(name)
    found = averages_that_do_not_add_up(table)
    assert [without_group(one) for one in found] == [without_group(one) for one in table.misprints]


def test_every_column_that_is_called_an_average_is_one_of_named_columns():
    single = ("rali:4", "rali:A.5")  # averages of table 2's columns, which these tables do not have
    for name in SHAPES:
        for column in load_table(name).columns:
            called = column.name.startswith(("AVG", "Average", "Overall"))
            assert bool(column.mean_of) == (called and name not in single), (name, column)


@pytest.mark.parametrize("name", SHAPES)
def test_columns_name_what_data_prep_writes(name):
    for column in load_table(name).columns:
        if column.data_source is None:
            assert column.task is None
            continue
        module = importlib.import_module(f"data_prep.{column.data_source}")
        (spec,) = [thing for thing in vars(module).values() if isinstance(thing, DataSet)]
        assert spec.name == column.data_source
        assert column.task in spec.tasks


def test_the_numbers_recipes_are_measured_against():
    ours = cells("omniquality_r:1", "OmniQuality-R (ours)")
    assert ours["KonIQ"] == (0.941, 0.927)
    assert ours["AGIQA3k"] == (0.823, 0.758)
    assert cells("q_insight:2", "Q-Insight (ours)")["CSIQ"] == (0.870, 0.824)
    assert cells("q_insight:3", "AgenticIR")["Null"] == (0.9339, None)
    assert cells("omniquality_r:8", "sigma 0.8")["AVA"] == (0.763, 0.760)
    assert cells("omniquality_r:7", "Q-Align select")["Q-Insight"] == (4.165, 0.198)
    assert cells("rali:2", "RALI (ours)")["AVG."] == (0.798, 0.779)
    assert cells("rali:A.2", "RACT (ours)", "trained on KonIQ, SPAQ, KADID, PIPAL")["TID"] is None


def test_what_omniquality_r_prints_twice_is_the_same():
    final = cells("omniquality_r:4", "+ Entro. + STD", "Stage 2 (from GRPO+GR)")
    elsewhere = {
        **{f"{column}": cells("omniquality_r:1", "OmniQuality-R (ours)")[column] for column in ("KonIQ", "KADID")},
        "EvalMuse-50k": cells("omniquality_r:2", "OmniQuality-R (ours)")["EvalMuse-40K"],
        "EvalMi-50k": cells("omniquality_r:2", "OmniQuality-R (ours)")["EvalMi-50K"],
        **{column: cells("omniquality_r:3", "OmniQuality-R (ours)")[column] for column in ("AVA", "TAD66k")},
    }
    assert final == elsewhere
    first = cells("omniquality_r:4", "GRPO+GR", "Stage 1")
    for again in (cells("omniquality_r:6", "Rej. Tuning + GPRO with GR"), cells("omniquality_r:8", "sigma 0.8")):
        assert again == {column: first[column] for column in again}


def test_what_q_insight_prints_twice_is_the_same():
    assert cells("q_insight:4", "Q-Insight (ours), joint training") == cells("q_insight:2", "Q-Insight (ours)")
    assert cells("q_insight:5", "Q-Insight (ours), joint training") == cells("q_insight:3", "Q-Insight (ours)")


def test_what_rali_prints_twice_is_the_same():
    assert cells("rali:A.6", "RALI (ours)") == cells("rali:2", "RALI (ours)")
    assert cells("rali:2", "Q-Insight") == cells("q_insight:2", "Q-Insight (ours)")
    assert cells("rali:A.1", "Qwen-GRPO (w/ Reasoning, Q-Insight)") == cells("rali:2", "Q-Insight")
    best = cells("rali:2", "RALI (ours)")["AVG."]
    assert cells("rali:4", "case 6: all parts")["AVG."] == best
    assert cells("rali:A.5", "case 8: PCA 512, 250 vectors, 240 buckets, score definition")["AVG."] == best


@pytest.mark.parametrize("name", ["omniquality_r:9", "omniquality_r", "", "rali:a.1"])
def test_a_table_that_does_not_exist_is_rejected_by_naming_those_that_do(name):
    with pytest.raises(ValueError, match=r"omniquality_r:1, .*q_insight:2, .*rali:A\.6") as rejected:
        load_table(name)
    assert repr(name) in str(rejected.value)


def test_a_misprint_reads_as_a_sentence():
    (misprint,) = load_table("q_insight:2").misprints
    assert str(misprint) == "AVG. plcc of Q-Align is printed as 0.705; the row's mean is 0.7429"
