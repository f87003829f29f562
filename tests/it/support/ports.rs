//! Ports for servers that are killed and started again at the same place.

use std::net::TcpListener;

/// Below the range that Linux gives to outgoing connections: nobody takes it by chance while its server is down, and
/// who knocks then is not connected to itself.
const FROM: u64 = 20_000;
const COUNT: u64 = 12_000;

/// One that nobody listens on.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = u16::try_from(FROM + getrandom::u64().unwrap() % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
