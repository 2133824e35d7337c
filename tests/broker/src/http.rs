//! The subset of HTTP that the management API needs: one HTTP/1.0 request for each connection, which ends with the
//! answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// The timeout of each read and write. Generous, since a broker under load answers the management API last.
const TRANSFER_BOUND: Duration = Duration::from_secs(30);
/// The maximum size of an answer; a larger one is an error rather than filling the memory.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) path: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) body: &'a str,
}

pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) fn send(request: &Request<'_>) -> Result<ApiResponse> {
    let mut stream = connect(request.host, request.port)?;
    let login = base64(format!("{}:{}", request.user, request.password).as_bytes());
    let head = format!(
        "{} {} HTTP/1.0\r\nHost: {}:{}\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        request.method,
        request.path,
        request.host,
        request.port,
        request.body.len(),
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body.as_bytes())?;
    let mut bytes = Vec::new();
    match stream.take(LARGEST_ANSWER).read_to_end(&mut bytes) {
        Ok(_) => {}
        // A server that closes without reading an unwanted body resets the connection; the answer is there.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !bytes.is_empty() => {}
        Err(error) => return Err(error).context("no complete answer over HTTP"),
    }
    parsed(&bytes)
}

/// Connects with a timeout, to the first address of `host` that answers.
pub(crate) fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (name, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_BOUND) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TRANSFER_BOUND))?;
                stream.set_write_timeout(Some(TRANSFER_BOUND))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("cannot connect to {host}:{port}")),
        None => bail!("{host} has no address"),
    }
}

fn parsed(bytes: &[u8]) -> Result<ApiResponse> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("the answer has no HTTP status")?;
    Ok(ApiResponse {
        status,
        body: body.to_owned(),
    })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position <= chunk.len() {
                let letter = LETTERS[(bits >> (18 - 6 * position)) as usize & 63];
                text.push(char::from(letter));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded_to_groups_of_four() {
        let expected = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("user:p", "dXNlcjpw"),
        ];
        for (bytes, text) in expected {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_response_is_split_into_status_and_body() {
        let answer = parsed(b"HTTP/1.1 204 No Content\r\nserver: Cowboy\r\n\r\n{}\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (204, "{}\r\n"));
        assert!(parsed(b"AMQP\0\0\x09\x01").is_err());
    }
}
