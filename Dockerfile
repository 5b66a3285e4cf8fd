# The image of FSI for those who have a container engine: `docker build -t fsi:0.1.0 .`. Without one: `cargo xtask image OUT`.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends musl-tools ca-certificates
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
# The compiler for BPF, bpf-linker.
RUN cargo xtask setup --for build
RUN target="$(uname -m)-unknown-linux-musl" \
 && cargo build --locked --profile image --target "$target" --package fsi-agent --bin fsi --package fsi-csi --bin fsi-csi \
 && mkdir -p /image/usr/bin /image/usr/share/doc/fsi /image/etc/ssl/certs /image/run /image/var/lib && mkdir -m 1777 /image/tmp \
 && cp "target/$target/image/fsi" "target/$target/image/fsi-csi" /image/usr/bin/ \
 && cp LICENSE-APACHE LICENSE-MIT /image/usr/share/doc/fsi/ \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
COPY --from=build /image /
ENTRYPOINT ["/usr/bin/fsi"]
