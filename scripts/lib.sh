# Shared by the scripts of this folder; sourced, never run.

need_cargo() {
    command -v cargo >/dev/null 2>&1 || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
    if ! command -v cargo >/dev/null 2>&1; then
        echo "No Rust compiler is here. Install the stable toolchain with rustup (or Debian's rustc >= 1.88), then run this again." >&2
        exit 1
    fi
    if ! command -v cc >/dev/null 2>&1 || ! command -v make >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "No C compiler or no make is here (the TLS library and the allocator need them): installing gcc and make." >&2
            apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev make >/dev/null
        else
            echo "No C compiler or no make is here, and the TLS library and the allocator need them: apt-get install gcc make" >&2
            exit 1
        fi
    fi
}

# The version that the package's description in Cargo.toml was written for; a later one may lay out the package otherwise.
need_cargo_deb() {
    [ "$(cargo deb --version 2>/dev/null)" = "cargo-deb 3.8.0" ] || cargo install --quiet --locked --force --version 3.8.0 cargo-deb
}

# The folder that cargo builds into.
target_folder() {
    cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Whether nothing listens on the loopback port $1.
port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
