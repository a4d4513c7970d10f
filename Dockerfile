# syntax=docker/dockerfile:1
# The service, for a PostgreSQL elsewhere: DATABASE_URL names it. docker-compose.yml has both.

FROM rust:1.95.0-slim-trixie AS build
WORKDIR /src
COPY . .
# Dependencies stay in the cache mounts, so that a change of ours compiles ours alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/target,sharing=locked \
    CARGO_TARGET_DIR=/target cargo build --release --locked --bin incident-manager \
    && install -D /target/release/incident-manager /out/usr/local/bin/incident-manager \
    && install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt

# The same release as the one it was built on: its C library is the only thing that the program needs of it.
FROM debian:13.6-slim
COPY --from=build /out/ /
# Nobody's: it needs no name, no home and no right to write.
USER 10001:10001
# Inside a container, loopback is reached by nobody. Which addresses it is published on says who reaches it.
ENV INCIDENT_MANAGER_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["incident-manager", "health"]
ENTRYPOINT ["incident-manager"]
CMD ["serve"]
