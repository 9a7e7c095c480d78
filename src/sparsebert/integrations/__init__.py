"""Our engine under other libraries' interfaces: one file a library, which must be installed.

| file | for users of |
|---|---|
| `transformers` | ``transformers.pipeline`` |
| `sentence_transformers` | ``SentenceTransformer`` and ``CrossEncoder`` |
| `langchain` | LangChain's ``Embeddings`` and document compressors |
| `llama_index` | LlamaIndex's ``BaseEmbedding`` and node postprocessors |
"""
