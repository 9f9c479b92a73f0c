# One image for every Vigil service; the command names the service.
# With --build-arg EXTRA=edge, a small one that runs `vigil edge` (and check, probe) and nothing else.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.12-slim-bookworm
ARG EXTRA=line
COPY --from=build /dist/*.whl /tmp/
RUN pip install --no-cache-dir "$(echo /tmp/*.whl)[$EXTRA]" && rm /tmp/*.whl \
    && useradd --system --uid 10001 --home-dir /var/lib/vigil --create-home vigil
USER vigil
VOLUME /var/lib/vigil
ENTRYPOINT ["vigil"]
CMD ["--help"]
