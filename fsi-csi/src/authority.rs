//! Connections of the kubelet that a strict HTTP/2 server refuses: when it asks a plugin who it is, it gives the path of the socket as
//! the request's `:authority`, which no authority may be. Here such a value is overwritten on its way, with as many bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;

/// What a client sends before its first frame.
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// What may wait between the socket and the server.
const AHEAD: usize = 64 << 10;
/// `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// The only bit of a string's first byte that is not its length: whether it is compressed.
const HUFFMAN: u8 = 0x80;

/// The connection as the server may have it.
pub fn tolerant(client: UnixStream) -> DuplexStream {
    let (ours, servers) = tokio::io::duplex(AHEAD);
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(ours);
        let requests = async {
            // Either end may go at any time, which ends the other.
            forward(&mut from_client, &mut to_server).await.ok();
            to_server.shutdown().await.ok();
        };
        let answers = async {
            tokio::io::copy(&mut from_server, &mut to_client).await.ok();
            to_client.shutdown().await.ok();
        };
        tokio::join!(requests, answers);
    });
    servers
}

async fn forward(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    let mut payload = Vec::new();
    loop {
        let mut header = [0; FRAME_HEADER];
        from.read_exact(&mut header).await?;
        // 24 bits: what is larger than the server takes it refuses itself.
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        payload.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        from.read_exact(&mut payload).await?;
        if header[3] == HEADERS {
            overwrite(&mut payload, header[4]);
        }
        to.write_all(&header).await?;
        to.write_all(&payload).await?;
        to.flush().await?;
    }
}

/// Makes an authority out of whatever a literal `:authority` says. What cannot be read is left to the server.
fn overwrite(payload: &mut [u8], flags: u8) {
    let mut at = 0;
    if flags & PADDED != 0 {
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    while let Some(&first) = payload.get(at) {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let Some(index) = integer(payload, &mut at, prefix) else { return };
        if prefix == 7 || prefix == 5 {
            continue;
        }
        if index == 0 && string(payload, &mut at).is_none() {
            return;
        }
        let start = at;
        let Some(value) = string(payload, &mut at) else { return };
        if index == AUTHORITY {
            // Compressed or not, it has as many bytes as before; now they are plain letters.
            payload[start] &= !HUFFMAN;
            payload[value].fill(b'x');
        }
    }
}

/// An integer whose first bits are something else.
fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1_usize << prefix) - 1;
    let first = usize::from(*bytes.get(*at)?) & most;
    *at += 1;
    if first < most {
        return Some(first);
    }
    let mut value = most;
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*bytes.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Where the bytes of a string are.
fn string(bytes: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    let length = integer(bytes, at, 7)?;
    let range = *at..at.checked_add(length).filter(|end| *end <= bytes.len())?;
    *at = range.end;
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_overwritten_and_nothing_else() {
        // :method POST, :authority "/a" compressed (two bytes), a literal with a name of its own.
        let mut headers = vec![0x83, 0x41, 0x82, 0x60, 0x7f, 0x00, 0x01, b'k', 0x02, b'/', b'v'];
        overwrite(&mut headers, 0);
        assert_eq!(headers, [0x83, 0x41, 0x02, b'x', b'x', 0x00, 0x01, b'k', 0x02, b'/', b'v']);
    }

    #[test]
    fn what_comes_before_the_headers_is_skipped() {
        let mut headers = vec![0, 0, 0, 0, 0, 0x41, 0x01, b'/'];
        overwrite(&mut headers, PRIORITY);
        assert_eq!(headers, [0, 0, 0, 0, 0, 0x41, 0x01, b'x']);
    }

    #[test]
    fn what_is_cut_short_is_left_alone() {
        let mut headers = vec![0x41, 0x09, b'/'];
        overwrite(&mut headers, 0);
        assert_eq!(headers, [0x41, 0x09, b'/']);
        overwrite(&mut [], 0);
    }

    #[test]
    fn long_lengths_are_read() {
        let mut at = 0;
        assert_eq!(integer(&[0xff, 0x9a, 0x0a], &mut at, 5), Some(1337));
        assert_eq!(at, 3);
    }
}
