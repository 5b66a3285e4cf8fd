//! Requests over real sockets.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use super::*;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn routes() {
    let scrapes = Cell::new(0);
    let server = serve(ANY, move || {
        scrapes.set(scrapes.get() + 1);
        format!("scrapes {}\n", scrapes.get())
    })
    .unwrap();
    for count in 1..=100 {
        let answer = ask(server.addr(), "GET /metrics");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("scrapes {count}\n")), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
    }
    assert!(ask(server.addr(), "GET /healthz").ends_with("ok\n"));
    assert!(ask(server.addr(), "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(server.addr(), "POST /metrics").starts_with("HTTP/1.1 405"));
    assert!(ask(server.addr(), "garbage").starts_with("HTTP/1.1 400"));
}

#[test]
fn an_address_that_is_taken_is_one_sentence() {
    let server = serve(ANY, String::new).unwrap();
    let error = serve(server.addr(), String::new).unwrap_err();
    assert!(error.to_string().starts_with(&format!("listen on {}: Address already in use", server.addr())), "{error}");
}

#[test]
fn a_silent_client_does_not_keep_others_away() {
    let server = serve(ANY, String::new).unwrap();
    let _silent: Vec<_> = (0..5).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    assert!(ask(server.addr(), "GET /healthz").ends_with("ok\n"));
}

#[test]
fn the_server_ends_when_it_is_dropped() {
    let server = serve(ANY, String::new).unwrap();
    let addr = server.addr();
    drop(server);
    let gone = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(addr).is_err()
    });
    assert!(gone, "{addr} still answers");
}
