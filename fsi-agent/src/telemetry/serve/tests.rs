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

struct Agent {
    condition: Condition,
}

impl Pages for Agent {
    fn metrics(&self, format: Format) -> String {
        format!("{format:?}\n")
    }

    fn has_open_metrics(&self) -> bool {
        true
    }

    fn health(&self) -> Condition {
        Condition::Well("the loop turns".to_owned())
    }

    fn readiness(&self) -> Condition {
        self.condition.clone()
    }
}

#[test]
fn health_and_readiness_are_a_status_and_a_sentence() {
    let server = serve(ANY, Agent { condition: Condition::Unwell("the probes are not attached".to_owned()) }).unwrap();
    let ready = ask(server.addr(), "GET /readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("\r\n\r\nthe probes are not attached\n"), "{ready}");
    let health = ask(server.addr(), "GET /healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("\r\n\r\nthe loop turns\n"), "{health}");
    assert!(ask(server.addr(), "PUT /readyz").starts_with("HTTP/1.1 405"));
    let server = serve(ANY, Agent { condition: Condition::Well("observing".to_owned()) }).unwrap();
    assert!(ask(server.addr(), "GET /readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn open_metrics_are_for_those_who_ask() {
    let server = serve(ANY, Agent { condition: Condition::Well(String::new()) }).unwrap();
    let asked = |accept: &str| {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // As Prometheus asks.
    let answer = asked("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1");
    assert!(answer.ends_with("OpenMetrics\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{answer}");
    assert!(asked("text/plain").ends_with("Prometheus\n"));
    assert!(asked("application/openmetrics-text;q=0").ends_with("Prometheus\n"));
    let plain = serve(ANY, String::new).unwrap();
    assert!(ask(plain.addr(), "GET /readyz").ends_with("ok\n"));
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
