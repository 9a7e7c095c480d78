# A server of one packed model, without torch: two stages, so that no compiler travels with it.
#
#     docker build -t sparsebert .
#     docker run -p 8080:8080 -v "$PWD/packed:/model:ro" sparsebert

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --wheel-dir /wheels '/source[serve]'

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'sparsebert[serve]' \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sparsebert
USER 10001
ENV SPARSEBERT_HOST=0.0.0.0 SPARSEBERT_PORT=8080 SPARSEBERT_MODELS=/model SPARSEBERT_SHUTDOWN_DELAY=5
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health')"]
ENTRYPOINT ["sparsebert", "serve"]
