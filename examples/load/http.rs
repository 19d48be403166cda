//! A client of HTTP/1.1 that costs next to nothing, so that what is measured is the server: one
//! connection kept alive, JSON up, JSON or a stream of server-sent events down.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Connection {
    socket: TcpStream,
    host: String,
    /// Bytes read and not yet used, from `used` on.
    buffer: Vec<u8>,
    used: usize,
    /// Everything read, in bytes.
    pub bytes: u64,
    body: Body,
}

/// What is left of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    None,
    Sized(usize),
    /// Bytes left of the chunk, and its line end.
    Chunk(usize),
    NextChunk,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Connection {
    /// `host` is a host and a port.
    pub async fn open(host: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(host).await?;
        socket.set_nodelay(true)?;
        let (host, buffer) = (host.to_string(), Vec::new());
        Ok(Connection { socket, host, buffer, used: 0, bytes: 0, body: Body::None })
    }

    /// Sends a request; gives the answer's status.
    pub async fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<u16> {
        self.skip_body().await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.socket.write_all(request.as_bytes()).await?;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            let parsed = answer.parse(&self.buffer[self.used..]);
            if let httparse::Status::Complete(length) =
                parsed.map_err(|e| broken(&e.to_string()))?
            {
                self.body = Body::None;
                for header in answer.headers.iter() {
                    if header.name.eq_ignore_ascii_case("content-length") {
                        let length = std::str::from_utf8(header.value).ok();
                        let length = length.and_then(|length| length.trim().parse().ok());
                        self.body = Body::Sized(length.ok_or_else(|| broken("content-length"))?);
                    } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                        self.body = Body::NextChunk;
                    }
                }
                let status = answer.code.unwrap_or_default();
                self.used += length;
                return Ok(status);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.bytes += read as u64;
                Ok(())
            }
        }
    }

    /// Appends more of the body; `false` at its end.
    async fn more(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let there = &self.buffer[self.used..];
            match self.body {
                Body::None | Body::Sized(0) => return Ok(false),
                Body::Sized(left) | Body::Chunk(left) if left > 0 && !there.is_empty() => {
                    let taken = left.min(there.len());
                    text.extend_from_slice(&there[..taken]);
                    self.used += taken;
                    self.body = match self.body {
                        Body::Sized(left) => Body::Sized(left - taken),
                        _ => Body::Chunk(left - taken),
                    };
                    return Ok(true);
                }
                Body::Chunk(0) if there.len() >= 2 => {
                    self.used += 2;
                    self.body = Body::NextChunk;
                }
                Body::NextChunk => {
                    if let Some(end) = there.windows(2).position(|two| two == b"\r\n") {
                        let size = std::str::from_utf8(&there[..end]).ok();
                        let size =
                            size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
                        let size = size.ok_or_else(|| broken("chunk"))?;
                        if size > 0 {
                            self.used += end + 2;
                            self.body = Body::Chunk(size);
                        } else if there.len() >= end + 4 {
                            self.used += end + 4;
                            self.body = Body::None;
                        } else {
                            self.read().await?;
                        }
                    } else {
                        self.read().await?;
                    }
                }
                _ => self.read().await?,
            }
        }
    }

    async fn skip_body(&mut self) -> io::Result<()> {
        let mut skipped = Vec::new();
        while self.more(&mut skipped).await? {
            skipped.clear();
        }
        Ok(())
    }

    /// The whole body.
    pub async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        while self.more(&mut text).await? {}
        Ok(text)
    }

    /// The data of the next event, into `event`; `false` at the end of the stream. `text` keeps what
    /// has come of the one after.
    pub async fn event(&mut self, text: &mut Vec<u8>, event: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                event.clear();
                let data = text[..end].strip_prefix(b"data: ").unwrap_or(&text[..end]);
                event.extend_from_slice(data);
                text.drain(..end + 2);
                return Ok(true);
            }
            if !self.more(text).await? {
                return Ok(false);
            }
        }
    }
}
