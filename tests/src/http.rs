//! The smallest client that can read a page.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

/// The body of a page on loopback, which must be there.
#[must_use]
pub fn get(port: u16, path: &str) -> String {
    let (head, body) = ask(port, path);
    assert!(is_ok(&head), "{head}");
    body
}

/// The body of a page on loopback, whatever it says of itself.
#[must_use]
pub fn said(port: u16, path: &str) -> String {
    ask(port, path).1
}

/// Whether a page on loopback says 200.
#[must_use]
pub fn is_well(port: u16, path: &str) -> bool {
    is_ok(&ask(port, path).0)
}

fn is_ok(head: &str) -> bool {
    head.split(' ').nth(1) == Some("200")
}

fn ask(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("somebody listens");
    // Of version 1.0, which nobody answers in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}
