# All binaries in one small image, run by a user without rights.
#   docker build -t doorstep .
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN CARGO_PROFILE_RELEASE_STRIP=symbols cargo build --release --locked -p doorstep-producer -p doorstep-consumers -p doorstep-gateway -p doorstep-compare

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/doorstep --create-home doorstep \
 && install -d -o doorstep -g doorstep /var/lib/doorstep-reports
COPY --from=build /src/target/release/producer /src/target/release/consumers /src/target/release/gateway /src/target/release/compare /usr/local/bin/
USER doorstep
WORKDIR /var/lib/doorstep
# The roles' stores: keep them on a volume, or every event is new again to a role that has forgotten all.
ENV DOORSTEP_DATA_DIR=/var/lib/doorstep
VOLUME /var/lib/doorstep
CMD ["consumers", "run"]
