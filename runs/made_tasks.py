"""Make the data of runs/tasks.sh from SQuAD and templates.

    python runs/made_tasks.py SQUAD OUT        SQUAD: a folder with SQuAD's two Parquet files

OUT/ner      CoNLL files: sentences from templates with persons, places, organisations and dates. No
             surname, place or organisation of the validation rows occurs in a training row.
OUT/topics   several labels per row: one to three sentences, each from another of twelve articles,
             and the titles of these. Training and validation rows use different paragraphs.
OUT/squad-v2 rows like those of SQuAD v2: every third question is asked about another paragraph of
             its article that does not contain the answer, if there is such a paragraph.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

Row = dict[str, Any]

FIRST = """
Anna Boris Clara David Elena Farid Grace Hugo Irene Jonas Karim Lucia Marta Nadia Omar Petra
""".strip().split()
SURNAMES = """
Adler Becker Castillo Dvorak Eriksen Fontaine Grigoriev Hamilton Ivanova Jansen Kowalski
Lindqvist Moreau Nakamura Okafor Petrov Quispe Rossi Schneider Takahashi Ulrich Vasquez
Whitfield Yilmaz Zimmermann Abbott Bianchi Carver Delgado Engel Fischer Gallagher Horvath
Iversen Kaplan Laurent
""".strip().split()
PLACES = (
    """
Lisbon; Oslo; Buenos Aires; Cairo; New Delhi; Prague; Nairobi; Seoul; Cape Town; Vienna; Lima;
Toronto; Kyoto; San Francisco; Marseille; Tallinn; Porto Alegre; Glasgow; Hanoi; Montevideo;
Krakow; Accra; Salt Lake City; Bergen; Zagreb; Quito; Adelaide; St. Petersburg; Leipzig; Dakar
""".strip()
    .replace("\n", " ")
    .split("; ")
)
ORGANISATIONS = (
    """
Northwind Energy; Acme Robotics; Institute of Polar Research; Banco del Sur; Helios; Green
Valley Dairy; Orion Shipping Ltd.; University of Hallstadt; Red Lantern Films; Kestrel
Airlines; Ministry of Transport; Blue Harbour Capital; Vertex; Meridian Press; Sundial
Software; Grand Canal Hotels; Union of Teachers; Silverline Railways; Atlas Mining; Lumen
Pharma
""".strip()
    .replace("\n", " ")
    .split("; ")
)
MONTHS = ["January", "March", "May", "July", "September", "November"]
TEMPLATES = """{PER} was appointed head of {ORG} on {DATE} .
On {DATE} , {PER} left {LOC} for {LOC} .
{ORG} will open an office in {LOC} , said {PER} .
Shares of {ORG} fell after {PER} resigned in {LOC} .
The mayor of {LOC} , {PER} , met workers of {ORG} .
{PER} and {PER} founded {ORG} in {LOC} .
A strike at {ORG} ended on {DATE} .
Rain is expected in {LOC} and {LOC} tomorrow .
Nobody at {ORG} wanted to comment .
" We are moving to {LOC} , " {PER} wrote on {DATE} .
According to {ORG} , sales in {LOC} have doubled since {DATE} .
The talks were held behind closed doors .
{PER} , who was born in {LOC} , joined {ORG} last year .
The film by {PER} is shown in May , not in {LOC} .""".splitlines()


def sentences(count: int, names: dict[str, list[str]], random: np.random.RandomState) -> str:
    """``count`` sentences as the text of a CoNLL file."""
    found = []
    for _ in range(count):
        lines = []
        for word in TEMPLATES[random.randint(len(TEMPLATES))].split():
            kind = word.strip("{}")
            if kind == word:
                lines.append(f"{word} O")
                continue
            name = names[kind][random.randint(len(names[kind]))]
            if kind == "PER" and random.randint(3):
                name = f"{FIRST[random.randint(len(FIRST))]} {name}"
            if kind == "DATE":
                name = f"{random.randint(1, 29)} {name} {random.randint(1950, 2026)}"
            for place, part in enumerate(name.split()):
                lines.append(f"{part} {'I' if place else 'B'}-{kind}")
        found.append("\n".join(lines))
    return "\n\n".join(found) + "\n"


def write_ner(out: Path) -> None:
    random = np.random.RandomState(1)
    lists = {"PER": SURNAMES, "LOC": PLACES, "ORG": ORGANISATIONS, "DATE": MONTHS}
    shuffled = {kind: list(random.permutation(names)) for kind, names in lists.items()}
    parts = {
        split: {
            kind: names
            if kind == "DATE"
            else [n for i, n in enumerate(names) if (i % 3 == 0) == held]
            for kind, names in shuffled.items()
        }
        for split, held in (("train", False), ("validation", True))
    }
    out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 2000), ("validation", 600)):
        (out / f"{split}.conll").write_text(
            sentences(count, parts[split], random), encoding="utf-8"
        )


def write_topics(out: Path, rows: list[Row]) -> None:
    random = np.random.RandomState(2)
    titles = [title for title, _ in Counter(row["title"] for row in rows).most_common(12)]
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}}
    for title in titles:
        paragraphs = list(dict.fromkeys(row["context"] for row in rows if row["title"] == title))
        cut = len(paragraphs) * 3 // 4
        for split, chosen in (("train", paragraphs[:cut]), ("validation", paragraphs[cut:])):
            parts[split][title] = [
                sentence.strip(" .") + "."
                for paragraph in chosen
                for sentence in paragraph.split(". ")
                if 30 < len(sentence) < 200
            ]
    for split, count in (("train", 3000), ("validation", 800)):
        made = []
        for _ in range(count):
            some = random.permutation(titles)[: random.randint(1, 4)].tolist()
            texts = [
                parts[split][title][random.randint(len(parts[split][title]))] for title in some
            ]
            made.append({"text": " ".join(texts), "label": sorted(some)})
        write_rows(out / f"{split}.jsonl", made)


def write_squad_v2(out: Path, splits: dict[str, list[Row]]) -> None:
    random = np.random.RandomState(3)
    for split, count in (("train", 6000), ("validation", 1500)):
        rows = splits[split]
        paragraphs: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row["context"] not in paragraphs[row["title"]]:
                paragraphs[row["title"]].append(row["context"])
        made = []
        for number, index in enumerate(random.permutation(len(rows))[:count].tolist()):
            row = dict(rows[index])
            others = [
                text
                for text in paragraphs[row["title"]]
                if not any(answer.lower() in text.lower() for answer in row["answers"]["text"])
            ]
            if number % 3 == 0 and others:
                row["context"] = others[random.randint(len(others))]
                row["answers"] = {"text": [], "answer_start": []}
            made.append(row)
        write_rows(out / f"{split}.jsonl", made)


def write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(squad: str, out: str) -> None:
    splits = {
        split: pyarrow.parquet.ParquetFile(Path(squad) / f"{split}.parquet").read().to_pylist()
        for split in ("train", "validation")
    }
    write_ner(Path(out) / "ner")
    write_topics(Path(out) / "topics", splits["train"])
    write_squad_v2(Path(out) / "squad-v2", splits)


if __name__ == "__main__":
    main(*sys.argv[1:])
