# The operator. What it runs besides itself is e2fsprogs, on scratch files, without any privilege.
#
#   docker build -t kubexen:dev .
#   docker run --read-only --tmpfs /scratch kubexen:dev version

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /kubexen .

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates e2fsprogs \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 -m 0700 /scratch
COPY --from=build /kubexen /usr/local/bin/kubexen
COPY LICENSE THIRD_PARTY_NOTICES.md /usr/share/doc/kubexen/
# The root file system may be read-only; temporary files go to the volume.
ENV TMPDIR=/scratch PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /scratch
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kubexen"]
CMD ["manager"]
