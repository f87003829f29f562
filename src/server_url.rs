//! Where a running service with the embedded ledger says how to reach it: the file `server.url` in its data folder.
//!
//! The commands that are clients of the API find it there, also when it took port 0. It is written when the service
//! listens and removed when it stops; after a crash it stays, and whoever follows it is told where it came from.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

const FILE: &str = "server.url";
/// Longer than any URL of ours; keeps a wrong file from being read whole.
const LONGEST_BYTES: u64 = 200;

/// The URL under which a listener is reached from this machine.
pub fn of(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What the service that uses this folder wrote, if it is there and is a URL.
pub fn load(data_dir: &Path) -> Option<String> {
    let path = path(data_dir);
    if fs::metadata(&path).ok()?.len() > LONGEST_BYTES {
        return None;
    }
    let url = fs::read_to_string(path).ok()?.trim().to_owned();
    url.starts_with("http://").then_some(url)
}

/// The file, as long as the service listens. Dropping it removes it.
#[derive(Debug)]
pub struct Announced(PathBuf);

impl Announced {
    /// Written beside and moved into place: a reader sees a whole URL or none.
    pub fn write(data_dir: &Path, addr: SocketAddr) -> io::Result<Self> {
        let (path, new) = (path(data_dir), data_dir.join("server.url.new"));
        fs::write(&new, format!("{}\n", of(addr)))?;
        fs::rename(&new, &path)?;
        Ok(Announced(path))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // What cannot be removed misleads nobody for long: a client says where its address came from.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_means_everywhere_is_reached_on_loopback() {
        let of = |text: &str| of(text.parse().unwrap());
        assert_eq!(of("0.0.0.0:81"), "http://127.0.0.1:81");
        assert_eq!(of("[::]:81"), "http://[::1]:81");
        assert_eq!(of("10.0.0.5:8080"), "http://10.0.0.5:8080");
    }

    #[test]
    fn it_is_there_while_announced_and_gone_after() {
        let dir = tempfile::tempdir().unwrap();
        let announced = Announced::write(dir.path(), "127.0.0.1:81".parse().unwrap()).unwrap();
        assert_eq!(load(dir.path()).as_deref(), Some("http://127.0.0.1:81"));
        drop(announced);
        assert_eq!(load(dir.path()), None);
    }
}
