# One image for every Vigil service; the command names the service.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.12-slim-bookworm
COPY --from=build /dist/*.whl /tmp/
RUN pip install --no-cache-dir /tmp/*.whl && rm /tmp/*.whl \
    && useradd --system --uid 10001 --home-dir /var/lib/vigil --create-home vigil
USER vigil
VOLUME /var/lib/vigil
ENTRYPOINT ["vigil"]
CMD ["--help"]
