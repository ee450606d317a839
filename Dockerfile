# The image of dnsblock. It uses the targets of the Makefile, so the tests of these apply to the image.
#
#   docker build -t dnsblock .
#   docker run -d --name dnsblock --network host -v /etc/dnsblock:/etc/dnsblock:ro \
#       -v dnsblock-state:/var/lib/dnsblock dnsblock
#
# Not with a published port (-p 53:53): all clients may then appear to come from the bridge's gateway, which is in the
# default access list, and anyone could query. docs/operations.md says what the configuration of a container needs.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make wheel
RUN make install PREFIX=/opt/dnsblock

FROM debian:bookworm-slim
# ca-certificates: the trust store for feeds. tzdata: the option `time_zone`, Asia/Jakarta by default.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tzdata \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10053 --user-group --no-create-home --shell /usr/sbin/nologin dnsblock \
    && install -d -o 10053 -g 10053 -m 0700 /var/lib/dnsblock \
    && install -d -o 10053 -g 10053 -m 0750 /run/dnsblock \
    && install -d -m 0755 /etc/dnsblock /etc/dnsblock/orders /etc/dnsblock/lists
COPY --from=build /opt/dnsblock /opt/dnsblock
COPY config/isp.yaml /etc/dnsblock/isp.yaml
ENV PATH=/opt/dnsblock/bin:$PATH \
    DNSBLOCK_CONFIG=/etc/dnsblock/dnsblock.yaml

# A number, so that Kubernetes can verify that it is not root.
USER 10053:10053
# The state folder with the ledger, the evidence of all accepted orders. Use a named volume, and back it up.
VOLUME /var/lib/dnsblock
EXPOSE 53/udp 53/tcp 9353/tcp

# Only a daemon that does not respond is unhealthy (exit code 3). After a refused reload (1), or with an invalid
# configuration file (4), the previous state stays in force: a restart would turn that into an outage.
HEALTHCHECK --interval=30s --timeout=15s --start-period=300s --retries=3 \
    CMD dnsblock status >/dev/null; case $? in 0|1|4) exit 0;; *) exit 1;; esac

ENTRYPOINT ["dnsblock"]
CMD ["serve"]
