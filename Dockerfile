# A server of one packed model, without torch: two stages, so that no compiler travels with it. The base is
# pinned by its digest, what is installed by requirements/*.txt.
#
#     docker build -t sparsebert .
#     docker run -p 8080:8080 -v "$PWD/packed:/model:ro" --read-only --cap-drop ALL sparsebert

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY requirements/build.txt requirements/serve.txt /requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /requirements/build.txt \
    && pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels -r /requirements/serve.txt
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /source

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sparsebert
USER 10001
ENV SPARSEBERT_HOST=0.0.0.0 SPARSEBERT_PORT=8080 SPARSEBERT_MODELS=/model SPARSEBERT_SHUTDOWN_DELAY=5
EXPOSE 8080
# By http.client, which heeds no proxy that the environment names.
HEALTHCHECK CMD ["python", "-c", "import http.client, os; \
    asked = http.client.HTTPConnection('127.0.0.1', int(os.environ['SPARSEBERT_PORT']), timeout=10); \
    asked.request('GET', '/health'); raise SystemExit(asked.getresponse().status != 200)"]
ENTRYPOINT ["sparsebert", "serve"]
