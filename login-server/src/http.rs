//! The HTTPS interface: reads and bounds requests, hands them on, and writes answers and refusals.

use crate::state::{App, Refusal};
use crate::throttle::NetworkPrefix;
use crate::{accounts, nodes};
use ahoy_protocol::login::{LoginError, ROSTER_WAIT_S_MAX, RosterReply, paths};
use ahoy_protocol::{Text, Wire};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{Response, StatusCode, Uri};
use axum::routing::{MethodRouter, get, post};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a client may take to send a body of a few kilobytes.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may wait for its turn and be in work, database included.
const WORK_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in work at one time: enough to keep the database busy, few enough that each gets on.
pub(crate) const WORK_MAX: usize = 64;
/// Requests that wait for a newer roster at one time: one for each node that a network may have. Further ones are answered at once.
pub(crate) const WAITERS_MAX: usize = 512;

/// All paths of the interface.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let network = app.clone();
    let roster = app.clone();
    let fallback = app.clone();
    Router::new()
        .route(paths::NETWORK, get(move || async move { respond(&network, paths::NETWORK, Ok(network.keys.document.clone())) }))
        .route(paths::ROSTER, get(move |uri: Uri| async move { respond(&roster, paths::ROSTER, wait_for_roster(&roster, &uri).await) }))
        .route(paths::REGISTER_START, endpoint(app, paths::REGISTER_START, accounts::register_start))
        .route(paths::REGISTER_FINISH, endpoint(app, paths::REGISTER_FINISH, accounts::register_finish))
        .route(paths::SIGN_IN_START, endpoint(app, paths::SIGN_IN_START, accounts::sign_in_start))
        .route(paths::SIGN_IN_FINISH, endpoint(app, paths::SIGN_IN_FINISH, accounts::sign_in_finish))
        .route(paths::ADD_DEVICE, endpoint(app, paths::ADD_DEVICE, accounts::add_device))
        .route(paths::RENEW, endpoint(app, paths::RENEW, accounts::renew))
        .route(paths::ENROL_NODE, endpoint(app, paths::ENROL_NODE, nodes::enrol))
        .route(paths::RENEW_NODE, endpoint(app, paths::RENEW_NODE, nodes::renew))
        .fallback(move || async move { refuse(&fallback, "other", StatusCode::NOT_FOUND, &bad_request("no such path")) })
}

/// A path that takes a `Q` and gives an `A`.
fn endpoint<Q, A, F, Fut>(app: &Arc<App>, path: &'static str, decide: F) -> MethodRouter
where
    Q: Wire + Send + 'static,
    A: Wire + Send + 'static,
    F: Fn(Arc<App>, NetworkPrefix, Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<A, Refusal>> + Send,
{
    let app = app.clone();
    post(move |ConnectInfo(from): ConnectInfo<SocketAddr>, request: Request| async move {
        match read_body::<Q>(request.into_body()).await {
            Ok(question) => {
                let answer = Box::pin(work(&app, decide(app.clone(), NetworkPrefix::of(from.ip()), question))).await;
                respond(&app, path, answer)
            }
            Err((status, error)) => refuse(&app, path, status, &error),
        }
    })
}

async fn read_body<Q: Wire>(body: Body) -> Result<Q, (StatusCode, LoginError)> {
    let bytes = match timeout(BODY_TIMEOUT, to_bytes(body, Q::BYTES_MAX)).await {
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, bad_request("it came too slowly"))),
        Ok(Err(_)) => return Err((StatusCode::PAYLOAD_TOO_LARGE, bad_request("it is too long, or was cut short"))),
        Ok(Ok(bytes)) => bytes,
    };
    Q::decode(&bytes).map_err(|error| (StatusCode::BAD_REQUEST, bad_request(&error.to_string())))
}

/// Runs `decision` when it is its turn.
async fn work<A>(app: &App, decision: impl Future<Output = Result<A, Refusal>>) -> Result<A, Refusal> {
    let in_turn = async {
        let _turn = app.work.acquire().await.map_err(|_| LoginError::Internal)?;
        decision.await
    };
    timeout(WORK_TIMEOUT, in_turn).await.unwrap_or(Err(LoginError::SlowDown { retry_after_s: 5 }.into()))
}

/// The newest roster if it is another than the asker's, at once or when it comes.
async fn wait_for_roster(app: &App, uri: &Uri) -> Result<RosterReply, Refusal> {
    let since = query(uri, "since")?.unwrap_or(0);
    let wait = Duration::from_secs(query(uri, "wait")?.unwrap_or(0).min(ROSTER_WAIT_S_MAX));
    let mut follow = app.roster.follow();
    let mut stopping = app.stopping.clone();
    let newest = app.roster.current(app.now()).await?;
    if newest.version != since {
        return Ok(RosterReply { roster: Some(newest.signed.clone()) });
    }
    let Ok(_waiter) = app.waiters.try_acquire() else { return Ok(RosterReply { roster: None }) };
    let newer = follow.wait_for(|current| current.as_ref().is_some_and(|current| current.version != since));
    tokio::select! {
        newer = newer => Ok(RosterReply { roster: newer.ok().and_then(|newer| newer.as_ref().map(|current| current.signed.clone())) }),
        () = tokio::time::sleep(wait) => Ok(RosterReply { roster: None }),
        _ = stopping.wait_for(|stopping| *stopping) => Ok(RosterReply { roster: None }),
    }
}

/// The number that the query of `uri` gives for `key`.
fn query(uri: &Uri, key: &str) -> Result<Option<u64>, LoginError> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(name, _)| *name == key).map(|(_, value)| value).next();
    value.map(|value| value.parse().map_err(|_| bad_request("a number in the query cannot be read"))).transpose()
}

fn respond<A: Wire>(app: &App, path: &'static str, answer: Result<A, Refusal>) -> Response<Body> {
    match answer.and_then(|answer| answer.encode().map_err(|_| LoginError::Internal.into())) {
        Ok(bytes) => {
            app.metrics.count(path, StatusCode::OK.as_u16());
            Response::new(Body::from(bytes))
        }
        Err(Refusal(error)) => refuse(app, path, status(&error), &error),
    }
}

fn refuse(app: &App, path: &'static str, status: StatusCode, error: &LoginError) -> Response<Body> {
    app.metrics.count(path, status.as_u16());
    tracing::debug!(path, status = status.as_u16(), %error, "refused");
    let mut response = Response::new(Body::from(error.encode().unwrap_or_default()));
    *response.status_mut() = status;
    response
}

fn status(error: &LoginError) -> StatusCode {
    match error {
        LoginError::NameTaken(_) | LoginError::TooManyDevices => StatusCode::CONFLICT,
        LoginError::Credentials | LoginError::TicketExpired => StatusCode::UNAUTHORIZED,
        LoginError::SlowDown { .. } => StatusCode::TOO_MANY_REQUESTS,
        LoginError::Disabled | LoginError::UnknownDevice | LoginError::Token | LoginError::UnknownNode | LoginError::Refused(_) => {
            StatusCode::FORBIDDEN
        }
        LoginError::BadRequest(_) => StatusCode::BAD_REQUEST,
        LoginError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn bad_request(reason: &str) -> LoginError {
    LoginError::BadRequest(Text::fitting(reason))
}
