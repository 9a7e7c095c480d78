"""A Router of sentence-transformers: its default route, and those of queries and documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedding_folders import colbert, splade
from embedding_folders import inference_free as make_folder
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.tokenizing import TruncationWarning

theirs = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")

TEXTS = [*SENTENCES[:6], "a"]
QUERIES = [*TEXTS, "", "\u2603 unknown", "harbour Harbour"]


def inference_free(folder: Path, base: Path, default: str, **settings: Any) -> Any:
    make_folder(folder, base, default, **settings)
    return theirs.SparseEncoder(str(folder), device="cpu")


def agrees(found: Any, expected: Any) -> None:
    for each, row in zip(found, expected, strict=True):
        weights = row.to_dense().numpy()
        assert each.indices.tolist() == np.flatnonzero(weights).tolist()
        assert np.abs(each.values - weights[each.indices]).max(initial=0) < 2e-5


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        ({"classification": "ask the "}, "classification"),
        ({"query": "", "document": "read "}, "document"),
        ({"query": "ask the "}, "query"),
    ],
    ids=str,
)
def test_a_task_has_its_own_prompt_or_none(
    tiny_bert: Any, tmp_path: Path, prompts: dict[str, str], named: str
) -> None:
    """Never the default one, not even where its own is empty."""
    splade(tmp_path / "splade", tiny_bert("masked-lm"))
    colbert(tmp_path / "colbert", tiny_bert())
    for name in ("splade", "colbert"):
        file = tmp_path / name / "config_sentence_transformers.json"
        known = {**json.loads(file.read_text()), "prompts": prompts, "default_prompt_name": named}
        file.write_text(json.dumps(known))
    model = load(tmp_path / "splade")
    expected = theirs.SparseEncoder(str(tmp_path / "splade"), device="cpu")
    agrees(model.embed_sparse(TEXTS), expected.encode(TEXTS))
    agrees(model.embed_sparse(TEXTS, task="query"), expected.encode_query(TEXTS))
    agrees(model.embed_sparse(TEXTS, task="document"), expected.encode_document(TEXTS))
    model = load(tmp_path / "colbert")
    expected = theirs.MultiVectorEncoder(str(tmp_path / "colbert"), device="cpu")
    texts = ["a", "noon, a ferry"]
    for task, encode in (("query", expected.encode_query), ("document", expected.encode_document)):
        for mine, other in zip(model.embed_tokens(texts, task=task), encode(texts), strict=True):
            assert np.abs(mine - np.asarray(other)).max() < 2e-5


@pytest.mark.parametrize("default", ["document", "query"])
def test_sparse_queries_and_documents(tiny_bert: Any, tmp_path: Path, default: str) -> None:
    base = tiny_bert("masked-lm")
    prompts = {"query": "ask the ", "document": "read "}
    expected = inference_free(tmp_path / "st", base, default, prompts=prompts, max_active_dims=9)
    model = load(tmp_path / "st")
    agrees(model.embed_sparse(QUERIES, task="query"), expected.encode_query(QUERIES))
    agrees(model.embed_sparse(TEXTS, task="document"), expected.encode_document(TEXTS))
    agrees(model.embed_sparse(TEXTS), expected.encode(TEXTS))
    one = model.embed_sparse(TEXTS[0], task="query", prompt="")
    agrees([one], [expected.encode_query(TEXTS[0], prompt="")])
    # Every step keeps both routes.
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SparseEncoder(str(tmp_path / "sparse"), device="cpu")
    packed = load(tmp_path / "packed")
    agrees(packed.embed_sparse(TEXTS, task="document"), again.encode_document(TEXTS))
    agrees(packed.embed_sparse(QUERIES, task="query"), again.encode_query(QUERIES))
    assert torch.equal(*(each.encode_query(TEXTS).to_dense() for each in (again, expected)))


def test_queries_by_a_table_alone(tiny_bert: Any, tmp_path: Path) -> None:
    """Long ones are cut, and said to be; what does not fit the table is refused."""
    expected = inference_free(tmp_path / "st", tiny_bert("masked-lm"), "document")
    model = load(tmp_path / "st")
    long = long_text(90)
    with pytest.warns(TruncationWarning, match=r"texts\[1\] is longer than 64 tokens"):
        found = model.embed_sparse(["a", long], task="query")
    agrees(found, expected.encode_query(["a", long]))
    with pytest.raises(InputError, match=r"texts\[0\] has \d+ tokens and only 64 fit"):
        model.embed_sparse([long], task="query", strict=True)
    table = expected[0].sub_modules["query"][0]
    table.tokenizer.model_max_length = 5
    short = load(tmp_path / "st", max_length=5)
    with pytest.warns(TruncationWarning, match="2 texts are longer than 5 tokens"):
        found = short.embed_sparse([SENTENCES[2], "a", long], task="query")
    agrees(found, expected.encode_query([SENTENCES[2], "a", long]))
    with pytest.raises(InputError, match="is a pair of texts"):
        model.embed_sparse([("a", "b")], task="query")
    with pytest.raises(InputError, match="task must be"):
        model.embed_sparse("a", task="passage")
    table = next((tmp_path / "st").glob("query*"))
    for change, complaint in (
        ({"path": "idf.json"}, "path is 'idf.json', a file of weights by token"),
        ({"scale": 2}, "scale is set"),
    ):
        settings = table / "config.json"
        known = json.loads(settings.read_text())
        settings.write_text(json.dumps({**known, **change}))
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st")
        settings.write_text(json.dumps(known))
    for weights, complaint in (
        (np.ones((4, 1), np.float32), "lacks the tensor 'weight', a list of weights"),
        (np.ones(4, np.float32), "gives token id .* but its table has 4 weights"),
    ):
        save_file({"weight": weights}, table / "model.safetensors")
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st").embed_sparse(TEXTS, task="query")


def test_dense_embeddings_of_a_route_without_a_transformer(tiny_bert: Any, tmp_path: Path) -> None:
    inference_free(tmp_path / "st", tiny_bert("masked-lm"), "query")
    with pytest.raises(CheckpointError, match="along the route 'query', which has no transformer"):
        load(tmp_path / "st").embed("a")


def test_the_server_and_the_command_line(
    tiny_bert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.cli import main
    from sparsebert.serving import load_models

    inference_free(tmp_path / "st", tiny_bert("masked-lm"), "document")
    model = load(tmp_path / "st")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    with serving(load_models([tmp_path / "st"], threads=1)) as url:
        for task in ("query", "document", None):
            wanted = model.embed_sparse(TEXTS, task=task)
            body = {"inputs": TEXTS, **({"task": task} if task else {})}
            found = httpx.post(f"{url}/embed_sparse", json=body).json()
            for each, other in zip(found, wanted, strict=True):
                weights = {pair["index"]: pair["value"] for pair in each}
                assert weights == pytest.approx(other.as_dict(), abs=1e-5)
            asked = ["--task", task] if task else []
            given = ["--input", str(tmp_path / "texts.txt"), *asked]
            with pytest.raises(SystemExit):
                main(["embed", str(tmp_path / "st"), *given])
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [line["indices"] for line in lines] == [each.indices.tolist() for each in wanted]
        kind = httpx.get(f"{url}/info").json()["model_type"]
        assert kind == {"embedding": {"pooling": "splade"}}
        ids = model.tokenizer.backend.encode(TEXTS[0], add_special_tokens=False).ids
        body = {"inputs": [ids], "task": "query"}
        (found,) = httpx.post(f"{url}/embed_sparse", json=body).json()
        assert [pair["index"] for pair in found] == model.embed_sparse(
            TEXTS[0], task="query"
        ).indices.tolist()
        assert (
            httpx.post(url, json={"inputs": TEXTS}).json()
            == httpx.post(f"{url}/embed_sparse", json={"inputs": TEXTS}).json()
        )
        long = [*range(5, 75)]
        for inputs, status in ((long_text(90), 413), ([[999_999]], 422), (["a", long], 413)):
            body = {"inputs": inputs, "task": "query"}
            assert httpx.post(f"{url}/embed_sparse", json=body).status_code == status
        words = model.tokenizer.backend.encode(long_text(90), add_special_tokens=False).ids
        for direction, kept in (("left", slice(-64, None)), ("right", slice(64))):
            for text in (long_text(90), words):
                body = {"inputs": [text], "task": "query", "truncate": True}
                body["truncation_direction"] = direction
                (found,) = httpx.post(f"{url}/embed_sparse", json=body).json()
                expected = httpx.post(
                    f"{url}/embed_sparse", json={"inputs": [words[kept]], "task": "query"}
                )
                assert [found] == expected.json()


def dense_router(folder: Path, base: Path, *, same: bool) -> Any:
    """An embedding model with routes for queries and documents, the ``same`` or not."""
    from sentence_transformers.base.modules import Dense, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    encoder, pooling, dense = Transformer(str(base)), Pooling(32, "mean"), Dense(32, 16)
    other = [encoder, Pooling(32, "cls"), dense]
    routes = {"query": other, "document": other if same else [encoder, pooling, dense]}
    model = theirs.SentenceTransformer(modules=[Router(routes, "document")], device="cpu")
    model.save(str(folder))
    return model


def test_dense_queries_that_take_a_route_of_their_own(tiny_bert: Any, tmp_path: Path) -> None:
    """`embed` knows no task, so whoever embeds queries would get the embeddings of documents."""
    dense_router(tmp_path / "st", tiny_bert(), same=False)
    model = load(tmp_path / "st")
    with pytest.raises(CheckpointError, match="different routes for queries and documents"):
        model.embed("a")
    assert model.hidden_states("a").shape[1] == 32


def test_token_vectors_of_queries_that_take_a_route_of_their_own(
    tiny_bert: Any, tmp_path: Path
) -> None:
    from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    encoder, tokens = Transformer(str(tiny_bert())), {"module_input_name": "token_embeddings"}
    routes = {name: [encoder, Dense(32, 12, **tokens)] for name in ("query", "document")}
    modules = [Router(routes, "document"), MultiVectorMask(), Normalize(**tokens)]
    theirs.MultiVectorEncoder(modules=modules, device="cpu").save(str(tmp_path / "st"))
    with pytest.raises(CheckpointError, match="different routes for queries and documents"):
        load(tmp_path / "st").embed_tokens("a", task="query")


def test_a_route_named_text_comes_before_the_default(tiny_bert: Any, tmp_path: Path) -> None:
    inference_free(tmp_path / "st", tiny_bert("masked-lm"), "query")
    file = tmp_path / "st" / "router_config.json"
    known = json.loads(file.read_text())
    known["structure"]["text"] = known["structure"].pop("document")
    file.write_text(json.dumps(known))
    expected, model = (
        theirs.SparseEncoder(str(tmp_path / "st"), device="cpu"),
        load(tmp_path / "st"),
    )
    agrees(model.embed_sparse(TEXTS), expected.encode(TEXTS))
    agrees(model.embed_sparse(TEXTS, task="query"), expected.encode_query(TEXTS))
    agrees(model.embed_sparse(TEXTS, task="document"), expected.encode_document(TEXTS))


def test_texts_without_a_task_may_have_no_route(tiny_bert: Any, tmp_path: Path) -> None:
    inference_free(tmp_path / "st", tiny_bert("masked-lm"), "document")
    file = tmp_path / "st" / "router_config.json"
    known = json.loads(file.read_text())
    known["parameters"].update(default_route=None, allow_empty_key=False)
    file.write_text(json.dumps(known))
    expected, model = (
        theirs.SparseEncoder(str(tmp_path / "st"), device="cpu"),
        load(tmp_path / "st"),
    )
    agrees(model.embed_sparse(TEXTS, task="query"), expected.encode_query(TEXTS))
    agrees(model.embed_sparse(TEXTS, task="document"), expected.encode_document(TEXTS))
    with pytest.raises(ValueError, match="Could not determine route"):
        expected.encode(TEXTS)
    for embed in (model.embed_sparse, model.embed):
        with pytest.raises(CheckpointError, match="texts without a task have no route"):
            embed(TEXTS)


def test_dense_routes(tiny_bert: Any, tmp_path: Path) -> None:
    model = dense_router(tmp_path / "st", tiny_bert(), same=True)
    expected = model.encode(TEXTS)
    assert np.abs(load(tmp_path / "st").embed(TEXTS) - expected).max() < 2e-5
    file = tmp_path / "st" / "router_config.json"
    known = json.loads(file.read_text())
    two = {**known["types"], "other": next(iter(known["types"].values()))}
    structure = {**known["structure"], "query": ["other"]}
    for change, complaint in (
        ({"types": []}, "must contain 'types' and the 'structure'"),
        ({"structure": {"query": ["none"]}}, "route 'query' has a module without a type"),
        ({"parameters": ["document"]}, "'parameters' must be an object"),
        ({"parameters": {"other": 1}}, "other is set"),
        ({"parameters": {"default_route": "x"}}, "default_route 'x' is not one of its routes"),
        ({"parameters": {"default_route": []}}, "default_route .* is not one of its routes"),
        ({"parameters": {"route_mappings": {"a": "query"}}}, "route by task only"),
        ({"types": two, "structure": structure}, "has 2 transformers"),
    ):
        file.write_text(json.dumps({**known, **change}))
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st")
