# A static binary and nothing else. Everything it writes is below /data; the rest may be read-only:
#   docker run --read-only -v barong:/data -p 8080:8080 barong
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TAG= COMMIT= DATE=
RUN CGO_ENABLED=0 go build -trimpath -o /out/barong \
      -ldflags "-s -w -X barong/internal/obs.tag=${TAG} -X barong/internal/obs.commit=${COMMIT} -X barong/internal/obs.date=${DATE}" \
      ./cmd/barong \
 && mkdir -p /out/root/data /out/root/tmp && chmod 700 /out/root/data && chmod 1777 /out/root/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/root/ /
COPY --from=build /out/barong /barong
USER 65532:65532
WORKDIR /
VOLUME /data
# Deployments of the original mount their files below its image's folder.
ENV BARONG_HTTP_ADDR=0.0.0.0:8080 BARONG_CONFIG_FOLDER=/home/app/config
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/barong", "healthcheck"]
ENTRYPOINT ["/barong"]
CMD ["serve"]
