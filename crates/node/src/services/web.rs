//! How the services are served: gRPC over HTTP/2, and gRPC-web over HTTP/1.1 or HTTP/2 on the same port.
//!
//! `ProtocolService` has no authentication, and a browser lets every page send requests to this machine. So a request
//! that a page makes is answered only when the page's origin was named by whoever started the node, and a name of
//! the outside world that was made to point to this machine is not taken for an address of it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_web::GrpcWebLayer;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder};

/// What a page may send.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("content-type,grpc-timeout,x-grpc-web,x-user-agent");
/// What a page may read of an answer.
const ANSWER_HEADERS: HeaderValue =
    HeaderValue::from_static("grpc-status,grpc-message,grpc-status-details-bin,dunlin-reason");
/// Seconds for which a browser need not ask again: an hour.
const ASK_AGAIN_S: HeaderValue = HeaderValue::from_static("3600");

/// The origins of pages that may call: none, unless they are named.
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<BTreeSet<String>>);

/// What was given is no origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is no origin; one looks like http://localhost:3000, without a path")]
pub struct OriginError(String);

impl Origins {
    /// Allows the pages of these origins, such as `http://localhost:3000`.
    ///
    /// # Errors
    /// [`OriginError`] for what no browser would send as an origin.
    pub fn new(origins: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, OriginError> {
        let origins = origins.into_iter().map(|origin| {
            let origin = origin.into();
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            let sent =
                authority.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '*', ' ', '?', '#']));
            if sent { Ok(origin.to_ascii_lowercase()) } else { Err(OriginError(origin)) }
        });
        Ok(Self(Arc::new(origins.collect::<Result<_, _>>()?)))
    }

    /// Judges who makes a request.
    fn judge(&self, version: Version, headers: &HeaderMap) -> Caller {
        // Without TLS, browsers speak HTTP/1.1 alone. A program that does so calls this machine by one of its own names.
        if version < Version::HTTP_2 && !headers.get(HOST).is_some_and(names_this_machine) {
            return Caller::Foreign;
        }
        match headers.get(ORIGIN) {
            None => Caller::Program,
            Some(origin) if origin.to_str().is_ok_and(|origin| self.0.contains(origin)) => {
                Caller::Page(origin.clone())
            }
            Some(_) => Caller::Foreign,
        }
    }
}

fn names_this_machine(host: &HeaderValue) -> bool {
    let Ok(authority) = host.to_str().unwrap_or_default().parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// Who makes a request.
enum Caller {
    /// A program, which could as well leave out every mark of a page.
    Program,
    /// A page that may.
    Page(HeaderValue),
    /// A page that may not.
    Foreign,
}

/// Serves `routes` on the connections that come in, until `stopped`.
///
/// # Errors
/// When connections cannot be taken any more.
pub async fn serve<IO, IE>(
    routes: Routes,
    incoming: impl Stream<Item = Result<IO, IE>> + Send + 'static,
    origins: Origins,
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IE: Into<Box<dyn std::error::Error + Send + Sync>> + fmt::Debug,
{
    let guard = layer_fn(move |inner| Guard { inner, origins: origins.clone() });
    let layers = ServiceBuilder::new().layer(guard).layer(GrpcWebLayer::new()).into_inner();
    let server = Server::builder().accept_http1(true).layer(layers);
    server.serve_with_incoming_shutdown(routes.prepare(), incoming.boxed(), stopped).await
}

/// Refuses requests of foreign pages before anything else sees them.
#[derive(Clone)]
struct Guard<S> {
    inner: S,
    origins: Origins,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let origin = match self.origins.judge(request.version(), request.headers()) {
            Caller::Program => {
                let answer = self.inner.call(request);
                return Box::pin(async move { answer.await.map(with_the_code_of_a_limit) });
            }
            Caller::Page(origin) => origin,
            Caller::Foreign => return Box::pin(std::future::ready(Ok(empty(StatusCode::FORBIDDEN)))),
        };
        let asks_first = request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if asks_first {
            return Box::pin(std::future::ready(Ok(may_call(origin))));
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = answer.await.map(with_the_code_of_a_limit)?;
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
            headers.append(VARY, HeaderValue::from_static("origin"));
            Ok(answer)
        })
    }
}

/// A request that is too large is refused with the code of the existing service, ResourceExhausted. The library says
/// OutOfRange, which nothing else here does.
fn with_the_code_of_a_limit(mut answer: Response<Body>) -> Response<Body> {
    let code = |code: tonic::Code| HeaderValue::from(code as i32);
    if let Some(status) = answer.headers_mut().get_mut("grpc-status")
        && *status == code(tonic::Code::OutOfRange)
    {
        *status = code(tonic::Code::ResourceExhausted);
    }
    answer
}

/// The answer to a browser that asks whether its page may call.
fn may_call(origin: HeaderValue) -> Response<Body> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, ASK_AGAIN_S);
    headers.append(VARY, HeaderValue::from_static("origin"));
    answer
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        for origin in ["http://localhost:3000", "https://chat.example", "tauri://localhost"] {
            assert!(Origins::new([origin]).is_ok(), "{origin}");
        }
        for other in ["*", "null", "localhost:3000", "http://localhost:3000/", "http://", "http://*.example"]
        {
            assert!(Origins::new([other]).is_err(), "{other}");
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_not_this_machine() {
        let names = |host: &'static str| names_this_machine(&HeaderValue::from_static(host));
        for own in ["localhost", "LocalHost:9091", "127.0.0.1:9091", "127.8.0.1", "[::1]:9091"] {
            assert!(names(own), "{own}");
        }
        for foreign in
            ["evil.example:9091", "localhost.evil.example", "192.168.1.2:9091", "", "127.0.0.1.evil.example"]
        {
            assert!(!names(foreign), "{foreign}");
        }
    }
}
