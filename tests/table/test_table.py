"""The table of the card: hand-made runs and results, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from commands import Run
from sparsebert.errors import DataError, OutputError
from sparsebert.table import Table, read_runs
from sparsebert.table.formats import as_card, write
from sparsebert.table.layout import as_markdown, tables
from table_runs import accuracy, add_model, pearson, result, table_of, write_document


def cells(markdown: str, row: str) -> list[list[str]]:
    """The cells of all lines that begin with ``row``."""
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {row} |")]
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]


class TestNumbers:
    def test_share_of_dense_kept(self, runs: Path) -> None:
        table = table_of(runs)
        columns = {column.run: column for column in table.columns()}
        # Pearson 72 of 80, Spearman 40 of 50.
        assert table.share("oneshot", columns["stsb"]) == pytest.approx((90 + 80) / 2)
        # Pearson 79.5 of 80, Spearman 50 of 50; RTE 57 of 60.
        best = (100 * 79.5 / 80 + 100) / 2
        assert table.share("best", columns["stsb"]) == pytest.approx(best)
        assert table.mean_share("best") == (pytest.approx((best + 95) / 2), 2)
        assert table.seed_shares("best", columns["stsb"]) == pytest.approx(
            [100, (100 * 79 / 80 + 100) / 2]
        )
        assert table.share("oneshot", columns["rte"]) is None
        assert table.share("dense", columns["stsb"]) == 100

    def test_markdown(self, runs: Path) -> None:
        text = as_markdown(table_of(runs))
        assert text.splitlines()[0] == (
            "|  | MNLI-m/mm, accuracy | STS-B, Pearson/Spearman | RTE, accuracy |"
        )
        # Deviations by hand: of 79 and 81 sqrt(2), of 80 and 79 sqrt(1/2).
        assert (round(math.sqrt(2), 1), round(math.sqrt(0.5), 1)) == (1.4, 0.7)
        (dense,) = cells(text, "dense")
        assert dense == ["70.0 / 72.0 (1)", "80.0 ± 1.4 / 50.0 ± 0.0 (2)", "60.0 (1)"]
        scores, shares = cells(text, "1:2 + distillation")
        assert scores == ["", "79.5 ± 0.7 / 50.0 ± 0.0 (2)", "57.0 (1)"]
        assert shares == ["", "99.7 ~", "95.0", "97.34 (of 2)"]
        assert cells(text, "1:2")[1] == ["", "85.0", "", "85.00 (of 1)"]
        assert "- RTE, 1:2 + distillation: trained on 90 rows, but dense on 100: not" in text
        assert "MNLI-m/mm 100, STS-B 100, RTE 100/90" in text

    def test_int8_is_what_was_scored_after_packing(self, runs: Path) -> None:
        (found,) = [
            each
            for each in table_of(runs).results
            if each.row == "best-int8" and each.metric == "pearson"
        ]
        assert found.seeds == (79.0, 78.0)
        assert found.train_rows == 100

    def test_compared_with_dense_of_the_same_seeds(self, runs: Path) -> None:
        before = {row: table_of(runs).mean_share(row) for row in ("oneshot", "best")}
        add_model(runs / "dense/stsb/seed-4", "stsb", pearson(20, 10), seed=4)
        table = table_of(runs)
        assert {row: table.mean_share(row) for row in before} == before
        assert not [each for each in table.warnings() if "STS-B" in each]
        # Beside seeds 1 and 2, while all three tell how far seeds differ: 35 and 23 points.
        assert cells(as_markdown(table), "1:2")[1][1] == "85.0 ~"

    def test_seeds_that_dense_lacks_are_told(self, runs: Path) -> None:
        add_model(runs / "oneshot/stsb/seed-4", "stsb", pearson(60, 40), seed=4)
        table = table_of(runs)
        assert "STS-B, 1:2: seeds 1, 2, 4, but dense has 1, 2." in table.warnings()
        (stsb,) = (column for column in table.columns() if column.run == "stsb")
        assert table.share("oneshot", stsb) == pytest.approx((100 * 68 / 80 + 80) / 2)

    def test_without_dense_there_is_no_share(self) -> None:
        text = as_markdown(Table([result(row="best")]))
        assert "no row dense" in text
        assert "Share of dense kept" not in text

    def test_no_share_of_nothing(self) -> None:
        table = Table([result(seeds=(0.0,)), result(row="best")])
        assert table.share("best", table.columns()[0]) is None

    def test_variants_stand_beside_their_task_and_are_not_averaged(self) -> None:
        table = Table(
            [
                result(task="sst2", seeds=(90.0,)),
                result(task="sst2", run="sst2-full", seeds=(92.0,)),
                result(task="sst2", row="best", seeds=(81.0,)),
                result(task="sst2", run="sst2-full", row="best", seeds=(92.0,)),
            ]
        )
        assert [column.title for column in table.columns()] == ["SST-2", "SST-2 (full)"]
        assert table.mean_share("best") == (pytest.approx(90), 1)
        assert "SST-2 (full) is not counted in the mean" in as_markdown(table)

    def test_rows_and_tasks_of_ones_own(self) -> None:
        table = Table(
            [
                result(row="wanda", task="custom"),
                result(row="best-int8", task="rte"),
                result(row="a", task="rte"),
            ]
        )
        assert table.rows() == ["best-int8", "a", "wanda"]
        assert [column.task for column in table.columns()] == ["rte", "custom"]

    def test_shares_of_ones_own_tasks(self) -> None:
        own = [
            result(task="custom", run=run, row=row, seeds=(seed,))
            for row, seed in (("dense", 80.0), ("best", 76.0))
            for run in ("reviews", "tickets")
        ]
        table = Table(own)
        assert [column.title for column in table.columns()] == ["reviews", "tickets"]
        assert table.mean_share("best") == (pytest.approx(95), 2)
        assert cells(as_markdown(table), "1:2 + distillation")[1] == [
            "95.0",
            "95.0",
            "95.00 (of 2)",
        ]

    def test_a_variant_alone_has_shares_and_no_mean(self) -> None:
        pair = [
            result(task="sst2", run="sst2-full", row=row, seeds=(seed,))
            for row, seed in (("dense", 80.0), ("best", 76.0))
        ]
        table = Table(pair)
        assert table.compared_rows() == ["best"]
        assert table.mean_share("best") is None
        assert cells(as_markdown(table), "1:2 + distillation")[1] == ["95.0", ""]


class TestModels:
    def test_each_model_has_its_own_dense(self) -> None:
        small, base = tables(
            [
                result(model="small", seeds=(50.0,)),
                result(model="base", seeds=(80.0,)),
                result(model="small", row="best", seeds=(25.0,)),
                result(model="base", row="best", seeds=(60.0,)),
            ]
        )
        assert [small.model, base.model] == ["small", "base"]
        assert small.mean_share("best") == (50, 1)
        assert base.mean_share("best") == (75, 1)
        with pytest.raises(DataError, match="a table can only hold one model, not a and b"):
            Table([result(model="a"), result(model="b", row="best")])

    def test_named_by_the_lineage(self, tmp_path: Path) -> None:
        add_model(tmp_path / "dense/rte", "rte", accuracy(60))
        (found,) = read_runs(tmp_path)[0]
        assert found.model == "dense"  # from org/dense

    def test_written_below_each_other(self, tmp_path: Path, run: Run) -> None:
        rows = [result(model=model, row=row) for model in ("a", "b") for row in ("dense", "best")]
        lines = [row.as_dict() for row in rows]
        write_document(tmp_path / "results.json", lines)
        code, out, _ = run("table", tmp_path / "results.json")
        assert code == 0
        assert [line for line in out.splitlines() if line.startswith("#")] == ["## a", "## b"]
        code, out, _ = run("table", tmp_path / "results.json", "--json")
        assert json.loads(out) == lines
        code, out, _ = run("table", tmp_path / "results.json", "--model", "b", "--json")
        assert json.loads(out) == lines[2:]
        code, _, told = run("table", tmp_path / "results.json", "--model", "c")
        assert code == 1
        assert told == "error: there are no results for the model 'c', only for a, b.\n"
        code, _, told = run("table", tmp_path / "results.json", "--format", "card")
        assert code == 1
        assert "a card is for one model, not a, b: choose one with --model." in told

    def test_drawn_below_each_other(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        found = [
            Table([result(model=model), result(model=model, row="best")]) for model in ("a", "b")
        ]
        panels = shares_figure(found).axes
        assert [panel.get_title(loc="left") for panel in panels] == ["a", "b"]


class TestCard:
    def test_the_hub_reads_the_scores_of_one_row(self, runs: Path) -> None:
        card = ModelCard(as_card(table_of(runs)), ignore_metadata_errors=False)
        assert card.data.model_name == "1:2 int8"
        found = {each.metric_type: each for each in card.data.eval_results or []}
        assert set(found) == {"pearsonr", "spearmanr"}
        assert found["pearsonr"].metric_value == 78.5
        assert found["pearsonr"].dataset_type == "nyu-mll/glue"
        assert found["pearsonr"].metric_name == "Pearson, percent, mean of 2 seeds, deviation 0.71"
        assert "| 1:2 int8 | " in card.content

    def test_both_halves_of_mnli(self, runs: Path) -> None:
        card = ModelCard(as_card(table_of(runs), "dense"), ignore_metadata_errors=False)
        found = [
            (each.dataset_split, each.metric_value)
            for each in card.data.eval_results or []
            if each.dataset_config == "mnli"
        ]
        assert found == [("validation_matched", 70.0), ("validation_mismatched", 72.0)]

    def test_questions(self) -> None:
        table = Table([result(task="squad", metric="exact_match", seeds=(60.0,))])
        (found,) = ModelCard(as_card(table)).data.eval_results
        assert (found.task_type, found.dataset_type) == ("question-answering", "rajpurkar/squad")
        assert found.metric_name == "exact match, percent, mean of 1 seed"

    def test_ones_own_data_has_no_name_on_the_hub(self) -> None:
        card = ModelCard(as_card(Table([result(task="custom")])))
        assert card.data.eval_results is None

    def test_a_row_that_is_not_there(self, runs: Path) -> None:
        with pytest.raises(DataError, match="no row 'wanda': the rows are dense, oneshot"):
            as_card(table_of(runs), "wanda")


class TestCommand:
    def test_markdown_and_notes(self, runs: Path, run: Run) -> None:
        add_model(runs / "dense/stsb/seed-3", "stsb", {}, seed=3)
        code, told, notes = run("table", runs)
        assert code == 0
        assert told.startswith("|  | MNLI-m/mm, accuracy | ")
        assert notes == "note: dense, stsb: no scores yet for seed 3.\n"

    def test_json_is_the_list(self, runs: Path, run: Run, tmp_path: Path) -> None:
        code, told, _ = run("table", runs, "--json", "--out", tmp_path / "results.json")
        assert (code, told) == (0, "")
        found = json.loads((tmp_path / "results.json").read_text())
        assert found[0]["task"] == "mnli"
        code, told, _ = run("table", tmp_path / "results.json", "--json")
        assert json.loads(told) == found

    def test_some_rows_alone(self, runs: Path, run: Run) -> None:
        code, told, _ = run("table", runs, "--rows", "best-int8,oneshot")
        assert code == 0
        rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")]
        assert [row for row in rows if row not in ("", "---")] == [
            *("dense", "1:2", "1:2 int8"),
            *("1:2", "1:2 int8"),
        ]
        code, _, told = run("table", runs, "--rows", "best,wanda")
        assert code == 1
        assert "there is no row 'wanda': the rows are best, best-int8, dense, oneshot." in told

    def test_wrong_use(self, runs: Path, run: Run, tmp_path: Path) -> None:
        assert run("table", runs, "--format", "html")[0] == 2
        assert run("table", runs, "--row", "best")[0] == 2
        code, _, told = run("table", tmp_path / "absent")
        assert code == 1
        assert told.startswith("error: ")
        (tmp_path / "results.json").write_text("[]")
        for rows in ((), ("--rows", "best")):
            code, _, told = run("table", tmp_path / "results.json", *rows)
            assert code == 1
            assert told.startswith("error: there are no results in ")

    def test_a_file_that_cannot_be_written(self, runs: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="could not be written"):
            write(runs, out=tmp_path / "no/such/folder/table.md")
