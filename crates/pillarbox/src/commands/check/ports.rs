//! Whether the configured ports are free, and who has them otherwise.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use pillarbox_config::Config;
use pillarbox_control::api::Probe;

use super::services;

/// One probe a configured TCP address, for when no daemon runs.
pub(crate) fn listeners(config: &Config) -> Vec<Probe> {
    services(config).into_iter().filter(|(_, address)| address.port() != 0).map(|(service, address)| probe(service, address)).collect()
}

fn probe(service: &str, address: SocketAddr) -> Probe {
    let name = format!("port {}", address.port());
    match TcpListener::bind(address) {
        Ok(_) => Probe::ok(name, format!("{address} is free for {service}")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let who = owner(address.port()).map_or_else(|| "another program".to_owned(), |who| format!("{who} has it"));
            Probe::fail(name, format!("{address} for {service} is taken: {who}"), format!("stop that program, or change listen.{service}"))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Probe::warn(name, format!("{address} for {service} could not be tried: {error}"), "run this as root to try ports below 1024")
        }
        Err(error) => Probe::fail(name, format!("{address} for {service} cannot be had: {error}"), format!("correct listen.{service}")),
    }
}

/// The program that listens on a port, as far as this process may see: its name and process id.
fn owner(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
        if holds(&process.path().join("fd"), &wanted) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", crate::out::safe(program.trim())));
        }
    }
    None
}

fn holds(descriptors: &Path, wanted: &[String]) -> bool {
    let Ok(entries) = fs::read_dir(descriptors) else { return false };
    entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| wanted.iter().any(|w| target.as_os_str() == w.as_str())))
}

/// Inodes of the sockets that listen on `port`, from the kernel's table: `sl local_address rem_address st … inode …`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTENING: &str = "0A";
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = columns.get(1)?.rsplit_once(':')?.1;
        let is_ours = u16::from_str_radix(local, 16).ok()? == port && *columns.get(3)? == LISTENING;
        is_ours.then(|| columns.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_who_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = probe("smtp", address);
        assert_eq!(found.grade, pillarbox_control::api::Grade::Fail);
        assert!(found.found.contains(&format!("process {}", std::process::id())), "{found:?}");
        drop(listener);
        assert_eq!(probe("smtp", address).grade, pillarbox_control::api::Grade::Ok);
    }

    #[test]
    fn the_kernel_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   1: 0100007F:0019 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\nrubbish\n";
        assert_eq!(listening_inodes(table, 25), ["4711"]);
        assert!(listening_inodes(table, 26).is_empty());
    }
}
