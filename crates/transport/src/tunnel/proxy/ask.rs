//! Asks a proxy to connect to a node.

use super::{Credentials, Proxy, ProxyError};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

/// Longest answer of an HTTP proxy that is read. Those that refuse like to send a page after it, which nobody looks at.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Most header lines in it.
const ANSWER_HEADERS_MAX: usize = 64;

impl Proxy {
    pub(super) async fn ask_socks(&self, stream: TcpStream, to: SocketAddr) -> Result<TcpStream, ProxyError> {
        let asked = match &self.credentials {
            None => Socks5Stream::connect_with_socket(stream, to).await,
            Some(Credentials { user, password }) => Socks5Stream::connect_with_password_and_socket(stream, to, user, password).await,
        };
        asked.map(Socks5Stream::into_inner).map_err(|error| self.socks_error(to, &error))
    }

    fn socks_error(&self, to: SocketAddr, error: &tokio_socks::Error) -> ProxyError {
        use tokio_socks::Error;
        let proxy = self.authority();
        match error {
            Error::NoAcceptableAuthMethods | Error::AuthorizationRequired | Error::PasswordAuthFailure(_) | Error::UnknownAuthMethod => {
                ProxyError::Unauthorized { proxy }
            }
            Error::InvalidResponseVersion | Error::InvalidReservedByte | Error::UnknownAddressType => {
                ProxyError::NotAProxy { proxy, kind: "SOCKS5" }
            }
            other => ProxyError::Refused { proxy, to, reason: other.to_string() },
        }
    }

    pub(super) async fn ask_http<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, to: SocketAddr) -> Result<(), ProxyError> {
        let refused = |reason: String| ProxyError::Refused { proxy: self.authority(), to, reason };
        let authorization = self.credentials.as_ref().map(|credentials| {
            let pair = format!("{}:{}", credentials.user, credentials.password);
            format!("Proxy-Authorization: Basic {}\r\n", data_encoding::BASE64.encode(pair.as_bytes()))
        });
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", authorization.unwrap_or_default());
        stream.write_all(request.as_bytes()).await.map_err(|error| refused(error.to_string()))?;
        let not_http = || ProxyError::NotAProxy { proxy: self.authority(), kind: "HTTP" };
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let mut filled = 0;
        loop {
            let count = stream.read(&mut answer[filled..]).await.map_err(|error| refused(error.to_string()))?;
            if count == 0 {
                return Err(if filled == 0 { refused("it closed the connection".to_owned()) } else { not_http() });
            }
            filled += count;
            match parse_answer(&answer[..filled]) {
                // Nobody speaks before our TLS does: what follows the answer at once is a proxy's that misunderstood.
                Ok(Some(Answer { status: 200..=299, bytes, .. })) if bytes == filled => return Ok(()),
                Ok(Some(Answer { status: 407, .. })) => return Err(ProxyError::Unauthorized { proxy: self.authority() }),
                Ok(Some(Answer { status: 200..=299, .. })) | Err(NotHttp) => return Err(not_http()),
                Ok(Some(Answer { status, reason, .. })) => return Err(refused(format!("{status} {reason}").trim_end().to_owned())),
                Ok(None) if filled == answer.len() => return Err(not_http()),
                Ok(None) => {}
            }
        }
    }
}

/// How an HTTP proxy answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    reason: String,
    /// Length of its head.
    bytes: usize,
}

/// It is no answer of HTTP.
#[derive(Debug, PartialEq, Eq)]
struct NotHttp;

/// The answer that `bytes` begin with; `None` if it has not come whole.
fn parse_answer(bytes: &[u8]) -> Result<Option<Answer>, NotHttp> {
    let mut headers = [httparse::EMPTY_HEADER; ANSWER_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => {
            let reason = response.reason.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
            Ok(response.code.map(|status| Answer { status, reason, bytes }))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_waited_for() {
        let whole = b"HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\nmore";
        let answer = Answer { status: 403, reason: "Forbidden".to_owned(), bytes: whole.len() - 4 };
        assert_eq!(parse_answer(whole), Ok(Some(answer)));
        for part in 0..whole.len() - 4 {
            assert_eq!(parse_answer(&whole[..part]), Ok(None), "{part}");
        }
        assert_eq!(parse_answer(b"SSH-2.0-x\r\n"), Err(NotHttp));
    }
}
