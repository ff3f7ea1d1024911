//! Requests and answers over HTTPS, with a limit on the size of each and on the time that it takes.

use crate::error::LoginClientError;
use crate::pin;
use ahoy_protocol::login::LoginError;
use ahoy_protocol::{NetworkLink, Wire};
use reqwest::header::DATE;
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, RequestBuilder, Response, StatusCode};
use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

/// How long the connection and its handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take from its first byte to the last of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an unused connection is kept: less than the server keeps it, so that no request goes out on one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An HTTPS client for one server.
#[derive(Debug, Clone)]
pub(crate) struct Https {
    client: Client,
    address: String,
}

impl Https {
    pub(crate) fn new(link: &NetworkLink, proxy: Option<&str>) -> Result<Self, LoginClientError> {
        let address = link.authority();
        let failed = |reason: String| LoginClientError::Unreachable { address: address.clone(), reason };
        let tls = pin::client_config(link.network).map_err(|error| failed(error.to_string()))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(Policy::none())
            // Which proxy is used is for the caller to say, who knows the settings; the environment's is among them.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT);
        if let Some(proxy) = proxy {
            // The error would show the URL, in which there may be a password.
            builder = builder.proxy(Proxy::all(proxy).map_err(|_| LoginClientError::Proxy)?);
        }
        let client = builder.build().map_err(|error| failed(root_cause(&error)))?;
        Ok(Self { client, address })
    }

    /// Gets the `A` at `path`. The server may take `wait` longer than usual.
    pub(crate) async fn get<A: Wire>(&self, path: &str, wait: Duration) -> Result<A, LoginClientError> {
        let request = self.client.get(self.url(path)).timeout(REQUEST_TIMEOUT + wait);
        self.exchange(request).await
    }

    /// Gets what is at `path` for the sake of the answer's date alone: the server's clock, in whole seconds.
    pub(crate) async fn date(&self, path: &str) -> Result<Option<SystemTime>, LoginClientError> {
        let response = self.client.get(self.url(path)).timeout(REQUEST_TIMEOUT).send().await.map_err(|error| self.failed(&error))?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
    }

    /// Sends `question` to `path`.
    pub(crate) async fn post<Q: Wire, A: Wire>(&self, path: &str, question: &Q) -> Result<A, LoginClientError> {
        let body = question.encode().map_err(|_| LoginClientError::Malformed)?;
        self.exchange(self.client.post(self.url(path)).timeout(REQUEST_TIMEOUT).body(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    async fn exchange<A: Wire>(&self, request: RequestBuilder) -> Result<A, LoginClientError> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        if response.status() == StatusCode::OK {
            let bytes = self.read(response, A::BYTES_MAX).await?;
            return A::decode(&bytes).map_err(|error| self.nonsense(error.to_string()));
        }
        let status = response.status();
        let bytes = self.read(response, LoginError::BYTES_MAX).await?;
        match LoginError::decode(&bytes) {
            Ok(error) => Err(LoginClientError::Refused(error)),
            Err(_) => Err(self.nonsense(format!("status {status}"))),
        }
    }

    /// The body of `response`, read no further than to `bytes_max`.
    async fn read(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, LoginClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(self.nonsense(format!("it is longer than {bytes_max} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn failed(&self, error: &reqwest::Error) -> LoginClientError {
        let address = self.address.clone();
        if causes(error).any(is_other_certificate) {
            return LoginClientError::OtherServer { address };
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { root_cause(error) };
        LoginClientError::Unreachable { address, reason }
    }

    fn nonsense(&self, reason: String) -> LoginClientError {
        LoginClientError::Answer { address: self.address.clone(), reason }
    }
}

/// `error` and all that caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        // An I/O error tells the cause of what it wraps, and not what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn is_other_certificate(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// What it comes down to: the error that has no other cause.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let cause = causes(error).last().unwrap_or(error).to_string();
    cause.split(" (os error").next().unwrap_or_default().to_lowercase()
}
