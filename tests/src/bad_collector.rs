//! Collectors that misbehave: somebody listens, and nothing else can be relied on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// What one does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Takes it and never answers.
    Stalls,
    /// Answers late.
    Slow,
    /// Says that it is no good.
    Refuses,
    /// Answers with what is no HTTP.
    Garbage,
}

/// Starts one on a port of loopback. It listens until the test is over.
#[must_use]
pub fn start(habit: Habit) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the client's business.
            thread::spawn(move || answer(stream, habit).ok());
        }
    });
    port
}

fn answer(mut stream: TcpStream, habit: Habit) -> std::io::Result<()> {
    let mut unread = Vec::new();
    loop {
        take_request(&mut stream, &mut unread)?;
        match habit {
            Habit::Stalls => {}
            Habit::Slow => {
                thread::sleep(Duration::from_millis(50));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
            Habit::Refuses => stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?,
            Habit::Garbage => stream.write_all(&[0xa7; 5000])?,
        }
    }
}

/// Reads one request with its body; what belongs to the next stays in `unread`.
fn take_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<()> {
    let mut bytes = [0; 65_536];
    loop {
        if let Some(length) = request_length(unread)
            && unread.len() >= length
        {
            unread.drain(..length);
            return Ok(());
        }
        match stream.read(&mut bytes)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => unread.extend_from_slice(&bytes[..length]),
        }
    }
}

fn request_length(unread: &[u8]) -> Option<usize> {
    let end = unread.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
    let body = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(end + body.unwrap_or(0))
}
