# The image of every f2mesh service: one static program, no shell, no package manager, not root.
#
#   docker compose build                                      as compose.yaml has it
#   docker build --build-arg VERSION=$(git describe) .        by hand
#
# The same source and version give the same program, byte for byte, wherever it is built.

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off

COPY go.mod go.sum ./
COPY tools/sbom/go.mod tools/sbom/go.sum tools/sbom/
RUN go mod download && go -C tools/sbom mod download
RUN go -C tools/sbom build -o /out/cyclonedx-gomod tool

COPY . .
ARG VERSION=unknown
ARG TARGETOS
ARG TARGETARCH
# With the time zones inside, since the image has no files of them.
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -tags=timetzdata \
    -ldflags="-s -w -buildid= -X main.version=$VERSION" -o /out/rootfs/usr/local/bin/f2mesh ./cmd/f2mesh
# The bill of materials comes from the program itself: what was linked, not what was asked for.
RUN mkdir -p /out/rootfs/usr/share/doc/f2mesh && cp LICENSE /out/rootfs/usr/share/doc/f2mesh/ && \
    /out/cyclonedx-gomod bin -json -std -noserial -notimestamp -version "$VERSION" \
    -output /out/rootfs/usr/share/doc/f2mesh/sbom.cdx.json /out/rootfs/usr/local/bin/f2mesh

# Whom the services run as. `f2mesh setup --compose .` writes into .env who owns the secret files: only he reads them.
ARG UID=10001
ARG GID=10001
# The folders that volumes are mounted on in the init container: Docker gives a new volume the owner and
# the mode of the folder that it is first mounted on.
ARG VOLUMES="program trust state devices mosquitto-config mosquitto-data mosquitto-run nats-config nats-data \
    postgres-config postgres-data timescaledb-config timescaledb-data pgbouncer-config vault-config vault-data registrar-config \
    health-config health-vault alarm-vault prometheus-data grafana-config grafana-data bridge-vault decoder-vault writer-vault registrar-vault keeper-vault operator-vault root-key"
RUN mkdir -p /out/rootfs/etc/ssl/certs && \
    echo "iotuser:x:$UID:$GID:f2mesh:/nonexistent:/sbin/nologin" >/out/rootfs/etc/passwd && \
    echo "iotuser:x:$GID:" >/out/rootfs/etc/group && \
    cp /etc/ssl/certs/ca-certificates.crt /out/rootfs/etc/ssl/certs/ && \
    for volume in $VOLUMES; do install -d -m 700 "/out/volumes/$volume"; done

FROM scratch
ARG VERSION=unknown
ARG UID=10001
ARG GID=10001
LABEL org.opencontainers.image.title="f2mesh" \
    org.opencontainers.image.description="An event mesh for F2 Smart Controllers" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION"
COPY --from=build /out/rootfs/ /
COPY --from=build --chown=$UID:$GID /out/volumes/ /volumes/
USER iotuser:iotuser
# Each service serves its health here, to its own networks.
ENV F2MESH_HTTP=:9100
EXPOSE 9100
ENTRYPOINT ["/usr/local/bin/f2mesh"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/f2mesh", "healthcheck"]
